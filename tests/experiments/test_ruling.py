"""The ruling ships what improves and is safe, and says why not."""

import math
from dataclasses import replace

import pytest
from statsmodels.stats.multitest import multipletests

from models.errors import InvalidInput
from tests.experiments.samples import shares_of
from training.experiments.comparison import Comparison, compare
from training.experiments.ratio_check import RatioCheck, check_ratio
from training.experiments.ruling import Guardrail, ReasonCode, Ruling, Success, Verdict, adjust, rule

FAIR = check_ratio({"control": 5000, "treated": 5000}, {"control": 1.0, "treated": 1.0})
BETTER = compare(shares_of(1000, 20_000), shares_of(1300, 20_000))
WORSE = compare(shares_of(1300, 20_000), shares_of(1000, 20_000))
SAME = compare(shares_of(4000, 20_000), shares_of(4010, 20_000))
UNCLEAR = compare(shares_of(500, 20_000), shares_of(520, 20_000))
REFUSED = compare(shares_of(1, 20_000), shares_of(1, 20_000))


def _success(comparison: Comparison, metric: str = "conversion", *, is_lower_better: bool = False) -> Success:
    return Success(metric=metric, comparison=comparison, is_lower_better=is_lower_better)


def _guardrail(comparison: Comparison, margin: float = 0.1, *, is_lower_better: bool = False) -> Guardrail:
    return Guardrail(metric="guarded", comparison=comparison, margin=margin, is_lower_better=is_lower_better)


def _codes(ruling: Ruling) -> list[ReasonCode]:
    return [reason.code for reason in ruling.reasons]


@pytest.mark.parametrize("p_values", [[0.04], [0.03, 0.01, 0.04, 0.005], [0.0, 1.0, 0.02, 0.02, 0.3, 0.9, 0.011, 0.5]])
def test_adjusted_p_values_are_those_of_statsmodels(p_values: list[float]) -> None:
    """Holm and Benjamini-Hochberg agree with statsmodels, with ties, 0 and 1 among the p-values."""
    named = {str(number): p for number, p in enumerate(p_values)}
    assert list(adjust(named, "holm").values()) == pytest.approx(multipletests(p_values, method="holm")[1])
    assert list(adjust(named, "benjamini_hochberg").values()) == pytest.approx(
        multipletests(p_values, method="fdr_bh")[1]
    )


def test_a_refused_metric_still_counts() -> None:
    """A nan stays nan, and the others are corrected for it too."""
    found = adjust({"a": 0.02, "b": math.nan}, "holm")
    assert found["a"] == pytest.approx(0.04)
    assert math.isnan(found["b"])
    assert adjust({}, "holm") == {}


@pytest.mark.parametrize(
    ("success", "guardrails", "verdict", "codes"),
    [
        ([_success(BETTER)], [], Verdict.SHIP, [ReasonCode.SUCCESS_IMPROVED]),
        (
            [_success(BETTER)],
            [_guardrail(SAME)],
            Verdict.SHIP,
            [ReasonCode.SUCCESS_IMPROVED, ReasonCode.GUARDRAIL_HELD],
        ),
        (
            [_success(SAME, "a"), _success(BETTER, "b")],
            [],
            Verdict.SHIP,
            [ReasonCode.SUCCESS_NOT_SHOWN, ReasonCode.SUCCESS_IMPROVED],
        ),
        (
            [_success(BETTER)],
            [_guardrail(UNCLEAR)],
            Verdict.UNDECIDED,
            [ReasonCode.SUCCESS_IMPROVED, ReasonCode.GUARDRAIL_NOT_SHOWN],
        ),
        (
            [_success(BETTER)],
            [_guardrail(REFUSED)],
            Verdict.UNDECIDED,
            [ReasonCode.SUCCESS_IMPROVED, ReasonCode.GUARDRAIL_REFUSED],
        ),
        (
            [_success(BETTER)],
            [_guardrail(BETTER, is_lower_better=True)],
            Verdict.HARMFUL,
            [ReasonCode.SUCCESS_IMPROVED, ReasonCode.GUARDRAIL_BROKEN],
        ),
        ([_success(WORSE)], [], Verdict.HARMFUL, [ReasonCode.SUCCESS_WORSE]),
        ([_success(WORSE, is_lower_better=True)], [], Verdict.SHIP, [ReasonCode.SUCCESS_IMPROVED]),
        ([_success(SAME)], [], Verdict.NO_EFFECT_SHOWN, [ReasonCode.SUCCESS_NOT_SHOWN]),
        ([_success(REFUSED)], [], Verdict.UNDECIDED, [ReasonCode.SUCCESS_REFUSED]),
        (
            [_success(REFUSED)],
            [_guardrail(WORSE)],
            Verdict.HARMFUL,
            [ReasonCode.SUCCESS_REFUSED, ReasonCode.GUARDRAIL_BROKEN],
        ),
    ],
)
def test_a_verdict_follows_from_its_grounds(
    success: list[Success], guardrails: list[Guardrail], verdict: Verdict, codes: list[ReasonCode]
) -> None:
    """Ship needs an improvement and every guardrail held; harm anywhere is harmful; what cannot be judged is undecided."""
    ruling = rule(success, guardrails, FAIR, alpha=0.05)
    assert ruling.verdict == verdict
    assert _codes(ruling) == codes


