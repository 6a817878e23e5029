"""All figures of an experiment's report, worked out once: what is shown, logged and printed comes from here."""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from models.rules import Experiment
from service.store.store import ExperimentChangeRow
from training.experiments.credit import Role, channel_roles
from training.experiments.kpis import KPIS, Kpi
from training.experiments.people import FloatArray, Funnel, People
from training.experiments.statistics import (
    LEAST_CUSTOMERS,
    Comparison,
    Guardrail,
    RatioCheck,
    Ruling,
    Sample,
    Success,
    Verdict,
    adjust,
    check_ratio,
    compare,
    compare_daily,
    detectable_lift,
    measure_baseline,
    needed_customers,
    rule,
)
from training.experiments.statistics import Reason as Reason

MANY_MIXED = 0.01
"""A larger share of customers of two variants is said to be a trouble."""
MOST_SEGMENTS = 8
"""Of each kind; the largest."""
_LOOKS = 60
_DRIFT = 1e-9


class Trouble(StrEnum):
    """Something about the experiment that a reader must know before its figures."""

    NO_EXPOSURES = "no_exposures"
    """Refuses a verdict: a variant has no customer whose window is over."""
    ALLOCATION_CHANGED = "allocation_changed"
    """Refuses a verdict: customers were drawn with different weights at different times."""
    MIXED_CUSTOMERS = "mixed_customers"
    BUNDLE_CHANGED = "bundle_changed"
    WAS_PAUSED = "was_paused"
    EXPOSURE_CHANGED = "exposure_changed"
    STOPPED = "stopped"
    STILL_OPEN = "still_open"
    SMALL = "small"
    """Fewer customers than planned; the verdict holds all the same, a missing effect may yet be found."""


REFUSING = (Trouble.NO_EXPOSURES, Trouble.ALLOCATION_CHANGED)


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """A trouble, with what it is about and its figure."""

    trouble: Trouble
    about: str = ""
    figure: float = math.nan


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """One KPI in one variant; nan where there is nothing to divide."""

    mean: float
    count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SegmentRow:
    """The first success metric in one segment."""

    segment: str
    label: str
    control_count: int
    treated_count: int
    comparison: Comparison
    adjusted_p: float
    """After Benjamini-Hochberg over all segments; nan where it was refused."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Money:
    """What the treated variant's customers saved and earned against the same number of the control's, in units of the currency."""

    spend_saved: float
    spend_saved_low: float
    spend_saved_high: float
    net_earned: float
    net_earned_low: float
    net_earned_high: float


@dataclass(frozen=True, slots=True, kw_only=True)
class NoveltyDay:
    """The difference of net value per customer on one day after the exposure, with its 95 % interval; not cumulative."""

    day: int
    difference: float
    low: float
    high: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Treatment:
    """One variant against the control."""

    name: str
    place: int
    ruling: Ruling
    comparisons: dict[str, Comparison]
    """Of each KPI, at the experiment's alpha."""
    adjusted_p: dict[str, float]
    """Of the KPIs that nothing is decided by, at one look, after Benjamini-Hochberg."""
    daily: list[tuple[float, Comparison]]
    """The first success metric by day, cumulative."""
    segments: list[SegmentRow]
    money: Money
    novelty: list[NoveltyDay]


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How many customers the experiment needs, worked out from the control's first success metric; nan where it cannot be."""

    needed: float
    counted: int
    detectable: float
    """The lift that the customers counted so far would show with the planned power."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Analysis:
    """Everything that a report shows."""

    people: People
    ratio: RatioCheck
    counted: dict[str, int]
    """Customers whose window is over, by variant."""
    figures: dict[str, dict[str, Figure]]
    """By variant, by KPI."""
    treatments: list[Treatment]
    findings: list[Finding]
    plan: Plan
    roles: dict[str, list[Role]]
    funnels: dict[str, Funnel]
    changes: Sequence[ExperimentChangeRow]
    alpha: float
    """Of each treatment: the experiment's, divided by how many there are (Bonferroni)."""

    @property
    def experiment(self) -> Experiment:
        return self.people.experiment

    @property
    def refused(self) -> list[Finding]:
        """Return why no verdict may be given at all."""
        return [finding for finding in self.findings if finding.trouble in REFUSING]

    def verdict(self, treatment: Treatment) -> Verdict:
        """Return what is decided about a treatment."""
        return Verdict.UNDECIDED if self.refused else treatment.ruling.verdict


