"""What a run tells of a fit beside its metrics: the model card, gain curves and the code's version."""

import numpy as np
import pytest

from tests.training.examples import BASE, PUSH_ON_YOUNG, WINDOW, world
from training.card import code_version, model_card
from training.dataset import Dataset
from training.fit import Fitted, fit
from training.grow import Hyperparameters
from training.plots import gain_curve, uplift_scores


@pytest.fixture(scope="module")
def data() -> Dataset:
    return world(6000)


@pytest.fixture(scope="module")
def fitted(data: Dataset) -> Fitted:
    return fit(data, Hyperparameters(trees=60), "the world", lambda _: None)


def test_card_says_what_it_is_and_is_not(fitted: Fitted, data: Dataset) -> None:
    """The card has the purpose, the data with digest and seed, how good it is, and what it does not know."""
    card = model_card(fitted, "shop-1", data, WINDOW)

    assert card.startswith("# shop-1\n")
    assert "P(order within 72 h)" in card
    assert f"digest `{data.digest}`, seed 0, code {code_version()}" in card
    assert f"AUC {fitted.metrics['later.auc']:.3f}" in card
    assert "the one model serves" in card
    assert "python -m training evaluate" in card


def test_uplift_is_scored_by_a_model_that_did_not_see_it(fitted: Fitted) -> None:
    """The young, whom push moves by 20 points, are scored well above the others, whom it does not move."""
    young = fitted.later.matrix[:, 1] == 1

    score = uplift_scores(fitted, "push")

    assert score[young].mean() > score[~young].mean() + PUSH_ON_YOUNG / 2


def test_gain_rises_where_uplift_is(fitted: Fitted) -> None:
    """Half of the decisions are the young: sent to in the order of the score, the first half holds nearly all of the gain."""
    curve = gain_curve(fitted.later, uplift_scores(fitted, "push"), "push")

    assert curve is not None
    half = np.sqrt(4 * BASE / len(fitted.later))
    assert curve[0] == 0
    assert curve[5] == pytest.approx(PUSH_ON_YOUNG / 2, abs=3 * half)
    assert curve[5] > 0.7 * curve[10]


def test_gain_needs_both_sides(fitted: Fitted) -> None:
    """A channel that was never sent through has no curve."""
    assert gain_curve(fitted.later, np.zeros(len(fitted.later)), "pigeon") is None
