"""The always-valid interval and its p-value are each other's dual, and as wide as they say."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import norm

from training.experiments.always_valid import TIGHTEST_AT, critical_value, p_value

LEVELS = st.sampled_from([0.001, 0.01, 0.05, 0.1, 0.5])


@settings(deadline=None)
@given(count=st.integers(2, 10**9), alpha=LEVELS, z=st.floats(0, 1e6))
def test_p_value_is_below_alpha_where_the_interval_leaves_zero_out(count: int, alpha: float, z: float) -> None:
    """|z| beyond k(n) and p below alpha are the same event; p is in [0, 1]."""
    p, critical = p_value(z, count, alpha), critical_value(count, alpha)
    assert 0 <= p <= 1
    if abs(z - critical) > 1e-6:
        assert (p < alpha) == (z > critical)


@settings(deadline=None)
@given(count=st.integers(2, 10**9), alpha=LEVELS)
def test_it_is_wider_than_an_interval_for_one_look(count: int, alpha: float) -> None:
    """Looking always costs something, at every n."""
    assert critical_value(count, alpha) > norm.isf(alpha / 2)


def test_it_is_tightest_where_it_says() -> None:
    """Near N* it is tightest, 1.55 times as wide as the interval for one look, and below 1.7 times from a third to fifteen times N*."""
    widths = {
        part: critical_value(round(TIGHTEST_AT * part), 0.05) / norm.isf(0.025) for part in (0.1, 1 / 3, 1, 3, 15, 100)
    }
    assert min(widths, key=lambda part: widths[part]) == 1
    assert widths[1] == pytest.approx(1.55, abs=0.005)
    assert max(widths[1 / 3], widths[3], widths[15]) < 1.7
