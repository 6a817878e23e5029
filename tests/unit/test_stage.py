"""The linear part of a stage: encoded rows become columns, and columns scores."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.features import Column
from models.stage import Design, Scaling, linear_scores, sums_by_channel

COLUMNS = (
    Column(name="channel", kind="category", categories=("none", "push", "sms")),
    Column(name="a", kind="number"),
    Column(name="kind", kind="category", categories=("cart", "news")),
    Column(name="b", kind="number"),
)
SCALING = Scaling(means=(0.0, 1.0, 0.0, 2.0), deviations=(1.0, 0.5, 1.0, 2.0), has_missing=(False, False, False, True))
DESIGN = Design(COLUMNS, SCALING)
NAN = np.nan


def test_columns_are_constant_numbers_gaps_and_categories() -> None:
    """A row is 1, its scaled numbers, which of those with gaps are missing, and one column for each category but channels."""
    found = DESIGN.base(np.array([[1.0, math.e - 1, 1.0, NAN], [2.0, -(math.e - 1), 0.0, math.e**4 - 1]]))

    np.testing.assert_allclose(found, [[1, 0, 0, 1, 0, 1], [1, -4, 1, 0, 1, 0]], atol=1e-12)
    assert DESIGN.groups().tolist() == [-1, 0, 0, 1, 2, 2]
    assert DESIGN.width == 6


@pytest.mark.parametrize("code", [NAN, -1.0, 2.0, 1e30, -1e30, np.inf])
def test_category_that_is_not_known_has_no_column(code: float) -> None:
    """Missing, negative and too great codes are those of no category, and never reach another column."""
    found = DESIGN.base(np.array([[code + 1, 0.0, code, 0.0]]))

    assert found[0, 4:].tolist() == [0, 0]


@pytest.mark.parametrize("code", [NAN, -1.0, 3.0, 1e30, -1e30, np.inf])
def test_channel_that_is_not_known_has_no_code(code: float) -> None:
    """A channel that the log did not hold has the code -1, whose own weights are 0."""
    codes = DESIGN.channel_codes(np.array([[code, 0, 0, 0], [2.0, 0, 0, 0]]))

    assert codes.tolist() == [-1, 2]


def test_model_without_a_channel_column_has_no_codes() -> None:
    """Where there is no channel among the columns, no row has a code."""
    design = Design(COLUMNS[1:2], Scaling(means=(0.0,), deviations=(1.0,), has_missing=(False,)))

    assert design.channel_codes(np.zeros((2, 1))).tolist() == [-1, -1]


@given(value=st.floats(allow_nan=True, allow_infinity=True))
def test_numbers_are_bounded_and_finite(value: float) -> None:
    """Whatever a number is, its column is finite and within 8 deviations."""
    found = DESIGN.base(np.array([[1.0, value, 0.0, value]]))

    assert np.all(np.abs(found) <= 8)


def test_own_weights_add_to_those_of_all() -> None:
    """A channel's score is that of all channels and its own; an unknown channel has the first alone."""
    weights = np.random.default_rng(1).normal(size=(4, 3))
    base = np.random.default_rng(2).normal(size=(5, 3))
    codes = np.array([0, 2, -1, 1, -1])

    found = linear_scores(weights, base, codes)

    expected = [base[i] @ weights[0] + (base[i] @ weights[1 + c] if c >= 0 else 0.0) for i, c in enumerate(codes)]
    np.testing.assert_allclose(found, expected, rtol=1e-12)
    np.testing.assert_allclose(np.einsum("nf,nf->n", base, sums_by_channel(weights, 3)[codes]), expected, rtol=1e-12)


def test_weights_of_all_channels_alone_will_do() -> None:
    """A stage without own weights scores every channel by the weights of all."""
    weights, base = np.array([[1.0, 2.0]]), np.array([[1.0, 3.0], [1.0, -1.0]])

    assert linear_scores(weights, base, np.array([0, -1])).tolist() == [7.0, -1.0]
    assert sums_by_channel(weights, 2).tolist() == [[1.0, 2.0]] * 3
