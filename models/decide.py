"""One decision, from its context to the action served. Pure: the same context, rules and bundle give the same choice, bit for bit."""

import contextlib
import hashlib
import math
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from itertools import compress
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from models.actions import ActionTable, Estimate, list_actions, value_each
from models.booster import BoosterError
from models.bundle import Bundle
from models.cascade import Step, max_steps, plan, sends_by_order
from models.context import CascadeEnd, Context, DegradedCause, Mode, Reason, Verdict
from models.correction import Forecast
from models.curves import PlainLags, Room, plain_click, plain_lags
from models.eligibility import Eligibility, EligibleChannel, Slot, Suppressed, find_eligible, free_first
from models.planner import Campaign, CampaignValues, CascadeValues, Prices, value_campaign, value_with_free
from models.policies import RuleCascade, draw, explore, make_policy
from models.rules import Rules
from models.slate import Action, Actions

T = TypeVar("T")
FloatArray = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Degraded:
    """Something that was missing when the decision was made."""

    cause: DegradedCause
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """What was decided, why, and by which versions."""

    verdict: Verdict
    action: Action | None = None
    slot: Slot | None = None
    price_micros: int = 0
    propensity: float = 1.0
    forecast: Forecast | None = None
    """Of a send, what the bundle expects; None where it draws no curves."""
    exploration_cost_micros: float = 0.0
    """What exploring is expected to lose against the action that the policy values most."""
    free_only_micros: float = 0.0
    """What the best cascade of free channels alone is expected to earn, no send being worth 0."""
    suppressed: tuple[Suppressed, ...] = ()
    steps: tuple[Step, ...] = ()
    cascade_end: CascadeEnd | None = None
    retry_time: datetime | None = None
    policy: str = ""
    bundle_version: str = ""
    rules_name: str = ""
    service_version: str = ""
    degraded: tuple[Degraded, ...] = ()
    trainable: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Distribution:
    """The eligible actions with their values, and the probability of each, shape (n,)."""

    table: ActionTable
    probabilities: FloatArray


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """The recorded act. `distribution` is None where there was nothing to choose from."""

    context: Context
    choice: Choice
    distribution: Distribution | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """All of a decision but its draw."""

    context: Context
    distribution: Distribution
    eligible: tuple[EligibleChannel, ...]
    planned: ActionTable
    """The distribution's table, and paid channels that wait for free ones."""
    cascades: CascadeValues | None
    """None where the rule cascade decides, and values say nothing."""
    free_most: float | None
    """What the best cascade of free channels alone is worth, where planning has told it on the way."""
    suppressed: tuple[Suppressed, ...]
    policy: str
    exploration_cost_micros: float
    bundle_version: str
    degraded: tuple[Degraded, ...]


def decide(context: Context, rules: Rules, bundle: Bundle | None) -> Decision:
    """Decide one step of one message for one customer."""
    (decision,) = decide_each([context], rules, bundle)
    return decision


def decide_each(contexts: Sequence[Context], rules: Rules, bundle: Bundle | None) -> list[Decision]:
    """Decide messages that have nothing to do with each other, each as `decide` does; what they have in common is worked out once.

    Customers whose channels and slots are the same are scored and planned together. None of them sees what another's decision takes.
    """
    found = evaluate_each(contexts, rules, bundle)
    served = iter(serve_each([one for one in found if isinstance(one, Evaluation)], rules))
    return [one if isinstance(one, Decision) else next(served) for one in found]


def evaluate(context: Context, rules: Rules, bundle: Bundle | None) -> Evaluation | Decision:
    """Find what may be done and how probable each action is; the decision itself where there is nothing to choose from."""
    (found,) = evaluate_each([context], rules, bundle)
    return found


@dataclass(slots=True, kw_only=True)
class _Case:
    """A decision on its way: what may be done, and then what that is worth."""

    context: Context
    found: Eligibility
    considered: tuple[EligibleChannel, ...]
    actions: Actions
    planned: ActionTable = field(init=False)
    suppressed: tuple[Suppressed, ...] = ()
    degraded: tuple[Degraded, ...] = ()
    cascades: CascadeValues | None = None
    free_most: float | None = None


