"""What an experiment decides: ship the treated variant if at least one success metric improves and every guardrail is non-inferior.

Decided by always-valid figures alone, so it may be asked at every look, and the first answer may be acted on. With alpha given:

- success: always-valid p-values, by Holm over the success metrics; the chance that any of them is called better or worse while none differs is at most alpha, over all looks.
- guardrails: each by itself, without correction, since every one must pass. Held where the whole always-valid interval of the lift is on the good side of the margin, broken where
  it is wholly beyond. A guardrail that is as bad as the margin or worse is called held with a chance of at most alpha (about half of it, since only one end decides).
- customers that did not come in the shares set refuse any verdict.

Source: Schultzberg, Ankargren & Frånberg (2024), "Risk-aware product decisions in A/B tests with multiple metrics", arXiv:2402.11609: alpha is divided among success metrics only, and
guardrails cost power, not alpha.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Literal

import tea_tasting as tt
from tea_tasting.experiment import ExperimentResult

from models.errors import InvalidInput, Violation
from training.experiments.comparison import Comparison
from training.experiments.ratio_check import RatioCheck


@dataclass(frozen=True, slots=True, kw_only=True)
class Success:
    """A metric that the treated variant is to improve."""

    metric: str
    comparison: Comparison
    is_lower_better: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Guardrail:
    """A metric that the treated variant must not spoil."""

    metric: str
    comparison: Comparison
    margin: float
    """How much worse is tolerated, relative to control, positive; 0.02 is two per cent."""
    is_lower_better: bool = False


class Verdict(StrEnum):
    """What to do."""

    SHIP = "ship"
    NO_EFFECT_SHOWN = "no_effect_shown"
    HARMFUL = "harmful"
    UNDECIDED = "undecided"
    """Nothing may be said, or a success metric improves and a guardrail is not yet shown to hold."""


class ReasonCode(StrEnum):
    """Why, with the figure that comes with it."""

    SAMPLE_RATIO_MISMATCH = "sample_ratio_mismatch"
    """p-value."""
    SAMPLE_RATIO_WARNING = "sample_ratio_warning"
    """p-value; no reason against a verdict, but look at it."""
    SUCCESS_IMPROVED = "success_improved"
    """Difference, as all of success: it is there where a lift is not."""
    SUCCESS_WORSE = "success_worse"
    SUCCESS_NOT_SHOWN = "success_not_shown"
    SUCCESS_REFUSED = "success_refused"
    """Customers in the smaller variant; `comparison.problem` says what is missing."""
    GUARDRAIL_HELD = "guardrail_held"
    """The most that it may have become worse, relative to control; negative where it became better."""
    GUARDRAIL_BROKEN = "guardrail_broken"
    """The least that it has become worse."""
    GUARDRAIL_NOT_SHOWN = "guardrail_not_shown"
    """The most that it may have become worse; nan where control is not positive enough to divide by."""
    GUARDRAIL_REFUSED = "guardrail_refused"
    """Customers in the smaller variant."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reason:
    """One ground of a ruling; `metric` is empty for the sample ratio."""

    code: ReasonCode
    metric: str
    figure: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Ruling:
    """A verdict with all its grounds: the sample ratio first, then success metrics, then guardrails."""

    verdict: Verdict
    reasons: tuple[Reason, ...]


def adjust(p_values: Mapping[str, float], method: Literal["holm", "benjamini_hochberg"]) -> dict[str, float]:
    """Adjust p-values for their number (tea-tasting): Holm for the chance of any false find, Benjamini-Hochberg for the share of false finds.

    A nan, of a metric that was refused, counts as 1 and stays nan.

    Raises
    ------
    InvalidInput: a p-value is not in [0, 1].
    """
    violations = [
        Violation(field=name, description=f"is {p}; a p-value is between 0 and 1, or nan")
        for name, p in p_values.items()
        if not (math.isnan(p) or 0 <= p <= 1)
    ]
    if violations:
        raise InvalidInput(violations, "p-values")
    if not p_values:
        return {}
    metrics = ExperimentResult({name: {"pvalue": 1.0 if math.isnan(p) else p} for name, p in p_values.items()})
    if method == "holm":
        adjusted = tt.adjust_fwer(metrics, arbitrary_dependence=True, method="bonferroni")
    else:
        adjusted = tt.adjust_fdr(metrics)
    found = adjusted["-"]
    return {name: math.nan if math.isnan(p) else float(found[name]["pvalue_adj"]) for name, p in p_values.items()}