def analyse(people: People, changes: Sequence[ExperimentChangeRow] = ()) -> Analysis:
    """Work out a report's figures.

    Parameters
    ----------
    changes : what operators changed while the experiment ran, in order.
    """
    experiment = people.experiment
    alpha = experiment.alpha / (len(experiment.variants) - 1)
    counted = {variant.name: int(people.mask(place).sum()) for place, variant in enumerate(experiment.variants)}
    findings = _findings(people, counted, changes)
    plan = _plan(people, alpha)
    if not math.isnan(plan.needed) and plan.counted < plan.needed:
        findings.append(Finding(trouble=Trouble.SMALL, figure=plan.needed))
    ratio = _ratio(people)
    figures = {
        variant.name: {name: _figure(kpi.sample(people, place, with_before=False)) for name, kpi in KPIS.items()}
        for place, variant in enumerate(experiment.variants)
    }
    return Analysis(
        people=people,
        ratio=ratio,
        counted=counted,
        figures=figures,
        treatments=[_treatment(people, place, ratio, alpha) for place in range(1, len(experiment.variants))],
        findings=findings,
        plan=plan,
        roles={
            variant.name: channel_roles(path for path in people.paths if path.variant == place)
            for place, variant in enumerate(experiment.variants)
        },
        funnels={variant.name: people.funnels[place] for place, variant in enumerate(experiment.variants)},
        changes=changes,
        alpha=alpha,
    )


def _findings(people: People, counted: dict[str, int], changes: Sequence[ExperimentChangeRow]) -> list[Finding]:
    found = [Finding(trouble=Trouble.NO_EXPOSURES, about=name) for name, count in counted.items() if count == 0]
    first = people.allocations[0].probabilities if people.allocations else {}
    for allocation in people.allocations[1:]:
        drawn = allocation.probabilities
        if any(abs(drawn[name] - first.get(name, drawn[name])) > _DRIFT for name in drawn):
            found.append(Finding(trouble=Trouble.ALLOCATION_CHANGED, about=f"{allocation.begin:%Y-%m-%d %H:%M} UTC"))
    total = sum(people.exposed.values()) + people.mixed
    if total and people.mixed / total > MANY_MIXED:
        found.append(Finding(trouble=Trouble.MIXED_CUSTOMERS, figure=people.mixed / total))
    for name, versions in people.bundles.items():
        if len([version for version in versions if version]) > 1:
            found.append(Finding(trouble=Trouble.BUNDLE_CHANGED, about=name, figure=len(versions)))
    states = [change.state for change in changes]
    if "paused" in states:
        found.append(Finding(trouble=Trouble.WAS_PAUSED, figure=states.count("paused")))
    if "stopped" in states:
        stop = next(change for change in changes if change.state == "stopped")
        found.append(Finding(trouble=Trouble.STOPPED, about=stop.reason))
    exposures = [change.exposure for change in changes if change.exposure is not None]
    if len(set(exposures)) > 1 or (exposures and exposures[0] != people.experiment.exposure):
        found.append(Finding(trouble=Trouble.EXPOSURE_CHANGED, figure=exposures[-1]))
    if people.open_windows:
        found.append(Finding(trouble=Trouble.STILL_OPEN, figure=people.open_windows))
    return found


