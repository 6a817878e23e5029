"""What is compared: hand-written rules, what is learned from a log by counting, the service's own decision core, and the oracles.

All but the oracles see what the service sees. Up-to-three-SMS stands for life before the service and keeps no cap; all others keep them.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

import numpy as np
from numpy.typing import NDArray

from models.budget import BudgetState, Spending, period_of, state_of, update_price
from models.bundle import Bundle
from models.context import Contact, Context, Verdict
from models.correction import (
    ORDERS,
    Corrections,
    Forecast,
    Happenings,
    cells,
    change,
    epoch_hour,
    happenings,
)
from models.decide import Choice, decide
from models.eligibility import EligibleChannel, find_eligible
from models.features import NO_SEND, Action
from models.local_time import zone
from models.rules import Budget, Rules
from training.world.clock import to_hour, to_time
from training.world.oracle import (
    Allocation,
    Candidates,
    Plan,
    Plans,
    allocate,
    best_plan,
    enumerate_plans,
    find_candidates,
    frontier,
)
from training.world.people import CHANNELS
from training.world.protocol import Outcome, Reply, Step
from training.world.run import World
from training.world.truth import Send, Truth

FloatArray = NDArray[np.float64]
_NOTHING = Reply(action=Action(channel=NO_SEND))
_RESEND = timedelta(hours=24)
_DAY_BEGINS, _DAY_ENDS = 10, 19
_PRIOR_SENDS, _PRIOR_NOTICES = 10.0, 12.0


class _Deaf:
    """A policy that learns nothing while it runs."""

    def observe(self, outcome: Outcome) -> None:
        """Ignore the outcome."""


def eligible_of(context: Context, rules: Rules, channels: Sequence[str]) -> dict[str, EligibleChannel]:
    """Return those of the channels that are eligible now, by name."""
    asked = tuple(option for option in context.options if option.channel in channels)
    found = find_eligible(replace(context, options=asked), rules)
    return {channel.channel: channel for channel in (*found.eligible, *found.waiting)}


class NoSend(_Deaf):
    """Sends nothing: the world as it is without messages."""

    name = "no send"

    def decide(self, context: Context) -> Reply:
        return _NOTHING


class RepeatedSms(_Deaf):
    """An SMS at once, again after a day, and again, until an order or click; consent and quiet hours alone are kept."""

    def __init__(self, rules: Rules, times: int = 3) -> None:
        self.name = "SMS to all" if times == 1 else f"up to {times} SMS each"
        self._rules = replace(rules, caps=(), topic_cap=None)
        self._times = times

    def decide(self, context: Context) -> Reply:
        free = replace(context, tried=(), customer=replace(context.customer, contacts=()))
        found = eligible_of(free, self._rules, ("sms",)).get("sms")
        if found is None or context.step > self._times:
            return _NOTHING
        moment = found.slots[0].start
        again = moment + _RESEND if context.step < self._times else None
        return Reply(action=Action(channel="sms", send_time=moment), ask_time=again)


class RuleOrder(_Deaf):
    """A hand-written cascade: the first eligible channel of an order at its first slot, the next after the rules' wait."""

    def __init__(self, order: Sequence[str], rules: Rules) -> None:
        self.name = " -> ".join(order) + " by hand" if len(order) > 1 else f"{order[0]} to all"
        self._order, self._rules = order, rules

    def decide(self, context: Context) -> Reply:
        left = [channel for channel in self._order if channel not in context.tried]
        for channel in left:
            found = eligible_of(context, self._rules, (channel,)).get(channel)
            if found is not None:
                moment = found.slots[0].start
                wait = self._rules.channels[channel].wait
                return Reply(action=Action(channel=channel, send_time=moment), ask_time=moment + wait)
        return _NOTHING


class Uniform(_Deaf):
    """The logging policy: an eligible channel or no send evenly, then one of the channel's slots evenly; propensities are exact.

    What is owed is sent wherever a channel is eligible.

    With `steps` above 1, later steps are drawn alike after the rules' wait.
    """

    name = "uniform random"

    def __init__(self, rules: Rules, steps: int = 1) -> None:
        self._rules, self._steps = rules, steps

    def decide(self, context: Context) -> Reply:
        found = find_eligible(context, self._rules).eligible
        rng = np.random.default_rng(context.seed)
        count = len(found) + (not found or not context.message.is_owed)
        place = int(rng.integers(count))
        if place == len(found):
            return Reply(action=Action(channel=NO_SEND), propensity=1 / count)
        chosen = found[place]
        slot = chosen.slots[int(rng.integers(len(chosen.slots)))]
        wait = self._rules.channels[chosen.channel].wait
        return Reply(
            action=Action(channel=chosen.channel, send_time=slot.start),
            propensity=1 / count / len(chosen.slots),
            ask_time=slot.start + wait if context.step < self._steps else None,
        )


