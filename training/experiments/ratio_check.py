"""Whether customers came to the variants in the shares that were set; if not, something loses or adds customers, and no figure of the experiment is to be trusted.

Two variants: the exact binomial test below a thousand customers, else its normal approximation (tea-tasting). More: Pearson's chi-squared test (scipy), or, where it does not
hold since fewer than 5 are expected somewhere, the smallest exact binomial p-value of one variant against the rest times the number of variants (Bonferroni).

Thresholds are those of Statsig's documentation: warn below 0.01; a mismatch is below 0.001 and off by a thousandth of all customers or more.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import tea_tasting as tt
from scipy.stats import binomtest, chisquare
from tea_tasting.aggr import Aggregates

from models.errors import InvalidInput, Violation

WARNING = 0.01
MISMATCH = 0.001
LEAST_DEVIATION = 0.001
LEAST_EXPECTED = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class RatioCheck:
    """Counts of customers against the shares that were set."""

    p_value: float
    """1 where nobody has come yet."""
    deviation: float
    """The largest difference between a variant's share of customers and what was set; 0.01 is one percentage point."""
    is_warning: bool
    is_mismatch: bool


def check_ratio(counts: Mapping[str, int], expected: Mapping[str, float]) -> RatioCheck:
    """Check counts of customers by variant against the shares expected, which are positive and need not sum to 1.

    Raises
    ------
    InvalidInput: fewer than two variants, other variants in one than in the other, a negative count, or a share that is not positive.
    """
    _check(counts, expected)
    names = list(expected)
    observed = np.array([counts[name] for name in names])
    shares = np.array([expected[name] for name in names], dtype=np.float64)
    shares /= shares.sum()
    total = int(observed.sum())
    if total == 0:
        return RatioCheck(p_value=1.0, deviation=0.0, is_warning=False, is_mismatch=False)
    p = _p_value([int(one) for one in observed], [float(one) for one in shares], total)
    deviation = float(np.abs(observed / total - shares).max())
    return RatioCheck(
        p_value=p,
        deviation=deviation,
        is_warning=p < WARNING,
        is_mismatch=p < MISMATCH and deviation >= LEAST_DEVIATION,
    )


def _p_value(observed: list[int], shares: list[float], total: int) -> float:
    if len(observed) == 2:
        variants = {0: Aggregates(count_=observed[0]), 1: Aggregates(count_=observed[1])}
        return float(tt.SampleRatio(shares[1] / shares[0]).analyze(variants, 0, 1).pvalue)
    if total * min(shares) >= LEAST_EXPECTED:
        return float(chisquare(observed, [total * share for share in shares]).pvalue)
    each = [binomtest(count, total, share).pvalue for count, share in zip(observed, shares, strict=True)]
    return min(1.0, len(each) * float(min(each)))


def _check(counts: Mapping[str, int], expected: Mapping[str, float]) -> None:
    violations = []
    if len(expected) < 2:
        violations.append(Violation(field="expected", description="has fewer than two variants; there is no ratio"))
    for name in sorted(set(expected) - set(counts)):
        violations.append(
            Violation(field=f"counts.{name}", description="is missing; give 0 for a variant without customers")
        )
    for name in sorted(set(counts) - set(expected)):
        violations.append(Violation(field=f"expected.{name}", description="is missing; say what share was set"))
    for name, count in counts.items():
        if count < 0:
            violations.append(Violation(field=f"counts.{name}", description=f"is {count}; a count is 0 or more"))
    for name, share in expected.items():
        if not 0 < share < np.inf:
            violations.append(Violation(field=f"expected.{name}", description=f"is {share}; a share is positive"))
    if violations:
        raise InvalidInput(violations, "sample ratio")
