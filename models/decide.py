"""One decision, from its context to the action served. Pure: the same context, rules and bundle give the same choice, bit for bit."""

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from itertools import takewhile

import numpy as np
from numpy.typing import NDArray

from models.actions import ActionTable, Estimate, list_actions, value_actions
from models.booster import BoosterError
from models.bundle import Bundle
from models.cascade import Step, max_steps, plan, sends_by_order
from models.context import CascadeEnd, Context, DegradedCause, Mode, Reason, Verdict
from models.correction import Forecast
from models.curves import Curves, plain_curves, plain_lags
from models.eligibility import EligibleChannel, Slot, Suppressed, find_eligible, free_first
from models.planner import CascadeValues, Prices, value_cascades
from models.policies import RuleCascade, draw, make_policy
from models.rules import Rules
from models.slate import Action, Actions

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
    suppressed: tuple[Suppressed, ...]
    policy: str
    exploration_cost_micros: float
    bundle_version: str
    degraded: tuple[Degraded, ...]


def decide(context: Context, rules: Rules, bundle: Bundle | None) -> Decision:
    """Decide one step of one message for one customer."""
    found = evaluate(context, rules, bundle)
    return found if isinstance(found, Decision) else serve(found, rules)


def evaluate(context: Context, rules: Rules, bundle: Bundle | None) -> Evaluation | Decision:
    """Find what may be done and how probable each action is; the decision itself where there is nothing to choose from."""
    version = bundle.version if bundle is not None else ""
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
    actions = list_actions(considered)
    estimate, degraded = _estimate(context, rules, bundle, actions)
    planned = value_actions(context, rules, considered, estimate, actions)
    suppressed = found.suppressed
    policy = make_policy(rules, context)
    by_order = bool(degraded) or context.message.is_owed or rules.policy.name == "rule_cascade"
    if by_order:
        policy = RuleCascade(rules.cascade.order)
        if not context.message.is_owed and context.message.order_margin_micros == 0:
            planned, dear = _without_dear(planned, rules)
            suppressed += dear
        is_send = planned.listed.is_send
        planned = planned.keep(is_send) if is_send.any() else planned
    else:
        planned, dear = _without_dear(planned, rules)
        suppressed += dear
    cascades: CascadeValues | None = None
    if not by_order:
        planned = replace(planned, curves=_curves(context, rules, planned))
        cascades = best_cascades(context, rules, planned)
        planned = replace(planned, plan_micros=_plan_micros(planned, cascades))
    waiting = {channel.channel for channel in found.waiting}
    if not degraded:
        suppressed = tuple(_with_value(s, planned) if s.channel in waiting else s for s in suppressed)
    table = planned.keep(np.array([action.channel not in waiting for action in planned.actions]))
    probabilities = policy.distribution(table)
    return Evaluation(
        context=context,
        distribution=Distribution(table=table, probabilities=probabilities),
        eligible=found.eligible,
        planned=planned,
        cascades=cascades,
        suppressed=suppressed,
        policy=policy.name,
        exploration_cost_micros=policy.exploration_cost(table, probabilities),
        bundle_version=version,
        degraded=degraded,
    )


def serve(found: Evaluation, rules: Rules) -> Decision:
    """Draw the action to be served, and plan what may follow it."""
    context, table, probabilities = found.context, found.distribution.table, found.distribution.probabilities
    index = draw(probabilities, context.seed)
    action = table.actions[index]
    end = CascadeEnd.NO_STEP_LEFT if context.step > 1 and action.send_time is None else None
    sends = _sends(rules, found.planned, action, found.cascades)
    steps = plan(context, rules, found.planned, sends, is_learned=found.cascades is not None)
    choice = Choice(
        forecast=_forecast(table, index),
        verdict=Verdict.SEND if action.send_time is not None else Verdict.DO_NOT_SEND,
        action=action,
        slot=slot_of(found.eligible, action),
        price_micros=int(table.price_micros[index]),
        propensity=float(probabilities[index]),
        exploration_cost_micros=found.exploration_cost_micros,
        free_only_micros=_free_only(found, rules),
        suppressed=found.suppressed,
        steps=_with_worth(steps, sends, found.planned, found.cascades),
        cascade_end=end,
        policy=found.policy,
        bundle_version=found.bundle_version,
        rules_name=rules.name,
        degraded=found.degraded,
        trainable=context.mode is Mode.LIVE,
    )
    kept = replace(table, curves=None)  # hundreds of kilobytes that nobody asks a decision for
    return Decision(context=context, choice=choice, distribution=Distribution(table=kept, probabilities=probabilities))


def _forecast(table: ActionTable, index: int) -> Forecast | None:
    curves, action = table.curves, table.actions[index]
    if curves is None or curves.forecasts is None or curves.row is None or action.send_time is None:
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
    curves = _curves(context, rules, table, among)
    is_send = table.listed.is_send
    is_asked = is_send if among is None else is_send & among
    least = rules.cascade.least_wait_minutes / 60
    prices = Prices(
        micros=(table.price_micros * (1 + table.shadow_price))[is_asked],
        is_paid=table.is_paid[is_asked],
        ready=curves.ready(max(1, math.ceil(least))),
    )
    left = max_steps(context, rules) - context.step + 1
    return value_cascades(curves, prices, left, is_strict=free_first(context, rules) == "strict")