def _ratio(people: People) -> RatioCheck:
    """Check the shares of variants among all who were exposed; what was drawn with other weights is expected with those."""
    names = [variant.name for variant in people.experiment.variants]
    expected: Counter[str] = Counter()
    for allocation in people.allocations:
        size = sum(allocation.counts.values())
        for variant in people.experiment.variants:
            expected[variant.name] += size * allocation.probabilities.get(variant.name, variant.weight)  # type: ignore[assignment]  # floats
    if not sum(expected.values()):
        return check_ratio(dict.fromkeys(names, 0), {v.name: v.weight for v in people.experiment.variants})
    return check_ratio(
        {name: people.exposed.get(name, 0) for name in names}, {name: float(expected[name]) for name in names}
    )


def _plan(people: People, alpha: float) -> Plan:
    """Plan by the control's first success metric; nan where it has none that can be planned by."""
    experiment = people.experiment
    kpi = KPIS[experiment.success[0]]
    weights = [variant.weight for variant in experiment.variants]
    shares = (weights[0], weights[1])
    total = shares[0] + shares[1]
    counted = int(people.mask(0).sum() + people.mask(1).sum())
    baseline = measure_baseline(kpi.sample(people, 0))
    if not (baseline.mean > 0 and baseline.deviation > 0) or people.mask(0).sum() < LEAST_CUSTOMERS:
        return Plan(needed=math.nan, counted=counted, detectable=math.nan)
    shares = (shares[0] / total, shares[1] / total)
    shared_alpha = alpha / len(experiment.success)
    needed = needed_customers(
        baseline.mean,
        baseline.deviation,
        experiment.minimum_detectable_effect,
        alpha=shared_alpha,
        power=experiment.power,
        shares=shares,
        is_daily=True,
    )
    lift = math.nan
    if counted >= LEAST_CUSTOMERS:
        lift = detectable_lift(
            baseline.mean,
            baseline.deviation,
            counted,
            alpha=shared_alpha,
            power=experiment.power,
            shares=shares,
            is_daily=True,
        )
    return Plan(needed=needed, counted=counted, detectable=lift)


def _figure(sample: Sample) -> Figure:
    if sample.weights is None:
        return Figure(mean=float(sample.values.mean()) if len(sample.values) else math.nan, count=len(sample.values))
    bottom = float(sample.weights.sum())
    return Figure(mean=float(sample.values.sum()) / bottom if bottom else math.nan, count=len(sample.values))


def _compare(kpi: Kpi, people: People, place: int, alpha: float) -> Comparison:
    control, treated = _pair(kpi.sample(people, 0), kpi.sample(people, place))
    return compare(control, treated, alpha=alpha)


def _pair(control: Sample, treated: Sample) -> tuple[Sample, Sample]:
    """Return two samples with covariates in both or in none."""
    if (control.covariate is None) == (treated.covariate is None):
        return control, treated
    return _without(control), _without(treated)


def _without(sample: Sample) -> Sample:
    return Sample(values=sample.values, weights=sample.weights, times=sample.times)


def _treatment(people: People, place: int, ratio: RatioCheck, alpha: float) -> Treatment:
    experiment = people.experiment
    comparisons = {name: _compare(kpi, people, place, alpha) for name, kpi in KPIS.items()}
    success = [
        Success(metric=name, comparison=comparisons[name], is_lower_better=KPIS[name].is_lower_better)
        for name in experiment.success
    ]
    guardrails = [
        Guardrail(
            metric=guardrail.metric,
            comparison=comparisons[guardrail.metric],
            margin=guardrail.margin,
            is_lower_better=KPIS[guardrail.metric].is_lower_better,
        )
        for guardrail in experiment.guardrails
    ]
    decisive = {*experiment.success, *(guardrail.metric for guardrail in experiment.guardrails)}
    others = {name: comparison.p_value for name, comparison in comparisons.items() if name not in decisive}
    return Treatment(
        name=experiment.variants[place].name,
        place=place,
        ruling=rule(success, guardrails, ratio, alpha=alpha),
        comparisons=comparisons,
        adjusted_p=adjust(others, "benjamini_hochberg"),
        daily=_daily(people, place, alpha),
        segments=_segments(people, place, alpha),
        money=_money(people, place, comparisons),
        novelty=_novelty(people, place),
    )


