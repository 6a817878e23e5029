"""Exact propensities of Thompson sampling beside estimating them by drawing: time, and the error left."""

import time

import numpy as np

from models.best_of import FloatArray, best_of, best_of_plainly
from tests.benchmarks.figures import PROPENSITY_ERROR, PROPENSITY_RATIO, SPREADS, Measured

ACTIONS = 40
DRAWS = 1000
_CHECKED = 6


def by_drawing(mean: FloatArray, deviation: FloatArray, random: np.random.Generator) -> FloatArray:
    """Estimate each action's chance to be the greatest from so many draws."""
    drawn = random.standard_normal((DRAWS, len(mean)))
    drawn *= deviation
    drawn += mean
    return np.bincount(drawn.argmax(axis=1), minlength=len(mean)) / DRAWS


def cases(decades: float, count: int) -> list[tuple[FloatArray, FloatArray]]:
    """Return means and deviations of so many decisions whose best actions are close."""
    random = np.random.default_rng(round(10 * decades))
    return [
        (random.normal(size=ACTIONS), 10 ** random.uniform(-decades / 2, decades / 2, ACTIONS)) for _ in range(count)
    ]


def measure(measured: Measured, calls: int) -> None:
    """Time both on the same actions in turn; hold some of the exact ones against adaptive quadrature."""
    random = np.random.default_rng(0)
    for name, decades in SPREADS.items():
        of_spread = cases(decades, calls)
        exact = drawing = 0.0
        for mean, deviation in of_spread:
            began = time.thread_time()
            best_of(mean, deviation)
            middle = time.thread_time()
            by_drawing(mean, deviation, random)
            exact, drawing = exact + middle - began, drawing + time.thread_time() - middle
        worst = max(float(np.abs(best_of(m, d) - best_of_plainly(m, d)).max()) for m, d in of_spread[:_CHECKED])
        measured.add(f"exact propensities of {ACTIONS} actions, deviations {name}", "ms CPU", exact / calls * 1e3)
        measured.add(f"{PROPENSITY_RATIO}, deviations {name}", "x", exact / drawing)
        measured.add(f"{PROPENSITY_ERROR}, deviations {name}", "", worst)