class Engagement:
    """What counting in a log says: per customer, the share of each channel's sends that were noticed, and the hours of noticing.

    Shares are drawn to the channel's by the weight of 10 sends, hours to all customers' by the weight of 12 noticed messages.
    """

    def __init__(self, steps: Sequence[Step], outcomes: Sequence[Outcome]) -> None:
        noticed = {(o.decision_id, o.step): o.occur_time for o in outcomes if o.type == "seen"}
        self._sends: dict[tuple[str, str], FloatArray] = {}
        self._hours: dict[str, FloatArray] = {}
        overall = {channel: np.array([1.0, 2.0]) for channel in CHANNELS}
        every = np.ones(24)
        for step in steps:
            if step.reply.action.send_time is None:
                continue
            who, channel = step.context.customer.key, step.reply.action.channel
            moment = noticed.get((step.context.decision_id, step.context.step))
            count = np.array([moment is not None, 1.0], dtype=np.float64)
            self._sends[who, channel] = self._sends.get((who, channel), np.zeros(2)) + count
            overall[channel] = overall[channel] + count
            if moment is not None:
                hour = moment.astimezone(zone(step.context.customer.time_zone)).hour
                self._hours.setdefault(who, np.zeros(24))[hour] += 1
                every[hour] += 1
        self._rates = {channel: float(count[0] / count[1]) for channel, count in overall.items()}
        self._every = every / every.sum()

    def rate(self, customer: str, channel: str) -> float:
        """Return how often the customer notices the channel, 0 to 1."""
        seen, sent = self._sends.get((customer, channel), (0.0, 0.0))
        return float((seen + _PRIOR_SENDS * self._rates[channel]) / (sent + _PRIOR_SENDS))

    def hours(self, customer: str) -> FloatArray:
        """Return the weight of each local hour, shape (24,)."""
        return np.asarray(self._hours.get(customer, np.zeros(24)) + _PRIOR_NOTICES * self._every)


class MostEngaged(_Deaf):
    """The channel that the customer notices most: at the customer's own best hour, or at the next daytime (10 to 19 local)."""

    def __init__(self, engagement: Engagement, rules: Rules, *, is_best_hour: bool) -> None:
        self.name = "most engaged channel, " + ("most engaged hour" if is_best_hour else "next daytime")
        self._engagement, self._rules, self._is_best_hour = engagement, rules, is_best_hour

    def decide(self, context: Context) -> Reply:
        customer = context.customer
        found = eligible_of(context, self._rules, CHANNELS)
        if not found:
            return _NOTHING
        best = max(found.values(), key=lambda c: (self._engagement.rate(customer.key, c.channel), c.channel))
        where, hours = zone(customer.time_zone), self._engagement.hours(customer.key)
        moments = [slot.start for slot in best.slots]

        def local_hour(moment: datetime) -> int:
            return moment.astimezone(where).hour

        if self._is_best_hour:
            moment = max(moments, key=lambda m: hours[local_hour(m)])
        else:
            daytime = [m for m in moments if _DAY_BEGINS <= local_hour(m) < _DAY_ENDS]
            moment = (daytime or moments)[0]
        return Reply(action=Action(channel=best.channel, send_time=moment))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Sent:
    """A send that the service decided, with what was told of it since."""

    step: int
    channel: str
    kind: str
    customer_id: str
    forecast: Forecast
    outcomes: list[tuple[str, int]] = field(default_factory=list)


class _Ledger:
    """What a policy reserves and spends of a budget, as the service keeps it in its store."""

    def __init__(self, budget: Budget, rules: Rules, *, is_paced: bool) -> None:
        self._budget, self._rules, self._is_paced = budget, rules, is_paced
        self._spending: Spending | None = None
        self._open: dict[tuple[str, int], int] = {}

    def state(self, now: datetime) -> BudgetState:
        """Return the budget as it is now."""
        state = state_of(self._budget, self._rules, self._now(now), now)
        return state if self._is_paced else replace(state, shadow_price=0.0)

    def reserve(self, context: Context, choice: Choice) -> None:
        """Set aside what a decision is going to cost."""
        action, price = choice.action, choice.price_micros
        if (
            choice.verdict is Verdict.SEND
            and action is not None
            and price
            and context.budgets[0].counts(action.channel)
        ):
            self._open[context.decision_id, context.step] = price
            self._add(context.decide_time, price, 0)

    def settle(self, outcome: Outcome) -> None:
        """Commit what was sent, and release what was not."""
        key = outcome.decision_id, outcome.step
        if outcome.type in ("sent", "not_sent") and key in self._open:
            cost = outcome.cost_micros or 0 if outcome.type == "sent" else 0
            self._add(outcome.occur_time, -self._open.pop(key), cost)

    def _now(self, now: datetime) -> Spending:
        begin = period_of(self._budget, self._rules, now).start
        return update_price(self._budget, self._rules, self._spending or Spending(price_time=begin), now)

    def _add(self, now: datetime, reserved: int, committed: int) -> None:
        spending = self._now(now)
        self._spending = replace(
            spending,
            reserved_micros=spending.reserved_micros + reserved,
            committed_micros=spending.committed_micros + committed,
        )