def _daily(people: People, place: int, alpha: float) -> list[tuple[float, Comparison]]:
    ends = people.window_end[(people.variant == 0) | (people.variant == place)]
    if not len(ends):
        return []
    days = np.unique(np.linspace(math.ceil(ends.min()), math.ceil(ends.max()), _LOOKS).round())
    kpi = KPIS[people.experiment.success[0]]
    control, treated = _pair(kpi.sample(people, 0), kpi.sample(people, place))
    found = compare_daily(control, treated, alpha=alpha, days=[float(day) for day in days])
    return [(float(day), comparison) for day, comparison in zip(days, found, strict=True)]


def _segments(people: People, place: int, alpha: float) -> list[SegmentRow]:
    kpi = KPIS[people.experiment.success[0]]
    control, treated = _pair(kpi.sample(people, 0), kpi.sample(people, place))
    rows: list[SegmentRow] = []
    for segment, labels in people.segments.items():
        of_label = np.array(labels)
        largest = [label for label, _ in Counter(labels).most_common(MOST_SEGMENTS)]
        if len(largest) < 2:
            continue
        for label in sorted(largest):
            parts = (
                _part(control, of_label[people.mask(0)] == label),
                _part(treated, of_label[people.mask(place)] == label),
            )
            if min(len(part.values) for part in parts) < LEAST_CUSTOMERS:
                continue
            of_control, of_treated = _pair(*parts)
            rows.append(
                SegmentRow(
                    segment=segment,
                    label=label,
                    control_count=len(of_control.values),
                    treated_count=len(of_treated.values),
                    comparison=compare(of_control, of_treated, alpha=alpha),
                    adjusted_p=math.nan,
                )
            )
    adjusted = adjust({f"{r.segment}\x1f{r.label}": r.comparison.p_value for r in rows}, "benjamini_hochberg")
    return [
        SegmentRow(
            segment=r.segment,
            label=r.label,
            control_count=r.control_count,
            treated_count=r.treated_count,
            comparison=r.comparison,
            adjusted_p=adjusted[f"{r.segment}\x1f{r.label}"],
        )
        for r in rows
    ]


def _part(sample: Sample, mask: "np.ndarray[tuple[int], np.dtype[np.bool_]]") -> Sample:
    arrays = (sample.values, sample.weights, sample.covariate, sample.times)
    values, weights, covariate, times = (None if array is None else array[mask] for array in arrays)
    assert values is not None
    if covariate is not None and not covariate.any():
        covariate = None
    return Sample(values=values, weights=weights, covariate=covariate, times=times)


def _money(people: People, place: int, comparisons: dict[str, Comparison]) -> Money:
    count = people.exposed.get(people.experiment.variants[place].name, 0)
    spend, net = comparisons["spend"], comparisons["net_value"]
    return Money(
        spend_saved=-spend.difference * count,
        spend_saved_low=-spend.always_high * count,
        spend_saved_high=-spend.always_low * count,
        net_earned=net.difference * count,
        net_earned_low=net.always_low * count,
        net_earned_high=net.always_high * count,
    )


def _novelty(people: People, place: int) -> list[NoveltyDay]:
    """Return the difference of each day after the exposure, by the normal interval of two means."""
    counts = (int(people.mask(0).sum()), int(people.mask(place).sum()))
    if min(counts) < LEAST_CUSTOMERS:
        return []
    means: list[FloatArray] = []
    variances: list[FloatArray] = []
    for which, count in zip((0, place), counts, strict=True):
        sums, squares = people.by_day[which]
        means.append(sums / count)
        variances.append((squares - sums * sums / count) / (count - 1) / count)
    difference, error = means[1] - means[0], np.sqrt(variances[0] + variances[1])
    return [
        NoveltyDay(day=day, difference=float(d), low=float(d - 1.96 * e), high=float(d + 1.96 * e))
        for day, (d, e) in enumerate(zip(difference, error, strict=True))
    ]
