"""Samples that tests compare."""

import numpy as np

from training.experiments.comparison import Comparison, Sample
from training.experiments.worlds import EVEN, Metric, draw_experiment


def draw(
    metric: Metric,
    *,
    lift: float = 0.1,
    customers: int = 8000,
    is_adjusted: bool = False,
    shares: tuple[float, float] = EVEN,
    seed: int = 1,
) -> tuple[Sample, Sample]:
    """Return control and treated of a simulated experiment."""
    rng = np.random.default_rng(seed)
    return draw_experiment(metric, customers, lift, rng, shares=shares, is_adjusted=is_adjusted)


def shares_of(successes: int, customers: int) -> Sample:
    """Return a sample of zeros and ones."""
    values = np.zeros(customers)
    values[:successes] = 1.0
    return Sample(values=values)


def figures(comparison: Comparison) -> list[float]:
    """Return all that a refused comparison must not say."""
    names = "difference low high lift lift_low lift_high always_low always_high always_lift_low always_lift_high p_value always_p_value"
    return [getattr(comparison, name) for name in names.split()]
