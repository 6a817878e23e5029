"""All that is asked of the statistics of an experiment, in one place.

comparison    means, ratios and CUPED in two variants: at one look, and by day
always_valid  intervals and p-values that hold at every look
ratio_check   whether customers came in the shares set
ruling        correction for several metrics, and the verdict
planning      how many customers are needed
"""

from training.experiments.always_valid import TIGHTEST_AT
from training.experiments.comparison import (
    LEAST_CUSTOMERS,
    LEAST_EVENTS,
    MOST_SKEW,
    Baseline,
    Comparison,
    FloatArray,
    Problem,
    Sample,
    compare,
    compare_daily,
    measure_baseline,
)
from training.experiments.planning import detectable_lift, needed_customers
from training.experiments.ratio_check import RatioCheck, check_ratio
from training.experiments.ruling import (
    Guardrail,
    Reason,
    ReasonCode,
    Ruling,
    Success,
    Verdict,
    adjust,
    rule,
)

__all__ = [
    "LEAST_CUSTOMERS",
    "LEAST_EVENTS",
    "MOST_SKEW",
    "TIGHTEST_AT",
    "Baseline",
    "Comparison",
    "FloatArray",
    "Guardrail",
    "Problem",
    "RatioCheck",
    "Reason",
    "ReasonCode",
    "Ruling",
    "Sample",
    "Success",
    "Verdict",
    "adjust",
    "check_ratio",
    "compare",
    "compare_daily",
    "detectable_lift",
    "measure_baseline",
    "needed_customers",
    "rule",
]