def test_a_mismatch_refuses_any_verdict() -> None:
    """Customers that did not come in the shares set leave nothing to rule on, with the p-value as the only reason."""
    ratio = check_ratio({"control": 5000, "treated": 6000}, {"control": 1.0, "treated": 1.0})
    ruling = rule([_success(BETTER)], [_guardrail(SAME)], ratio, alpha=0.05)
    assert (ruling.verdict, _codes(ruling)) == (Verdict.UNDECIDED, [ReasonCode.SAMPLE_RATIO_MISMATCH])
    assert ruling.reasons[0].figure == ratio.p_value


def test_a_warning_of_the_ratio_is_told_beside_the_verdict() -> None:
    """A ratio that is only odd comes first among the reasons and changes nothing."""
    ratio = RatioCheck(p_value=0.005, deviation=0.01, is_warning=True, is_mismatch=False)
    ruling = rule([_success(BETTER)], [], ratio, alpha=0.05)
    assert (ruling.verdict, _codes(ruling)[0]) == (Verdict.SHIP, ReasonCode.SAMPLE_RATIO_WARNING)


def test_more_success_metrics_ask_for_more() -> None:
    """What one success metric shows alone is not shown as one of five; guardrails take no part in the correction."""
    found = replace(BETTER, always_p_value=0.02)
    others = [_success(SAME, str(number)) for number in range(4)]
    assert rule([_success(found)], [_guardrail(SAME)], FAIR, alpha=0.05).verdict == Verdict.SHIP
    assert rule([_success(found), *others], [], FAIR, alpha=0.05).verdict == Verdict.NO_EFFECT_SHOWN


def test_a_guardrail_is_held_by_its_whole_interval() -> None:
    """The end of the always-valid interval on the bad side decides, whichever side that is, and is the figure told."""
    for is_lower_better, bad in ((False, -SAME.always_lift_low), (True, SAME.always_lift_high)):
        held = rule([_success(BETTER)], [_guardrail(SAME, bad * 1.01, is_lower_better=is_lower_better)], FAIR)
        not_shown = rule([_success(BETTER)], [_guardrail(SAME, bad * 0.99, is_lower_better=is_lower_better)], FAIR)
        assert (held.verdict, not_shown.verdict) == (Verdict.SHIP, Verdict.UNDECIDED)
        assert held.reasons[-1].figure == bad


@pytest.mark.parametrize(
    ("success", "guardrails", "alpha", "field"),
    [
        ([], [], 0.05, "success"),
        ([_success(BETTER), _success(SAME)], [], 0.05, "success.conversion"),
        ([_success(BETTER)], [_guardrail(SAME, 0.0)], 0.05, "guardrails.guarded.margin"),
        ([_success(BETTER)], [_guardrail(SAME, math.nan)], 0.05, "guardrails.guarded.margin"),
        ([_success(BETTER)], [], 0.1, "success.conversion"),
        ([_success(BETTER)], [_guardrail(replace(SAME, alpha=0.1))], 0.05, "guardrails.guarded"),
    ],
)
def test_a_mistake_is_told_by_its_field(
    success: list[Success], guardrails: list[Guardrail], alpha: float, field: str
) -> None:
    """No success metric, one named twice, a margin that is none, and comparisons at another alpha are refused."""
    with pytest.raises(InvalidInput) as caught:
        rule(success, guardrails, FAIR, alpha=alpha)
    assert [violation.field for violation in caught.value.violations] == [field]


def test_a_p_value_is_a_probability() -> None:
    """A p-value out of [0, 1] is refused by its metric."""
    with pytest.raises(InvalidInput, match=r"a: is 1.5"):
        adjust({"a": 1.5}, "holm")
