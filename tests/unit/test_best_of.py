"""Exact probabilities of being the best, whatever the uncertainties."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import special, stats

from models.best_of import best_of, best_of_plainly

FloatArray = NDArray[np.float64]

MEANS = st.sampled_from([0.0, 0.0, 1.0, -1.0]) | st.floats(-5, 5) | st.floats(-1e6, 1e6)
DEVIATIONS = (
    st.sampled_from([0.0, 0.0, 1.0, 1e-12, 1e6]) | st.floats(0.1, 10) | st.floats(-12, 6).map(lambda power: 10.0**power)
)
VALUES = st.lists(st.tuples(MEANS, DEVIATIONS), min_size=1, max_size=7)


def arrays(values: list[tuple[float, float]]) -> tuple[FloatArray, FloatArray]:
    return np.array([mean for mean, _ in values]), np.array([deviation for _, deviation in values])


@settings(max_examples=150)
@given(values=VALUES)
def test_chances_are_those_of_the_plain_reference(values: list[tuple[float, float]]) -> None:
    """Over deviations from 1e-12 to 1e6, points and ties, each chance is that of piecewise adaptive quadrature to 1e-9."""
    mean, deviation = arrays(values)

    assert best_of(mean, deviation) == pytest.approx(best_of_plainly(mean, deviation), rel=0, abs=1e-9)


@given(values=VALUES, scale=st.floats(1e-3, 1e9), shift=st.sampled_from([0.0, 2.0**20, -(2.0**40)]))
def test_chances_are_a_distribution(values: list[tuple[float, float]], scale: float, shift: float) -> None:
    """Chances are never negative and sum to 1 within 1e-12, whatever the unit."""
    mean, deviation = arrays(values)

    found = best_of(mean * scale + shift, deviation * scale)

    assert (found >= 0).all()
    assert found.sum() == pytest.approx(1.0, rel=0, abs=1e-12)


@given(one=st.tuples(MEANS, DEVIATIONS), other=st.tuples(MEANS, DEVIATIONS))
def test_two_values_have_their_closed_form(one: tuple[float, float], other: tuple[float, float]) -> None:
    """Of two values the first is greater with probability Phi of the difference of means over that of its deviation."""
    mean, deviation = arrays([one, other])
    spread = float(np.hypot(*deviation))
    gap = float(mean[0] - mean[1])
    expected = float(special.ndtr(gap / spread)) if spread > 0 else float(np.sign(gap) + 1) / 2

    assert best_of(mean, deviation)[0] == pytest.approx(expected, rel=0, abs=1e-9)


@pytest.mark.parametrize("spread", [0.0, 0.1, 1.0])
def test_many_values_of_like_deviations_are_exact(spread: float) -> None:
    """Where thirty values compete, the greatest of which rises more sharply than any of them, chances are exact too."""
    mean, deviation = np.random.default_rng(0).normal(scale=spread, size=30), np.ones(30)

    assert best_of(mean, deviation) == pytest.approx(best_of_plainly(mean, deviation), rel=0, abs=1e-9)


@pytest.mark.parametrize("n", [1, 2, 7, 33, 200])
@pytest.mark.parametrize("deviation", [0.0, 1e-12, 1.0, 1e6])
@pytest.mark.parametrize("mean", [0.0, 1e15])
def test_equal_values_share_alike(n: int, deviation: float, mean: float) -> None:
    """Values that are equal in mean and deviation are equally likely to be the best, however many and wherever they are."""
    assert best_of(np.full(n, mean), np.full(n, deviation)) == pytest.approx(np.full(n, 1 / n), rel=0, abs=1e-9)


def test_narrow_values_far_from_the_origin_keep_their_differences() -> None:
    """Deviations far below the last digit of the means still say who is best where the means are equal."""
    deviation = np.array([1e-6, 2e-6, 4e-6])

    far = best_of(np.full(3, 1e15), deviation)

    assert far == pytest.approx(best_of_plainly(np.zeros(3), deviation), rel=0, abs=1e-9)
    assert far[2] > far[1] > far[0]


@given(values=VALUES, order=st.randoms(use_true_random=False))
def test_chances_go_with_their_values(values: list[tuple[float, float]], order: object) -> None:
    """Values in another order have the same chances."""
    mean, deviation = arrays(values)
    shuffled = list(range(len(values)))
    order.shuffle(shuffled)  # type: ignore[attr-defined]  # random.Random, which hypothesis gives

    assert best_of(mean[shuffled], deviation[shuffled]) == pytest.approx(
        best_of(mean, deviation)[shuffled], rel=0, abs=1e-11
    )


def test_a_million_draws_of_normal_values_are_best_as_often() -> None:
    """Of a million draws of five normal values each is the greatest as often as its chance says: chi-square, p > 1e-4."""
    mean, deviation = np.array([0.0, 1.0, 0.8, -2.0, 1.1]), np.array([0.3, 0.1, 1.0, 3.0, 0.0])
    rng = np.random.default_rng(20261104)
    n = 1_000_000

    best = (mean + deviation * rng.standard_normal((n, 5))).argmax(axis=1)

    counts = np.bincount(best, minlength=5)
    assert stats.chisquare(counts, best_of(mean, deviation) * n).pvalue > 1e-4


@given(values=VALUES, which=st.integers(0, 6), loss=st.floats(0, 1e6))
def test_lesser_mean_is_never_likelier_to_be_best(values: list[tuple[float, float]], which: int, loss: float) -> None:
    """Lowering one mean never raises its chance, nor lowers that of another."""
    mean, deviation = arrays(values)
    which %= len(mean)
    lower = mean.copy()
    lower[which] -= loss

    change = best_of(lower, deviation) - best_of(mean, deviation)

    assert change[which] <= 1e-9
    assert (np.delete(change, which) >= -1e-9).all()


@pytest.mark.parametrize(("mean", "deviation"), [(0.0, -1.0), (0.0, np.nan), (np.inf, 1.0), (0.0, np.inf)])
def test_value_that_is_no_normal_is_refused(mean: float, deviation: float) -> None:
    """A negative deviation, or a number that is not finite, is an error and not a distribution."""
    with pytest.raises(ValueError, match="finite"):
        best_of(np.array([0.0, mean]), np.array([1.0, deviation]))