def evaluate_each(contexts: Sequence[Context], rules: Rules, bundle: Bundle | None) -> list[Evaluation | Decision]:
    """Evaluate messages that have nothing to do with each other; see `decide_each`."""
    version = bundle.version if bundle is not None else ""
    results: list[Evaluation | Decision | _Case] = [_open_case(context, rules, version) for context in contexts]
    cases = [case for case in results if isinstance(case, _Case)]
    groups = _by(cases, lambda case: id(case.actions))
    told = _estimate_groups([([case.context for case in alike], alike[0].actions) for alike in groups], rules, bundle)
    for alike, (estimates, degraded) in zip(groups, told, strict=True):
        tables = value_each(
            [case.context for case in alike], rules, [case.considered for case in alike], estimates, alike[0].actions
        )
        for case, table in zip(alike, tables, strict=True):
            case.planned, case.degraded = table, degraded
            _leave_out(case, rules)
    planned = [case for case in cases if not _is_by_order(case, rules)]
    contexts, tables = [case.context for case in planned], [case.planned for case in planned]
    values = _cascades_each(contexts, rules, tables, None, [_is_free(table) for table in tables])
    for case, (cascades, free_most) in zip(planned, values, strict=True):
        case.cascades, case.free_most = cascades, free_most
        case.planned = case.planned.with_plan(_plan_micros(case.planned, cascades))
    return [_evaluated(one, rules, version) if isinstance(one, _Case) else one for one in results]


def _by(items: Sequence[T], key: Callable[[T], Hashable]) -> list[list[T]]:
    """Return the items in groups of equal keys."""
    groups: dict[Hashable, list[T]] = {}
    for item in items:
        groups.setdefault(key(item), []).append(item)
    return list(groups.values())


def _open_case(context: Context, rules: Rules, version: str) -> _Case | Decision:
    """Find what may be done; the decision itself where there is nothing to choose from."""
    if context.message.category == "marketing" and is_held_out(context.customer.key, rules):
        choice = Choice(
            verdict=Verdict.HOLDOUT,
            policy="holdout",
            bundle_version=version,
            rules_name=rules.name,
            trainable=context.mode is Mode.LIVE,
        )
        return Decision(context=context, choice=choice)
    found = find_eligible(context, rules)
    if not found.eligible:
        return Decision(context=context, choice=_nothing_eligible(context, rules, found.suppressed, version))
    considered = (*found.eligible, *found.waiting)
    return _Case(
        context=context,
        found=found,
        considered=considered,
        actions=list_actions(considered),
        suppressed=found.suppressed,
    )


def _is_by_order(case: _Case, rules: Rules) -> bool:
    """Tell whether the rule cascade decides, and values say nothing."""
    return bool(case.degraded) or case.context.message.is_owed or rules.policy.name == "rule_cascade"


def _leave_out(case: _Case, rules: Rules) -> None:
    """Leave out of a table what is too dear; where the rule cascade decides, no send as well."""
    message = case.context.message
    by_order = _is_by_order(case, rules)
    if not by_order or (not message.is_owed and message.order_margin_micros == 0):
        case.planned, dear = _without_dear(case.planned, rules)
        case.suppressed += dear
    if by_order:
        is_send = case.planned.listed.is_send
        case.planned = case.planned.keep(is_send) if is_send.any() else case.planned


def _evaluated(case: _Case, rules: Rules, version: str) -> Evaluation:
    """Find how probable each action is."""
    context, planned, table = case.context, case.planned, case.planned
    policy = RuleCascade(rules.cascade.order) if _is_by_order(case, rules) else make_policy(rules, context)
    suppressed = case.suppressed
    if case.found.waiting:
        waiting = {channel.channel for channel in case.found.waiting}
        if not case.degraded:
            suppressed = tuple(_with_value(s, planned) if s.channel in waiting else s for s in suppressed)
        table = planned.keep(np.array([action.channel not in waiting for action in planned.actions]))
    probabilities, cost = explore(policy, table)
    return Evaluation(
        context=context,
        distribution=Distribution(table=table, probabilities=probabilities),
        eligible=case.found.eligible,
        planned=planned,
        cascades=case.cascades,
        free_most=case.free_most,
        suppressed=suppressed,
        policy=policy.name,
        exploration_cost_micros=cost,
        bundle_version=version,
        degraded=case.degraded,
    )


def serve(found: Evaluation, rules: Rules) -> Decision:
    """Draw the action to be served, and plan what may follow it."""
    (decision,) = serve_each([found], rules)
    return decision