def rule(
    success: Sequence[Success], guardrails: Sequence[Guardrail], ratio: RatioCheck, *, alpha: float = 0.05
) -> Ruling:
    """Rule on an experiment.

    Raises
    ------
    InvalidInput: there is no success metric, a metric comes twice, a margin is not positive, or a comparison was made at another alpha.
    """
    _check(success, guardrails, alpha)
    if ratio.is_mismatch:
        mismatch = Reason(code=ReasonCode.SAMPLE_RATIO_MISMATCH, metric="", figure=ratio.p_value)
        return Ruling(verdict=Verdict.UNDECIDED, reasons=(mismatch,))
    warnings = (
        [Reason(code=ReasonCode.SAMPLE_RATIO_WARNING, metric="", figure=ratio.p_value)] if ratio.is_warning else []
    )
    adjusted = adjust({one.metric: one.comparison.always_p_value for one in success}, "holm")
    grounds = [_judge_success(one, adjusted[one.metric] <= alpha) for one in success]
    bounds = [_judge_guardrail(one) for one in guardrails]
    return Ruling(verdict=_decide(grounds, bounds), reasons=(*warnings, *grounds, *bounds))


def _judge_success(success: Success, is_shown: bool) -> Reason:
    comparison = success.comparison
    if comparison.problem:
        return _refused(ReasonCode.SUCCESS_REFUSED, success.metric, comparison)
    code = ReasonCode.SUCCESS_NOT_SHOWN
    if is_shown:
        is_better = (comparison.difference < 0) == success.is_lower_better
        code = ReasonCode.SUCCESS_IMPROVED if is_better else ReasonCode.SUCCESS_WORSE
    return Reason(code=code, metric=success.metric, figure=comparison.difference)


def _judge_guardrail(guardrail: Guardrail) -> Reason:
    comparison = guardrail.comparison
    if comparison.problem:
        return _refused(ReasonCode.GUARDRAIL_REFUSED, guardrail.metric, comparison)
    least, most = -comparison.always_lift_high, -comparison.always_lift_low
    if guardrail.is_lower_better:
        least, most = comparison.always_lift_low, comparison.always_lift_high
    if most < guardrail.margin:
        return Reason(code=ReasonCode.GUARDRAIL_HELD, metric=guardrail.metric, figure=most)
    if least > guardrail.margin:
        return Reason(code=ReasonCode.GUARDRAIL_BROKEN, metric=guardrail.metric, figure=least)
    return Reason(code=ReasonCode.GUARDRAIL_NOT_SHOWN, metric=guardrail.metric, figure=most)


def _refused(code: ReasonCode, metric: str, comparison: Comparison) -> Reason:
    return Reason(code=code, metric=metric, figure=float(min(comparison.control_count, comparison.treated_count)))


def _decide(success: Sequence[Reason], guardrails: Sequence[Reason]) -> Verdict:
    found = {reason.code for reason in (*success, *guardrails)}
    if found & {ReasonCode.SUCCESS_WORSE, ReasonCode.GUARDRAIL_BROKEN}:
        return Verdict.HARMFUL
    if ReasonCode.SUCCESS_IMPROVED in found:
        is_safe = all(reason.code == ReasonCode.GUARDRAIL_HELD for reason in guardrails)
        return Verdict.SHIP if is_safe else Verdict.UNDECIDED
    if all(reason.code == ReasonCode.SUCCESS_REFUSED for reason in success):
        return Verdict.UNDECIDED
    return Verdict.NO_EFFECT_SHOWN


def _check(success: Sequence[Success], guardrails: Sequence[Guardrail], alpha: float) -> None:
    violations = []
    if not success:
        violations.append(
            Violation(field="success", description="is empty; name at least one metric that is to improve")
        )
    for kind, metrics in (("success", success), ("guardrails", guardrails)):
        names = [one.metric for one in metrics]
        for name in sorted({name for name in names if names.count(name) > 1}):
            violations.append(Violation(field=f"{kind}.{name}", description="comes twice; name each metric once"))
        for one in metrics:
            if one.comparison.alpha != alpha:
                problem = f"was compared at alpha {one.comparison.alpha}, the ruling is at {alpha}; use one"
                violations.append(Violation(field=f"{kind}.{one.metric}", description=problem))
    for guardrail in guardrails:
        if not 0 < guardrail.margin < math.inf:
            problem = f"is {guardrail.margin}; give how much worse is tolerated, as a positive share of control"
            violations.append(Violation(field=f"guardrails.{guardrail.metric}.margin", description=problem))
    if violations:
        raise InvalidInput(violations, "ruling")
