"""Why this decision: sentences for people, with the money in them."""

from collections.abc import Iterable

import numpy as np

from models.context import CascadeEnd, Verdict
from models.decide import Decision

_ENDS = {
    CascadeEnd.ORDERED: "the customer has ordered",
    CascadeEnd.CLICKED: "the customer has clicked",
    CascadeEnd.UNSUBSCRIBED: "the customer has unsubscribed or complained",
    CascadeEnd.EXPIRED: "the message has expired",
    CascadeEnd.NO_STEP_LEFT: "no channel is left that may be used or is worth its price",
    CascadeEnd.MAX_STEPS: "the cascade has made all its steps",
}
_WORTH_SAYING = 0.2


def explain(decision: Decision, currency: str) -> tuple[str, ...]:
    """Return sentences: the served action, what waiting for it is worth, the steps planned after it, what free channels alone would earn,
    each channel with its money, best first, what exploring costs, and what was suppressed."""
    return (
        *_verdict(decision),
        *_waiting(decision, currency),
        *_steps(decision, currency),
        *_free_only(decision, currency),
        *_alternatives(decision, currency),
        *_corrections(decision),
        *_exploration(decision, currency),
        *_suppressions(decision),
    )


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


def _waiting(decision: Decision, currency: str) -> Iterable[str]:
    """Say what the served time is worth against the channel's first, or the first against its best later one."""
    found, action = decision.distribution, decision.choice.action
    if found is None or decision.choice.degraded or action is None or action.send_time is None:
        return
    listed = found.table.listed
    mine = listed.places_of(action.channel)
    plans = dict(zip([listed[n].send_time for n in mine.tolist()], found.table.plan_micros[mine].tolist(), strict=True))
    first = min(plans)
    later = [moment for moment in plans if moment > first]
    if action.send_time > first:
        gain = plans[action.send_time] - plans[first]
        yield (
            f"Waiting until then is worth {_more_or_less(gain, currency)} than {action.channel} at its first slot, "
            f"{first:%Y-%m-%d %H:%M} UTC."
        )
    elif later:
        best = max(later, key=lambda moment: plans[moment])
        gain = plans[best] - plans[first]
        yield (
            f"Waiting for its best later slot, {best:%Y-%m-%d %H:%M} UTC, would be worth {_more_or_less(gain, currency)}."
        )


def _steps(decision: Decision, currency: str) -> Iterable[str]:
    """Say of each planned step when it comes, what it costs, and what the plan is worth with it and without."""
    without: float | None = None
    for place, step in enumerate(decision.choice.steps):
        if place > 0:
            told = f"If ignored, {step.channel} from {step.not_before:%Y-%m-%d %H:%M} UTC for {step.price_micros / 1e6:.2f} {currency}"
            if step.plan_micros is None or without is None:
                yield f"{told}."
            else:
                yield (
                    f"{told}: the plan is expected to earn {_amount(step.plan_micros)} {currency} with this step, {_amount(without)} without."
                )
        without = step.plan_micros


def _free_only(decision: Decision, currency: str) -> Iterable[str]:
    """Say what free channels alone would earn, where the served action or a planned step has a price."""
    choice = decision.choice
    if not choice.degraded and (choice.price_micros > 0 or any(step.price_micros > 0 for step in choice.steps)):
        yield f"Free channels alone would earn {_amount(choice.free_only_micros)} {currency}."


def _amount(micros: float) -> str:
    """Return money in units of the currency; what rounds to nothing has no sign."""
    text = f"{micros / 1e6:.2f}"
    return "0.00" if text == "-0.00" else text


def _more_or_less(gain_micros: float, currency: str) -> str:
    return f"{_amount(abs(gain_micros))} {currency} {'less' if gain_micros < 0 else 'more'}"


def _alternatives(decision: Decision, currency: str) -> Iterable[str]:
    found = decision.distribution
    if found is None or decision.choice.degraded:
        return
    table = found.table
    plans = table.plan_micros
    places = {channel: table.listed.places_of(channel) for channel in table.listed.sends.names}
    best = {channel: int(mine[plans[mine].argmax()]) for channel, mine in places.items()}
    of_best = list(best.values())
    columns = (table.incremental_micros, table.price_micros, table.harm_micros, table.net_micros, plans)
    money = dict(zip(of_best, np.stack([column[of_best] / 1e6 for column in columns], axis=1).tolist(), strict=True))
    for channel, index in sorted(best.items(), key=lambda item: -plans[item[1]]):
        incremental, price, harm, net, planned = money[index]
        cost, shadow_price = f"costs {price:.2f}", table.shadow_price.item(index)
        if shadow_price:
            cost += f" x {1 + shadow_price:.2f}"
        share = float(np.sum(found.probabilities[places[channel]]))
        yield (
            f"{channel}: adds {incremental:.2f} {currency} of expected margin, {cost}, harm {harm:.2f}, net {net:.2f}, "
            f"with what may follow {planned:.2f}; probability {share:.4g} over its slots."
        )


def _corrections(decision: Decision) -> Iterable[str]:
    """Say which stages of which channels go by more than a fifth otherwise than the bundle says."""
    if decision.distribution is None or decision.choice.degraded:
        return
    moved = [
        f"{channel} {stage} x {factor.value:.2f}"
        for stage, by_channel in decision.context.factors.items()
        for channel, factor in by_channel.items()
        if abs(factor.value - 1) > _WORTH_SAYING
    ]
    if moved:
        yield f"Corrected since training: {', '.join(sorted(moved))}."


def _exploration(decision: Decision, currency: str) -> Iterable[str]:
    cost = decision.choice.exploration_cost_micros
    if cost > 0:
        yield f"Exploring is expected to cost {cost / 1e6:.4f} {currency} here, against the action that is valued most."


def _suppressions(decision: Decision) -> Iterable[str]:
    for suppressed in decision.choice.suppressed:
        until = f", until {suppressed.retry_time:%Y-%m-%d %H:%M} UTC" if suppressed.retry_time else ""
        yield f"{suppressed.channel} not used: {suppressed.detail}{until}."