def serve_each(found: Sequence[Evaluation], rules: Rules) -> list[Decision]:
    """Draw the actions to be served, and plan what may follow them."""
    free_only = _free_only(found, rules)
    return [_serve(one, rules, free) for one, free in zip(found, free_only, strict=True)]


def _serve(found: Evaluation, rules: Rules, free_only_micros: float) -> Decision:
    context, table, probabilities = found.context, found.distribution.table, found.distribution.probabilities
    index = draw(probabilities, context.seed)
    action = table.actions[index]
    end = CascadeEnd.NO_STEP_LEFT if context.step > 1 and action.send_time is None else None
    sends = _sends(rules, found.planned, action, found.cascades)
    values = found.cascades
    worth = () if values is None or action.send_time is None else values.growing(_place(found.planned, action))
    steps = plan(context, rules, found.planned, sends, is_learned=values is not None, worth=worth)
    choice = Choice(
        forecast=_forecast(table, index),
        verdict=Verdict.SEND if action.send_time is not None else Verdict.DO_NOT_SEND,
        action=action,
        slot=slot_of(found.eligible, action),
        price_micros=int(table.price_micros[index]),
        propensity=float(probabilities[index]),
        exploration_cost_micros=found.exploration_cost_micros,
        free_only_micros=free_only_micros,
        suppressed=found.suppressed,
        steps=steps,
        cascade_end=end,
        policy=found.policy,
        bundle_version=found.bundle_version,
        rules_name=rules.name,
        degraded=found.degraded,
        trainable=context.mode is Mode.LIVE,
    )
    # Curves are hundreds of kilobytes that nobody asks a decision for.
    kept = Distribution(table=table.without_curves(), probabilities=probabilities)
    return Decision(context=context, choice=choice, distribution=kept)


def _forecast(table: ActionTable, index: int) -> Forecast | None:
    curves, action = table.curves, table.actions[index]
    if curves is None or action.send_time is None:
        return None
    send = table.listed.sends.place[id(action)]
    return curves.forecasts.of_send(int(curves.row[send]))


def end_cascade(context: Context, rules: Rules, end: CascadeEnd) -> Decision:
    """Return the decision that ends a cascade without a send."""
    choice = Choice(verdict=Verdict.DO_NOT_SEND, cascade_end=end, policy="cascade_end", rules_name=rules.name)
    return Decision(context=context, choice=choice)


def is_held_out(customer_key: str, rules: Rules) -> bool:
    """Tell whether a customer is in the holdout: a salted hash of the person, the same in every replica."""
    if rules.holdout.share == 0:
        return False
    digest = hashlib.sha256(f"{rules.holdout.salt}\x1f{customer_key}".encode()).digest()
    return int.from_bytes(digest[:8]) / 2**64 < rules.holdout.share


def make_seed(request_id: str, step: int) -> int:
    """Return the seed of a step's draw, a non-negative 63-bit integer that depends on nothing but the request."""
    return int.from_bytes(hashlib.sha256(f"{request_id}\x1f{step}".encode()).digest()[:8]) >> 1


def best_cascades(
    context: Context, rules: Rules, table: ActionTable, among: NDArray[np.bool_] | None = None
) -> CascadeValues:
    """Return what each send of a table, or of those `among` it, is worth with the best that may follow it, under these rules."""
    (found,) = best_cascades_each([context], rules, [table], None if among is None else [among])
    return found


def best_cascades_each(
    contexts: Sequence[Context],
    rules: Rules,
    tables: Sequence[ActionTable],
    among: Sequence[NDArray[np.bool_]] | None = None,
) -> list[CascadeValues]:
    """Do the same of several customers; those whose sends are the same, and of which the model draws no curves, together."""
    return [values for values, _ in _cascades_each(contexts, rules, tables, among, None)]