class ServiceCore:
    """The service's decision core in this process: `models.decide` with a bundle, corrected by outcomes, advanced as AdvanceCascade does.

    With a `budget` it keeps within it as the service does; unless it is paced, it has no shadow price and spends while there is money.
    """

    def __init__(
        self,
        rules: Rules,
        bundle: Bundle | None,
        max_steps: int | None = None,
        *,
        is_adaptive: bool = True,
        budget: Budget | None = None,
        is_paced: bool = True,
    ) -> None:
        self.name = "service decision core" + ("" if bundle is not None else ", no bundle")
        if max_steps is not None:
            rules = replace(rules, cascade=replace(rules.cascade, max_steps=max_steps))
            self.name += f", {max_steps} step" + ("s" if max_steps > 1 else "")
        if not is_adaptive:
            self.name += ", without correction"
        if budget is not None:
            self.name += ", paced by a shadow price" if is_paced else ", first come, first served"
        self._rules, self._bundle = rules, bundle
        self._ledger = None if budget is None else _Ledger(budget, rules, is_paced=is_paced)
        is_corrected = is_adaptive and rules.policy.correction
        self._corrections = Corrections("" if bundle is None else bundle.version) if is_corrected else None
        self._sent: dict[str, list[_Sent]] = {}
        self._messages: dict[str, set[str]] = {}
        self._orders: dict[str, list[int]] = {}

    def decide(self, context: Context) -> Reply:
        if context.step > self._rules.cascade.max_steps:
            return _NOTHING
        if self._corrections is not None:
            hour = epoch_hour(context.decide_time)
            context = replace(context, factors=self._corrections.factors(hour, context.message.kind, context.step))
        if self._ledger is not None:
            context = replace(context, budgets=(self._ledger.state(context.decide_time),))
        choice = decide(context, self._rules, self._bundle).choice
        if self._ledger is not None:
            self._ledger.reserve(context, choice)
        if choice.verdict is Verdict.DEFER:
            return Reply(action=Action(channel=NO_SEND), ask_time=choice.retry_time, is_deferred=True)
        if choice.verdict is not Verdict.SEND or choice.action is None or choice.action.send_time is None:
            return Reply(action=Action(channel=NO_SEND), propensity=choice.propensity)
        if choice.forecast is not None:
            sent = _Sent(
                step=context.step,
                channel=choice.action.channel,
                kind=context.message.kind,
                customer_id=context.customer.key,
                forecast=choice.forecast,
            )
            self._sent.setdefault(context.decision_id, []).append(sent)
            self._book(sent, None, self._known(context.decision_id, sent))
        following = choice.steps[0].not_before + choice.steps[0].wait if len(choice.steps) > 1 else None
        return Reply(action=choice.action, propensity=choice.propensity, ask_time=following)

    def follow(self, rules: Rules) -> None:
        """Follow other rules from now on."""
        self._rules = rules

    def serve(self, bundle: Bundle) -> None:
        """Serve another bundle from now on, whose corrections begin anew."""
        self._bundle = bundle
        if self._corrections is not None:
            self._corrections = Corrections(bundle.version)
        self._sent.clear()
        self._messages.clear()

    def observe(self, outcome: Outcome) -> None:
        """Correct the bundle by the outcome, and know what was spent."""
        if self._ledger is not None:
            self._ledger.settle(outcome)
        hour = epoch_hour(outcome.occur_time)
        messages = {outcome.decision_id}
        if outcome.type == "clicked":
            self._messages.setdefault(outcome.customer_id, set()).add(outcome.decision_id)
        elif outcome.type in ORDERS:
            messages |= self._messages.get(outcome.customer_id, set())
        sends = [(name, sent) for name in sorted(messages) for sent in self._sent.get(name, ())]
        before = [self._known(name, sent) for name, sent in sends]
        if outcome.type in ORDERS:
            self._orders.setdefault(outcome.customer_id, []).append(hour)
        for sent in self._sent.get(outcome.decision_id, ()):
            if sent.step == outcome.step:
                sent.outcomes.append((outcome.type, hour))
        for (name, sent), known in zip(sends, before, strict=True):
            self._book(sent, known, self._known(name, sent))

    def _known(self, decision_id: str, sent: "_Sent") -> Happenings:
        others = (o for other in self._sent[decision_id] if other is not sent for o in other.outcomes)
        return happenings(
            sent.outcomes, others, self._orders.get(sent.customer_id, ()), order_until=sent.forecast.order_until
        )

    def _book(self, sent: "_Sent", before: Happenings | None, after: Happenings) -> None:
        if self._corrections is None or before == after:
            return
        changed = change(sent.forecast, before, after)
        self._corrections.add(cells(self._corrections.bundle, sent.channel, sent.kind, sent.step, changed))


