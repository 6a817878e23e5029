"""Why this decision: sentences for people, with the money in them."""

from collections.abc import Iterable

import numpy as np

from models.context import CascadeEnd, Verdict
from models.decide import Decision, best_cascades
from models.rules import Rules

_ENDS = {
    CascadeEnd.ORDERED: "the customer has ordered",
    CascadeEnd.CLICKED: "the customer has clicked",
    CascadeEnd.UNSUBSCRIBED: "the customer has unsubscribed or complained",
    CascadeEnd.EXPIRED: "the message has expired",
    CascadeEnd.NO_STEP_LEFT: "no channel is left that may be used or is worth its price",
    CascadeEnd.MAX_STEPS: "the cascade has made all its steps",
}


def explain(decision: Decision, currency: str) -> tuple[str, ...]:
    """Return sentences: the served action, each channel with its money, best first, what exploring costs, and what was suppressed."""
    return (
        *_verdict(decision),
        *_alternatives(decision, currency),
        *_exploration(decision, currency),
        *_suppressions(decision),
    )


def free_only_micros(decision: Decision, rules: Rules) -> float:
    """Return what the best plan of free channels alone is expected to earn, no send being worth 0."""
    if decision.distribution is None:
        return 0.0
    table = decision.distribution.table
    free = table.keep(~table.is_paid & (table.price_micros == 0))
    if not len(free):
        return 0.0
    return max(0.0, float(best_cascades(decision.context, rules, free).value.max(initial=0.0)))


def _verdict(decision: Decision) -> Iterable[str]:
    choice = decision.choice
    if choice.verdict is Verdict.HOLDOUT:
        yield "Not sent: the customer is in the holdout, which gets no marketing."
    elif choice.verdict is Verdict.DEFER:
        yield f"Deferred: nothing may be sent before {choice.retry_time:%Y-%m-%d %H:%M} UTC."
    elif choice.cascade_end is not None:
        yield f"Not sent: {_ENDS[choice.cascade_end]}."
    elif choice.verdict is Verdict.DO_NOT_SEND and decision.distribution is None:
        yield "Not sent: no channel is eligible before the message expires."
    elif choice.action is not None:
        what = (
            "No send"
            if choice.action.send_time is None
            else f"{choice.action.channel} at {choice.action.send_time:%Y-%m-%d %H:%M} UTC"
        )
        yield f"{what} was drawn with probability {choice.propensity:.4g} by {choice.policy}."
    for missing in choice.degraded:
        yield f"Degraded: {missing.detail}."


def _alternatives(decision: Decision, currency: str) -> Iterable[str]:
    found = decision.distribution
    if found is None or decision.choice.degraded:
        return
    table = found.table
    best: dict[str, int] = {}
    for index, action in enumerate(table.actions):
        if action.send_time is not None:
            known = best.get(action.channel)
            if known is None or table.plan_micros[index] > table.plan_micros[known]:
                best[action.channel] = index
    for channel, index in sorted(best.items(), key=lambda item: -table.plan_micros[item[1]]):
        cost = f"costs {table.price_micros[index] / 1e6:.2f}"
        if table.shadow_price[index]:
            cost += f" x {1 + table.shadow_price[index]:.2f}"
        share = float(np.sum(found.probabilities[[a.channel == channel for a in table.actions]]))
        yield (
            f"{channel}: adds {table.incremental_micros[index] / 1e6:.2f} {currency} of expected margin, {cost}, harm "
            f"{table.harm_micros[index] / 1e6:.2f}, net {table.net_micros[index] / 1e6:.2f}, "
            f"with what may follow {table.plan_micros[index] / 1e6:.2f}; probability {share:.4g} over its slots."
        )


def _exploration(decision: Decision, currency: str) -> Iterable[str]:
    cost = decision.choice.exploration_cost_micros
    if cost > 0:
        yield f"Exploring is expected to cost {cost / 1e6:.4f} {currency} here, against the action that is valued most."


def _suppressions(decision: Decision) -> Iterable[str]:
    for suppressed in decision.choice.suppressed:
        until = f", until {suppressed.retry_time:%Y-%m-%d %H:%M} UTC" if suppressed.retry_time else ""
        yield f"{suppressed.channel} not used: {suppressed.detail}{until}."