def _cascades_each(
    contexts: Sequence[Context],
    rules: Rules,
    tables: Sequence[ActionTable],
    among: Sequence[NDArray[np.bool_]] | None,
    is_free: Sequence[NDArray[np.bool_]] | None,
) -> list[tuple[CascadeValues, float | None]]:
    """Do the same, and tell what the best cascade of those that are free is worth, where that is found on the way."""
    masks = [None] * len(tables) if among is None else among
    found: dict[int, tuple[CascadeValues, float | None]] = {}

    def key(place: int) -> Hashable:
        context, table, mask = contexts[place], tables[place], masks[place]
        if table.curves is not None:
            return place
        expire, step = context.message.expire_time, context.step
        limits = (max_steps(context, rules), free_first(context, rules))
        chosen = None if mask is None else mask.tobytes()
        return id(table.actions), chosen, context.decide_time, expire, step, limits, table.is_paid.tobytes()

    for alike in _by(range(len(tables)), key):
        first = alike[0]
        if tables[first].curves is not None:
            mine = None if is_free is None else is_free[first]
            found[first] = _drawn_cascades(contexts[first], rules, tables[first], masks[first], mine)
        else:
            chosen = [contexts[place] for place in alike]
            free = None if is_free is None else [is_free[place] for place in alike]
            values = _plain_cascades(chosen, rules, [tables[place] for place in alike], masks[first], free)
            free_most: Sequence[float | None] = values.free_most or [None] * len(alike)
            found.update(zip(alike, zip(values.values, free_most, strict=True), strict=True))
    return [found[place] for place in range(len(tables))]


def _is_free(table: ActionTable) -> NDArray[np.bool_]:
    is_free: NDArray[np.bool_] = ~table.is_paid & (table.price_micros == 0)
    return is_free


def _drawn_cascades(
    context: Context,
    rules: Rules,
    table: ActionTable,
    among: NDArray[np.bool_] | None,
    is_free: NDArray[np.bool_] | None,
) -> tuple[CascadeValues, float | None]:
    """Return the best cascades by the curves that the model draws, and what the best free one is worth, where that is asked and found on the way."""
    is_send, curves = table.listed.is_send, table.curves
    assert curves is not None  # else there are plain ones
    is_asked = is_send if among is None else is_send & among
    curves = curves if among is None else curves.keep(among[is_send])
    prices = Prices(
        micros=(table.price_micros * (1 + table.shadow_price))[is_asked],
        is_paid=table.is_paid[is_asked],
        ready=curves.ready(_least_wait(rules)),
        is_later=table.listed.is_later if among is None else table.listed.is_later[among[is_send]],
    )
    steps, is_strict = _steps_left(context, rules), free_first(context, rules) == "strict"
    with Room.lent() as room:
        free = None if is_free is None else is_free[is_asked]
        return value_with_free(curves.drawn(room), prices, steps, free, is_strict=is_strict)


def _plain_cascades(
    contexts: Sequence[Context],
    rules: Rules,
    tables: Sequence[ActionTable],
    among: NDArray[np.bool_] | None,
    is_free: Sequence[NDArray[np.bool_]] | None,
) -> CampaignValues:
    """Return the best cascades of customers whose sends are the same, where the model draws no curves: the channel's wait says how long a response takes."""
    first, listed = contexts[0], tables[0].listed
    sends, places = listed.sends, np.flatnonzero(listed.is_send)
    margin = np.array([float(context.message.order_margin_micros) for context in contexts])
    uplift = np.array([table.incremental_micros for table in tables]).take(places, axis=1)
    uplift /= np.maximum(margin, 1.0)[:, None]
    click = plain_click(uplift)
    told = (rules.channels, rules.cascade)
    key = (*map(id, told), first.decide_time, first.message.expire_time)
    _, how, ready = sends.once(
        key, lambda: (told, *_lags(first, rules, sends))
    )  # kept, so that no others have their identity
    is_later = listed.is_later
    if (
        among is not None
    ):  # in the same cells as all sends, and with the same later steps, so that some are worth no more than all
        kept = among[listed.is_send]
        uplift, click, places, ready, is_later = (
            uplift[:, kept],
            click[:, kept],
            places[kept],
            ready[kept],
            is_later[kept],
        )
        how = _some_lags(how, kept)
    price = np.array([table.shadow_price for table in tables]).take(places, axis=1)
    price += 1
    price *= np.array([table.price_micros for table in tables]).take(places, axis=1)
    return value_campaign(
        Campaign(
            how=how,
            ready=ready,
            is_paid=tables[0].is_paid[places],
            steps=_steps_left(first, rules),
            is_strict=free_first(first, rules) == "strict",
            click=click,
            uplift=uplift,
            p_unsubscribe=np.array([table.p_unsubscribe for table in tables]).take(places, axis=1),
            price=price,
            margin=margin,
            harm_micros=rules.harm.unsubscribe,
            is_later=is_later,
            is_free=None if is_free is None else np.array(is_free).take(places, axis=1),
        )
    )


