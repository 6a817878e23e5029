"""`python -m training evaluate`: what policies would earn, cost and lose in unsubscribes, judged by the log of another.

The figure is the increment over no send (`training.increment`). Beside it are the usual estimates of the total, which holds what customers order anyway, and how far
log and policy overlap. Where they do not overlap enough, there is no figure.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import numpy as np
from numpy.typing import NDArray

from models.features import NO_SEND
from models.record import from_micros
from models.rules import Rules
from training.increment import Increment, Judged, estimate_increment, events_of, weights_before
from training.judged import FOLDS, fit_models, judge, make_folds, read_log
from training.off_policy import (
    THIN,
    Estimate,
    Overlap,
    bootstrap,
    direct_method,
    doubly_robust,
    find_overlap,
    ips,
    snips,
)
from training.targets import Target

FloatArray = NDArray[np.float64]
NOT_ENOUGH = "not enough overlap"
_PER = 1000
"""Messages that figures of tables are for."""
_MUCH_DISAGREEMENT = 3.0


@dataclass(frozen=True, slots=True, kw_only=True)
class OfStep:
    """A policy's decisions of one step of cascades; money in units for each message of the log."""

    step: int
    decisions: int
    overlap: Overlap
    margin: float
    cost: float
    is_told: bool
    """Whether it is in the figure: this step and those before it overlap enough."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """One policy, judged."""

    policy: str
    decisions: int
    overlap: Overlap
    """Of channels, by which the increment is weighted."""
    slot_overlap: Overlap
    """Of actions, by which the total is weighted."""
    sent_share: float
    increment: Increment | None
    """None where the overlap is not enough."""
    totals: Mapping[str, Estimate]
    """IPS, SNIPS, DM and DR of everything that customers order, less price and harm; empty where the overlap of actions is not enough."""
    snips_bootstrap: tuple[float, float] | None
    """Interval of SNIPS by drawing customers anew."""
    steps: tuple[OfStep, ...]
    propensities: tuple[str, ...]
    """What is odd about the logged propensities."""

    @property
    def problems(self) -> tuple[str, ...]:
        return self.overlap.problems


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """Policies judged by one log."""

    verdicts: tuple[Verdict, ...]
    digest: str
    window_hours: float
    first: datetime
    last: datetime
    currency: str
    notes: tuple[str, ...]


def evaluate_policies(
    url: str,
    targets: Sequence[Target],
    rules: Rules,
    window: timedelta,
    *,
    since: datetime | None = None,
    until: datetime | None = None,
    as_of: datetime | None = None,
    folds: int = FOLDS,
    seed: int = 0,
    most: int | None = None,
    say: Callable[[str], None] = lambda _: None,
    progress: Callable[[int], object] = lambda _: None,
) -> Evaluation:
    """Judge policies by the log at a URL; models are fitted on all of it, or on those of some customers where it holds more than `most` decisions, figures are of the
    decisions from `since` on.

    Raises
    ------
    LogUnusable: the log cannot judge anything; it says what is missing.
    """
    say("reading the log")
    log = read_log(url, window, until, as_of, most)
    fold = make_folds(log.data, folds, seed)
    notes: list[str] = [] if log.data.sample is None else [log.data.sample.text]
    notes += _unknown_channels(log.data.channel, rules)
    models = fit_models(log, fold, seed, lambda text: notes.append(text) if text not in notes else None, say)
    say(f"judging {len(log)} decisions")
    found = judge(log, targets, models, fold, rules, since, progress)
    verdicts = tuple(
        verdict_of(name, judged, rules.harm.unsubscribe / 1e6, np.random.default_rng(seed))
        for name, judged in found.items()
    )
    times = log.data.decide_time
    return Evaluation(
        verdicts=verdicts,
        digest=log.data.digest,
        window_hours=window / timedelta(hours=1),
        first=_moment(times[0]) if since is None else max(since, _moment(times[0])),
        last=_moment(times[-1]),
        currency=rules.currency,
        notes=tuple(dict.fromkeys(notes)),
    )


def _unknown_channels(channel: NDArray[np.str_], rules: Rules) -> list[str]:
    """Say which channels of a log the rules do not have."""
    names, counts = np.unique(channel, return_counts=True)
    return [
        f"{name} was logged {count} times, but the rules {rules.name} have no such channel, so that no policy judged by them sends through it; "
        "name the rules of the log with --rules"
        for name, count in zip(names.tolist(), counts.tolist(), strict=True)
        if name != NO_SEND and name not in rules.channels
    ]


def _moment(micros: int) -> datetime:
    return from_micros(int(micros))


def verdict_of(policy: str, judged: Judged, harm: float, rng: np.random.Generator) -> Verdict:
    """Judge one policy; `harm` is what an unsubscribe costs."""
    before = weights_before(judged)
    weight = before * judged.target / judged.channel_propensity
    firsts = judged.step == 1
    first = judged.take(firsts)
    overlap = find_overlap(weight[firsts], first.thin, events_of(first))
    slots = find_overlap(first.target_action / first.propensity, first.thin, first.value > 0)
    totals, interval = _totals(first, harm, rng) if not slots.problems else ({}, None)
    told = judged.take(judged.step <= _last_told(judged, weight))
    increment = None if overlap.problems else estimate_increment(told, harm)
    return Verdict(
        policy=policy,
        decisions=len(judged),
        overlap=overlap,
        slot_overlap=slots,
        sent_share=float(judged.sent[firsts].mean()),
        increment=increment,
        totals=totals,
        snips_bootstrap=interval,
        steps=() if increment is None or firsts.all() else _steps(judged, increment, told, weight),
        propensities=check_propensities(judged),
    )


def _totals(judged: Judged, harm: float, rng: np.random.Generator) -> tuple[dict[str, Estimate], tuple[float, float]]:
    net = judged.value - judged.paid - harm * judged.unsubscribed
    modelled = judged.organic + judged.margin * judged.orders - judged.price - harm * judged.unsubscribe
    value = judged.organic + judged.margin * judged.modelled_orders - judged.cost - harm * judged.modelled_unsubscribes
    p, q = judged.propensity, judged.target_action
    weights = q / p
    return {
        "IPS": ips(net, p, q),
        "SNIPS": snips(net, p, q),
        "DM": direct_method(value),
        "DR": doubly_robust(net, p, q, modelled, value),
    }, bootstrap(weights * net, weights, judged.customer, rng)


def _overlap_of_step(judged: Judged, weight: FloatArray, step: int) -> Overlap:
    """Return the overlap of one step's decisions; their weights are taken for as many as they stand for."""
    mine = judged.step == step
    mean = float(weight[mine].mean())
    return find_overlap(weight[mine] / mean if mean > 0 else weight[mine], judged.thin[mine], events_of(judged)[mine])


