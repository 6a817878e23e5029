"""Simulated experiments whose truth is known: customers who differ, come over 28 days, and are assigned at random.

Each customer has a level g >= 0 of mean 1. All of a world's metrics have a covariate of before, which follows the same level.

    revenue     number of orders Poisson(g / 2), each order log-normal with sigma 1 and a mean of 1000; log g is normal with sigma 1: a heavy tail, and two thirds are 0
    conversion  1 % g ordered; log g is normal with sigma 0.5
    clicks      clicks of Poisson(4 g) messages, each clicked with chance q of the customer's own, lower for those who get many: a ratio of sums

A lift multiplies, in the treated variant, the mean of an order, or the chance.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from training.experiments.comparison import Sample

LAST_DAY = 28
DAYS = tuple(range(1, LAST_DAY + 1))
EVEN = (0.5, 0.5)
UNEVEN = (0.8, 0.2)


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """A metric of simulated customers, and its true figure without a lift."""

    name: str
    draw: Callable[[np.random.Generator, int, float], Sample]
    mean: float


def _revenue(rng: np.random.Generator, count: int, lift: float) -> Sample:
    level = rng.lognormal(-0.5, 1.0, count)
    orders = rng.poisson(level / 2)
    worth = rng.lognormal(-0.5, 1.0, int(orders.sum())) * 1000 * (1 + lift)
    customer = np.repeat(np.arange(count), orders)
    return Sample(
        values=np.bincount(customer, worth, minlength=count).astype(np.float64),
        covariate=rng.poisson(3 * level) / 6,
    )


def _conversion(rng: np.random.Generator, count: int, lift: float) -> Sample:
    level = rng.lognormal(-0.125, 0.5, count)
    ordered = rng.random(count) < 0.01 * level * (1 + lift)
    return Sample(values=ordered.astype(np.float64), covariate=rng.poisson(level).astype(np.float64))


def _clicks(rng: np.random.Generator, count: int, lift: float) -> Sample:
    keenness = rng.random(count)
    messages = rng.poisson(4 * (1.5 - keenness))
    chance = 0.1 + 0.2 * keenness
    return Sample(
        values=rng.binomial(messages, chance * (1 + lift)).astype(np.float64),
        weights=messages.astype(np.float64),
        covariate=rng.binomial(20, chance) / 20,
    )


REVENUE = Metric(name="revenue", draw=_revenue, mean=500.0)
CONVERSION = Metric(name="conversion", draw=_conversion, mean=0.01)
CLICKS = Metric(name="clicks", draw=_clicks, mean=0.1 * 1.0 + 0.2 * (1.5 / 2 - 1 / 3))
"""With keenness k even in [0, 1]: E[(1.5 - k) (0.1 + 0.2 k)] / E[1.5 - k], where E[1.5 - k] = 1."""


def draw_experiment(
    metric: Metric,
    customers: int,
    lift: float,
    rng: np.random.Generator,
    *,
    shares: tuple[float, float],
    is_adjusted: bool,
) -> tuple[Sample, Sample]:
    """Return control and treated of one experiment."""
    treated = int(rng.binomial(customers, shares[1] / sum(shares)))
    drawn = metric.draw(rng, customers - treated, 0.0), metric.draw(rng, treated, lift)
    control, treated_sample = (
        replace(
            sample,
            covariate=sample.covariate if is_adjusted else None,
            times=np.sort(rng.uniform(0, LAST_DAY, len(sample.values))),
        )
        for sample in drawn
    )
    return control, treated_sample