class Oracle(_Deaf):
    """Who knows the truth: the best plan of each message as of its arrival, of up to `max_steps`, at a dual price of money.

    With a `truth` other than the world's, it plans for that one: what who believes it would do.
    """

    def __init__(
        self,
        world: World,
        max_steps: int = 3,
        dual_price: float = 0.0,
        truth: Truth | None = None,
        name: str | None = None,
    ) -> None:
        usual = "best single send (oracle)" if max_steps == 1 else f"best cascade of {max_steps} (oracle)"
        self.name = name or usual + (f", dual price {dual_price:.2f}" if dual_price else "")
        self._world, self._max_steps, self._dual_price = world, max_steps, dual_price
        self._truth = truth or world.truth
        self._plans: dict[str, Plan] = {}

    def decide(self, context: Context) -> Reply:
        if context.step == 1:
            self._plans[context.decision_id] = self._plan(context)
        return self._reply(context)

    def _reply(self, context: Context) -> Reply:
        sends = self._plans[context.decision_id].sends
        if context.step > len(sends):
            return _NOTHING
        send = sends[context.step - 1]
        following = sends[context.step].hour if context.step < len(sends) else None
        return Reply(
            action=Action(
                channel=CHANNELS[send.channel], send_time=to_time(max(send.hour, to_hour(context.decide_time)))
            ),
            ask_time=None if following is None else to_time(following),
        )

    def _plan(self, context: Context) -> Plan:
        rules = self._world.rules
        candidates = find_candidates(context, rules, is_whole_life=self._max_steps > 1)
        case = self._truth.case(self._world.index_of(context.decision_id))
        plans = enumerate_plans(self._truth, case, candidates, self._max_steps)
        return best_plan(plans, candidates, context, rules, self._dual_price)


class JointOracle(Oracle):
    """The oracle of competing messages: of those that arrive together it plans the one first whose plan is worth most, and so on.

    Each is planned with the contacts of those before it, so that the plans keep caps together and reckon with what they tire.
    """

    def decide_together(self, contexts: Sequence[Context]) -> list[Reply]:
        """Plan all of them; replies in their own order."""
        left, planned = list(contexts), list[Contact]()
        while left:
            plans = [self._plan(_with_contacts(context, planned)) for context in left]
            first = max(range(len(left)), key=lambda place: plans[place].net(self._dual_price))
            context, plan = left.pop(first), plans[first]
            self._plans[context.decision_id] = plan
            planned += [self._contact(context, send) for send in plan.sends]
        return [self._reply(context) for context in contexts]

    def _contact(self, context: Context, send: Send) -> Contact:
        moment, channel = to_time(send.hour), CHANNELS[send.channel]
        return Contact(
            decision_id=context.decision_id,
            channel=channel,
            topic=context.message.topic,
            category=context.message.category,
            start=moment,
            end=moment + self._world.rules.channels[channel].slip,
        )


def _with_contacts(context: Context, contacts: Sequence[Contact]) -> Context:
    customer = context.customer
    return replace(context, customer=replace(customer, contacts=(*customer.contacts, *contacts)))


def plan_under_budget(world: World, budget: float, max_steps: int = 3) -> Allocation:
    """Return the best plans of all of a world's messages whose expected spending, in roubles, keeps within a budget.

    Each message is looked at from where the world begins, as if the others were not; run `Oracle` at the dual price found to see
    what comes of it where contacts tire and caps bind.
    """
    frontiers: list[Plans] = []
    candidates: list[Candidates] = []
    for index in range(len(world.messages)):
        found = find_candidates(world.context(index), world.rules, is_whole_life=max_steps > 1)
        plans = enumerate_plans(world.truth, world.truth.case(index), found, max_steps)
        frontiers.append(frontier(plans))
        candidates.append(found)
    return allocate(frontiers, candidates, budget)