def _last_told(judged: Judged, weight: FloatArray) -> int:
    """Return the last step up to which log and policy overlap enough."""
    last = 1
    for step in range(2, int(judged.step.max()) + 1):
        if not (judged.step == step).any() or _overlap_of_step(judged, weight, step).problems:
            break
        last = step
    return last


def _steps(judged: Judged, increment: Increment, told: Judged, weight: FloatArray) -> tuple[OfStep, ...]:
    """Return what each step adds; a step without enough overlap adds nothing to the figure."""
    found = []
    for step in np.unique(judged.step):
        mine, share = told.step == step, float((told.step == step).mean())
        parts = [
            float(estimate.influence[mine].sum() / len(told)) + estimate.value * share
            for estimate in (increment.margin, increment.cost)
        ]
        found.append(
            OfStep(
                step=int(step),
                decisions=int((judged.step == step).sum()),
                overlap=_overlap_of_step(judged, weight, int(step)),
                margin=parts[0],
                cost=parts[1],
                is_told=bool(mine.any()),
            )
        )
    return tuple(found)


def check_propensities(judged: Judged, level: float = 4.0) -> tuple[str, ...]:
    """Say where logged propensities do not fit what was logged: of each channel, the mean of 1 / P(channel) over its decisions is the share of decisions that
    it could be logged in, which is at most 1.
    """
    found = []
    n = len(judged)
    for channel in np.unique(judged.channel):
        inverse = np.where(judged.channel == channel, 1 / judged.channel_propensity, 0.0)
        mean, error = float(inverse.mean()), float(inverse.std() / np.sqrt(n))
        if mean > 1 + level * error:
            found.append(
                f"{channel} was logged {mean:.2f} times as often as its propensities allow at most; they are wrong, or its slots were not drawn evenly"
            )
    return tuple(found)


