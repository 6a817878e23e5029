"""What gbstats makes of samples: run by its own interpreter with a file of arrays, prints JSON. It imports nothing of the project."""

import json
import sys
from dataclasses import replace

import numpy as np
from gbstats.frequentist.tests import FrequentistConfig, SequentialConfig, SequentialTwoSidedTTest, TwoSidedTTest
from gbstats.models.statistics import (
    RatioStatistic,
    RegressionAdjustedStatistic,
    SampleMeanStatistic,
    Statistic,
    compute_theta,
)
from numpy.typing import NDArray


def _mean(values: NDArray[np.float64]) -> SampleMeanStatistic:
    return SampleMeanStatistic(n=len(values), sum=float(values.sum()), sum_squares=float((values**2).sum()))


def _statistic(arrays: dict[str, NDArray[np.float64]]) -> Statistic:
    values = arrays["values"]
    if "weights" in arrays:
        weights = arrays["weights"]
        return RatioStatistic(
            n=len(values),
            m_statistic=_mean(values),
            d_statistic=_mean(weights),
            m_d_sum_of_products=float(values @ weights),
        )
    if "covariate" in arrays:
        covariate = arrays["covariate"]
        return RegressionAdjustedStatistic(
            n=len(values),
            post_statistic=_mean(values),
            pre_statistic=_mean(covariate),
            post_pre_sum_of_products=float(values @ covariate),
            theta=0.0,
        )
    return _mean(values)


def judge(control: Statistic, treated: Statistic, alpha: float, tightest_at: float) -> dict[str, float]:
    """Return gbstats' figures of the difference, under the names that the project has for them."""
    if isinstance(control, RegressionAdjustedStatistic) and isinstance(treated, RegressionAdjustedStatistic):
        theta = compute_theta(control, treated)
        control, treated = replace(control, theta=theta), replace(treated, theta=theta)
    once = TwoSidedTTest(control, treated, FrequentistConfig(alpha=alpha, difference_type="absolute")).compute_result()
    config = SequentialConfig(alpha=alpha, difference_type="absolute", sequential_tuning_parameter=tightest_at)
    always = SequentialTwoSidedTTest(control, treated, config).compute_result()
    return {
        "difference": float(once.expected),
        "low": float(once.ci[0]),
        "high": float(once.ci[1]),
        "p_value": float(once.p_value),
        "always_low": float(always.ci[0]),
        "always_high": float(always.ci[1]),
        "always_p_value": float(always.p_value),
    }


def main() -> None:
    """Judge each case of the file named by the first argument, at the alpha and N* of the second and third."""
    path, alpha, tightest_at = sys.argv[1], float(sys.argv[2]), float(sys.argv[3])
    cases: dict[str, dict[str, dict[str, NDArray[np.float64]]]] = {}
    with np.load(path) as arrays:
        for key in arrays.files:
            case, variant, name = key.split("|")
            cases.setdefault(case, {}).setdefault(variant, {})[name] = arrays[key]
    found = {
        case: judge(_statistic(both["control"]), _statistic(both["treated"]), alpha, tightest_at)
        for case, both in cases.items()
    }
    print(json.dumps(found))


if __name__ == "__main__":
    main()