def _lags(context: Context, rules: Rules, sends: Actions) -> tuple[PlainLags, NDArray[np.intp]]:
    """Return when sends begin and how their reactions come, and from which cell another may follow each."""
    waits = np.array([rules.channels[name].wait / timedelta(hours=1) for name in sends.names])
    how = plain_lags(context, sends.timed, waits[sends.channel])
    return how, how.ready(_least_wait(rules))


def _some_lags(how: PlainLags, kept: NDArray[np.bool_]) -> PlainLags:
    """Return the same of the sends that are kept."""
    channel = tuple(compress(how.channel, kept.tolist()))
    return replace(how, channel=channel, start=how.start[kept], row=how.row[kept], number=how.number[kept])


def _least_wait(rules: Rules) -> int:
    return max(1, math.ceil(rules.cascade.least_wait_minutes / 60))


def _steps_left(context: Context, rules: Rules) -> int:
    return max_steps(context, rules) - context.step + 1


def _plan_micros(table: ActionTable, cascades: CascadeValues) -> FloatArray:
    found = table.net_micros.copy()
    found[table.listed.is_send] = cascades.value
    return found


def _following(table: ActionTable, first: Action, cascades: CascadeValues) -> tuple[Action, ...]:
    if first.send_time is None:
        return ()
    sends = table.listed.sends
    return tuple(sends[place] for place in cascades.following(_place(table, first)))


def _place(table: ActionTable, send: Action) -> int:
    """Return the place of a send among the sends of a table."""
    return table.listed.sends.place[id(send)]


def _free_only(found: Sequence[Evaluation], rules: Rules) -> list[float]:
    """Return what the best cascade of free channels alone is expected to earn each, 0 where no model says."""
    most: dict[int, float] = {}
    asked: list[int] = []
    masks = []
    for place, one in enumerate(found):
        planned, table = one.planned, one.distribution.table
        most[place] = 0.0
        if one.degraded:
            continue
        is_free = _is_free(planned)
        if one.cascades is not None:
            best = table.actions[int(table.plan_micros.argmax())]
            used = (best, *_following(planned, best, one.cascades))
            free = planned.listed.part(is_free).names
            if all(action.channel in free for action in used):
                most[place] = max(0.0, float(table.plan_micros.max()))
                continue
        if one.free_most is not None:
            most[place] = max(0.0, one.free_most)
            continue
        asked.append(place)
        masks.append(is_free)
    values = best_cascades_each(
        [found[place].context for place in asked], rules, [found[place].planned for place in asked], masks
    )
    for place, cascades in zip(asked, values, strict=True):
        most[place] = max(0.0, float(cascades.value.max(initial=0.0)))
    return [most[place] for place in range(len(found))]


def _sends(rules: Rules, table: ActionTable, first: Action, cascades: CascadeValues | None) -> tuple[Action, ...]:
    """Return the sends of the cascade that starts with this one."""
    if cascades is None:
        return sends_by_order(table, first, rules.cascade.order)
    return (first, *_following(table, first, cascades))


def _nothing_eligible(context: Context, rules: Rules, suppressed: tuple[Suppressed, ...], version: str) -> Choice:
    retries = [
        s.retry_time for s in suppressed if s.retry_time is not None and s.retry_time < context.message.expire_time
    ]
    waits = [retry for retry in retries if _only_reason(retry, suppressed)]
    end = CascadeEnd.NO_STEP_LEFT if context.step > 1 and not waits else None
    return Choice(
        verdict=Verdict.DEFER if waits else Verdict.DO_NOT_SEND,
        suppressed=suppressed,
        retry_time=min(waits, default=None),
        cascade_end=end,
        policy="none_eligible",
        bundle_version=version,
        rules_name=rules.name,
    )


def _only_reason(retry: datetime, suppressed: tuple[Suppressed, ...]) -> bool:
    """Tell whether waiting until then frees a channel: time is all that keeps it back."""
    channels = {s.channel for s in suppressed if s.retry_time == retry}
    return any(all(s.retry_time is not None for s in suppressed if s.channel == channel) for channel in channels)