def table(evaluation: Evaluation) -> str:
    """Return what was found as text: one line for each policy, then what it rests on."""
    unit = f"{evaluation.currency} per {_PER} messages"
    first = evaluation.verdicts[0]
    lines = [
        f"{first.decisions} decisions from {evaluation.first:%Y-%m-%d} to {evaluation.last:%Y-%m-%d}, outcomes within {evaluation.window_hours:g} h, "
        f"log {evaluation.digest[:12]}",
        f"increment over no send, {unit}, with 95 % intervals",
        "",
        "| policy | net value | margin caused | cost | unsubscribes | sent | effective sample |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    for v in evaluation.verdicts:
        ess = f"{v.overlap.effective_sample_size:,.0f}"
        if v.increment is None:
            lines.append(f"| {v.policy} | {NOT_ENOUGH} | | | | {v.sent_share:.0%} | {ess} |")
            continue
        i = v.increment
        lines.append(
            f"| {v.policy} | {_figure(i.net, ',.0f')} | {_figure(i.margin, ',.0f')} | {_PER * i.cost.value:,.0f} "
            f"| {_figure(i.unsubscribes, '.2f')} | {v.sent_share:.0%} | {ess} |"
        )
    for v in evaluation.verdicts:
        lines += ["", v.policy, *(f"  {line}" for line in _details(v))]
    lines += [f"note: {note}" for note in evaluation.notes]
    return "\n".join(lines)


def _figure(estimate: Estimate, form: str) -> str:
    low, high = estimate.interval()
    return f"{_PER * estimate.value:{form}} ({_PER * low:{form}} to {_PER * high:{form}})"


def _details(v: Verdict) -> list[str]:
    """Return what a verdict rests on."""
    o = v.overlap
    lines = [
        f"overlap     effective sample {o.effective_sample_size:,.0f} of {o.decisions:,}, largest weight {o.largest_share:.2%} of all, "
        f"mean weight {o.mean_weight:.3f}, {o.thin_share:.1%} hardly logged (below {THIN:g})"
    ]
    lines += [f"{NOT_ENOUGH}: {problem}" for problem in o.problems]
    lines += [f"propensity  {text}" for text in v.propensities]
    if v.increment is not None:
        for part in v.increment.parts:
            lines.append(
                f"{part.name:23} {_PER * part.value:>9,.0f} ± {_PER * 1.96 * part.standard_error:,.0f} by chance, ± {_PER * 1.96 * part.doubt:,.0f} by its assumptions, "
                f"{part.share:.0%} of the figure"
            )
        if v.increment.nearness != 1.0:
            lines.append(
                f"clickers    are taken to order anyway {v.increment.nearness:.2f} times as often as the models say"
            )
        if abs(v.increment.disagreement) > _MUCH_DISAGREEMENT:
            lines.append(
                f"caution: the estimate with the fewest assumptions is {v.increment.disagreement:+.1f} deviations away from that with the most"
            )
    for step in v.steps:
        of_step = step.overlap
        figures = (
            f"margin {_PER * step.margin:,.0f}, cost {_PER * step.cost:,.0f}"
            if step.is_told
            else f"not in the figure, {NOT_ENOUGH}: {'; '.join(of_step.problems) or 'of the step before'}"
        )
        lines.append(
            f"step {step.step}      {step.decisions:,} decisions, effective sample {of_step.effective_sample_size:,.0f}, {figures}"
        )
    for name, estimate in v.totals.items():
        lines.append(f"total {name:6}  {_figure(estimate, ',.0f')}, with what is ordered anyway")
    if v.snips_bootstrap is not None:
        low, high = v.snips_bootstrap
        lines.append(f"total SNIPS by bootstrap ({_PER * low:,.0f} to {_PER * high:,.0f})")
    if not v.totals:
        lines.append(f"total       {NOT_ENOUGH} of actions: {'; '.join(v.slot_overlap.problems)}")
    return lines


def metrics_of(evaluation: Evaluation) -> dict[str, float]:
    """Return every figure by a name that MLflow takes; a policy's number is its place."""
    found: dict[str, float] = {}
    for number, v in enumerate(evaluation.verdicts):
        prefix = f"policy{number}."
        found |= {
            f"{prefix}effective_sample_size": v.overlap.effective_sample_size,
            f"{prefix}largest_weight_share": v.overlap.largest_share,
            f"{prefix}thin_share": v.overlap.thin_share,
            f"{prefix}mean_weight": v.overlap.mean_weight,
            f"{prefix}sent_share": v.sent_share,
            f"{prefix}enough_overlap": float(not v.problems),
        }
        if v.increment is not None:
            for name in ("net", "margin", "cost", "unsubscribes"):
                found |= _interval_metrics(f"{prefix}{name}", getattr(v.increment, name))
            found[f"{prefix}nearness_of_clickers"] = v.increment.nearness
            for part in v.increment.parts:
                found[f"{prefix}part.{part.name.replace(', ', '_').replace(' ', '_')}"] = part.value
        for name, estimate in v.totals.items():
            found |= _interval_metrics(f"{prefix}total.{name.lower()}", estimate)
    return found


def _interval_metrics(name: str, estimate: Estimate) -> dict[str, float]:
    low, high = estimate.interval()
    return {name: estimate.value, f"{name}.low": low, f"{name}.high": high}