def _curves(context: Context, rules: Rules, table: ActionTable, among: NDArray[np.bool_] | None = None) -> Curves:
    """Return the curves of the sends of a table, or of those `among` it: the model's, or where it draws none, plain ones."""
    if among is None:
        return _plain_curves(context, rules, table) if table.curves is None else table.curves
    is_send = table.listed.is_send
    is_asked = is_send & among
    asked = table.listed.part(is_asked)
    if table.curves is None or (table.curves.forecasts is None and _span(asked) != _span(table.listed.sends)):
        return _plain_curves(context, rules, table, is_asked)
    return table.curves.keep(among[is_send])


def _span(sends: Actions) -> tuple[float, float] | None:
    """Return when the first and the last of these sends are made, on which cells of plain curves hang."""
    hours = [hour for _, hour in sends.timed]
    return sends.once("span", lambda: (min(hours), max(hours))) if hours else None


def _plain_curves(
    context: Context, rules: Rules, table: ActionTable, is_asked: NDArray[np.bool_] | None = None
) -> Curves:
    """Return curves of the sends of a table, or of those asked for, where the model draws none: the channel's wait says how long a response takes."""
    if is_asked is None:
        is_asked, actions = table.listed.is_send, table.listed.sends
    else:
        actions = table.listed.part(is_asked)
    margin = context.message.order_margin_micros
    waits = np.array([rules.channels[name].wait / timedelta(hours=1) for name in actions.names])
    expire, now = context.message.expire_time, context.decide_time
    wait_hours = waits[actions.channel]
    lags = actions.once((now, expire, *waits.tolist()), lambda: plain_lags(context, actions.timed, wait_hours))
    return plain_curves(
        context,
        actions.timed,
        table.incremental_micros[is_asked] / max(margin, 1),
        table.p_unsubscribe[is_asked],
        wait_hours,
        margin,
        rules.harm.unsubscribe,
        lags,
    )


def _plan_micros(table: ActionTable, cascades: CascadeValues) -> FloatArray:
    found = table.net_micros.copy()
    found[table.listed.is_send] = cascades.value
    return found


def _following(table: ActionTable, first: Action, cascades: CascadeValues) -> tuple[Action, ...]:
    if first.send_time is None:
        return ()
    sends = table.listed.sends
    return tuple(sends[place] for place in cascades.following(sends.place[id(first)]))


def _with_worth(
    steps: tuple[Step, ...], sends: Sequence[Action], table: ActionTable, cascades: CascadeValues | None
) -> tuple[Step, ...]:
    """Return steps with what the cascade up to each is worth; from where a cap has left a send out, none."""
    if cascades is None or not steps:
        return steps
    values = cascades.growing(table.listed.sends.place[id(sends[0])])
    worth = dict(zip((s.channel for s in sends), values, strict=True))
    kept = sum(1 for _ in takewhile(lambda pair: pair[0].channel == pair[1].channel, zip(steps, sends, strict=False)))
    return (*(replace(step, plan_micros=worth[step.channel]) for step in steps[:kept]), *steps[kept:])


def _free_only(found: Evaluation, rules: Rules) -> float:
    """Return what the best cascade of free channels alone is expected to earn, 0 where no model says."""
    if found.degraded:
        return 0.0
    planned, table = found.planned, found.distribution.table
    is_free = ~planned.is_paid & (planned.price_micros == 0)
    if found.cascades is not None:
        best = table.actions[int(table.plan_micros.argmax())]
        used = (best, *_following(planned, best, found.cascades))
        free = {action.channel for action in planned.listed.part(is_free)}
        if all(action.channel in free for action in used):
            return max(0.0, float(table.plan_micros.max()))
    return max(0.0, float(best_cascades(found.context, rules, planned, is_free).value.max(initial=0.0)))


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


def _estimate(
    context: Context, rules: Rules, bundle: Bundle | None, actions: Actions
) -> tuple[Estimate, tuple[Degraded, ...]]:
    """Return the model's estimate; where there is none, zeros, and why."""
    rates = {key: channel.unsubscribe_rate for key, channel in rules.channels.items()}
    if bundle is not None:
        try:
            return bundle.estimate(context, actions, rates, rules.harm.unsubscribe), ()
        except BoosterError as error:
            degraded = Degraded(cause=DegradedCause.SCORING_FAILED, detail=f"the rule cascade decided: {error}")
    else:
        degraded = Degraded(cause=DegradedCause.NO_BUNDLE, detail="no bundle is loaded; the rule cascade decided")
    unsubscribe = np.array([rates.get(action.channel, 0.0) for action in actions])
    return Estimate(p_response=np.zeros(len(actions)), p_unsubscribe=unsubscribe), (degraded,)


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