_Estimates = tuple[list[Estimate], tuple[Degraded, ...]]


def _estimate_groups(
    groups: Sequence[tuple[Sequence[Context], Actions]], rules: Rules, bundle: Bundle | None
) -> list[_Estimates]:
    """Return the model's estimates of each group of contexts with the same actions; where those of one fail, the others do not."""
    if bundle is not None and len(groups) > 1:
        with contextlib.suppress(BoosterError):
            found = bundle.estimate_groups(groups, _unsubscribe_rates(rules), rules.harm.unsubscribe)
            return [(estimates, ()) for estimates in found]
    return [_estimate(contexts, rules, bundle, actions) for contexts, actions in groups]


def _unsubscribe_rates(rules: Rules) -> dict[str, float]:
    return {key: channel.unsubscribe_rate for key, channel in rules.channels.items()}


def _estimate(contexts: Sequence[Context], rules: Rules, bundle: Bundle | None, actions: Actions) -> _Estimates:
    """Return the model's estimate of the same actions in each context; where there is none, zeros, and why."""
    rates = _unsubscribe_rates(rules)
    if bundle is not None:
        try:
            return bundle.estimate_each(contexts, actions, rates, rules.harm.unsubscribe), ()
        except BoosterError as error:
            degraded = Degraded(cause=DegradedCause.SCORING_FAILED, detail=f"the rule cascade decided: {error}")
    else:
        degraded = Degraded(cause=DegradedCause.NO_BUNDLE, detail="no bundle is loaded; the rule cascade decided")
    unsubscribe = np.array([rates.get(action.channel, 0.0) for action in actions])
    nothing = Estimate(p_response=np.zeros(len(actions)), p_unsubscribe=unsubscribe)
    return [nothing] * len(contexts), (degraded,)


def _without_dear(table: ActionTable, rules: Rules) -> tuple[ActionTable, tuple[Suppressed, ...]]:
    """Take out channels that cost more than a generous estimate of what any of their sends earns.

    Sends of one channel stay together: to leave out some would have the price say how many the rest share the channel's exploration with.
    """
    ceiling = rules.policy.paid_optimism * np.maximum(table.incremental_micros, 0.0)
    dear = (table.price_micros > 0) & (table.price_micros * (1 + table.shadow_price) >= ceiling)
    if not dear.any():
        return table, ()
    suppressed: list[Suppressed] = []
    kept_channels = {a.channel for a, gone in zip(table.actions, dear, strict=True) if not gone}
    dear &= np.array([action.channel not in kept_channels for action in table.actions])
    for channel in dict.fromkeys(a.channel for a, gone in zip(table.actions, dear, strict=True) if gone):
        if channel not in kept_channels:
            rows = [i for i, action in enumerate(table.actions) if action.channel == channel]
            best = max(rows, key=lambda i: float(table.incremental_micros[i]))
            earned, price = table.incremental_micros[best] / 1e6, table.price_micros[best] / 1e6
            detail = f"adds {earned:.2f} of expected margin, costs {price:.2f}"
            if table.shadow_price[best]:
                detail += f" x {1 + table.shadow_price[best]:.2f} under its budget"
            suppressed.append(Suppressed(channel=channel, reason=Reason.PRICE_ABOVE_VALUE, detail=detail))
    return table.keep(~dear), tuple(suppressed)


def _with_value(suppressed: Suppressed, table: ActionTable) -> Suppressed:
    """Say of a channel that waits for free ones what it would earn and cost."""
    rows = [i for i, action in enumerate(table.actions) if action.channel == suppressed.channel]
    if suppressed.reason is not Reason.FREE_CHANNEL_UNTRIED or not rows:
        return suppressed
    best = max(rows, key=lambda i: float(table.net_micros[i]))
    earned, price = table.incremental_micros[best] / 1e6, table.price_micros[best] / 1e6
    return replace(suppressed, detail=f"{suppressed.detail}; it would add {earned:.2f} and cost {price:.2f}")


def slot_of(eligible: tuple[EligibleChannel, ...], action: Action) -> Slot | None:
    """Return the slot of an action, None of no send."""
    if action.send_time is None:
        return None
    slots = next(c.slots for c in eligible if c.channel == action.channel)
    return next(slot for slot in slots if slot.start == action.send_time)
