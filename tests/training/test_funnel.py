"""The funnel: effects too rare for one model, learned through what leads to them."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from models.booster import Booster
from models.bundle import combine
from models.features import NO_SEND, Column
from training.dataset import Dataset
from training.fit import fit, is_clearly_better
from training.funnel import fit_funnel
from training.grow import Hyperparameters

HYPER = Hyperparameters(trees=150, seed=3)
CHANNELS = (NO_SEND, "push", "sms")
READS = {"push": (0.05, 0.40), "sms": (0.30, 0.30)}
"""P(seen) of those who are not attached to the app, and of those who are."""
ORGANIC, CAUSED = 0.02, 0.10
"""P(order) anyway, and what having seen the message adds."""


def shop(decisions: int, seed: int = 0, caused: float = CAUSED) -> Dataset:
    """Decisions an hour apart, channels drawn evenly; a message works only where it is seen."""
    rng = np.random.default_rng(seed)
    channel = rng.integers(3, size=decisions)
    attached = rng.integers(2, size=decisions)
    chance = np.array([[0.0, 0.0], READS["push"], READS["sms"]])[channel, attached]
    seen = rng.random(decisions) < chance
    response = (rng.random(decisions) < ORGANIC + caused * seen).astype(np.float64)
    return Dataset(
        columns=(
            Column(name="channel", kind="category", categories=CHANNELS),
            Column(name="x.attached", kind="number"),
            Column(name="x.noise", kind="number"),
        ),
        matrix=np.column_stack([channel, attached, rng.normal(size=decisions)]).astype(np.float64),
        decide_time=np.int64(1_700_000_000_000_000) + 3_600_000_000 * np.arange(decisions, dtype=np.int64),
        channel=np.array(CHANNELS)[channel],
        propensity=np.full(decisions, 1 / 3),
        price=np.zeros(decisions),
        response=response,
        value=response,
        unsubscribed=np.zeros(decisions),
        clicked=np.zeros(decisions),
        seen=seen.astype(np.float64),
        digest=f"shop-{decisions}-{seed}",
    )


def later_of(data: Dataset) -> NDArray[np.bool_]:
    return np.arange(len(data)) >= len(data) * 3 // 4


def test_rare_effects_are_found_where_one_model_does_not() -> None:
    """With some hundred orders the funnel tells the reach of each channel for each customer; its errors are a fraction."""
    data = shop(12_000)
    said: list[str] = []

    funnel = fit_funnel(data, later_of(data), HYPER, said.append)

    assert funnel is not None
    assert funnel.description.engagement == "seen"
    later = data.take(later_of(data))
    truth = (
        CAUSED
        * np.array([[0.0, 0.0], READS["push"], READS["sms"]])[
            later.matrix[:, 0].astype(int), later.matrix[:, 1].astype(int)
        ]
    )
    sent = later.channel != NO_SEND
    error = np.abs(funnel.p_later - ORGANIC - truth)[sent]
    assert error.mean() < 0.25 * truth[sent].mean()


def test_claimed_effect_is_scaled_to_what_randomisation_shows() -> None:
    """Where those who see would have ordered anyway, the scale takes most of the claimed effect back."""
    rng = np.random.default_rng(1)
    data = shop(12_000, caused=0.0)
    keen = rng.random(len(data)) < 0.2
    seen = (data.channel != NO_SEND) & (rng.random(len(data)) < np.where(keen, 0.7, 0.1))
    response = (rng.random(len(data)) < np.where(keen, 0.15, 0.01)).astype(np.float64)
    confounded = replace(data, seen=seen.astype(np.float64), response=response)

    honest = fit_funnel(shop(12_000), later_of(data), HYPER, lambda _: None)
    claimed = fit_funnel(confounded, later_of(data), HYPER, lambda _: None)

    assert honest is not None
    assert claimed is not None
    assert honest.description.scale == pytest.approx(1.0, abs=0.35)
    assert claimed.description.scale < 0.5


def test_no_send_has_the_organic_chance_whatever_the_channel_would_have_been() -> None:
    """The organic stage looks at the context alone, so its chance is the same for every action."""
    data = shop(8_000)

    funnel = fit_funnel(data, later_of(data), HYPER, lambda _: None)

    assert funnel is not None
    organic = Booster(funnel.texts["organic"])
    rows = np.array([[channel, 1.0, 0.3] for channel in (0.0, 1.0, 2.0, np.nan)])
    assert len(set(organic.raw_scores(rows).tolist())) == 1


def test_funnel_never_takes_from_a_send_and_never_passes_one() -> None:
    """Whatever the stages say, a send is at least as likely to be followed by an order as no send, and at most certain."""
    data = shop(8_000)
    funnel = fit_funnel(data, later_of(data), HYPER, lambda _: None)
    assert funnel is not None
    raw = np.random.default_rng(0).normal(0, 50, size=(3, 1_000))
    sends = np.ones(1_000, dtype=bool)

    with_send = combine(funnel.description, raw[0], raw[1], raw[2], sends)
    without = combine(funnel.description, raw[0], raw[1], raw[2], ~sends)

    assert np.all((without <= with_send) & (with_send <= 1))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"seen": np.zeros(8_000)}, "clicked or seen"),
        ({"seen": np.ones(8_000)}, "clicked or seen"),
        ({"response": np.zeros(8_000)}, "engaged sends were followed by an order"),
    ],
)
def test_stage_without_enough_to_learn_from_is_named(change: dict[str, Any], says: str) -> None:
    """Where a stage cannot be taught, there is no funnel, and the log's lack is said."""
    said: list[str] = []

    found = fit_funnel(replace(shop(8_000), **change), np.arange(8_000) >= 6_000, HYPER, said.append)

    assert found is None
    assert says in said[0]


def test_clicks_count_as_engaging_before_seeing_does() -> None:
    """Where there are enough clicks, they are the stage, since they are nearer to an order."""
    data = shop(8_000)
    clicked = data.seen * (np.arange(len(data)) % 2)

    funnel = fit_funnel(replace(data, clicked=clicked), later_of(data), HYPER, lambda _: None)

    assert funnel is not None
    assert funnel.description.engagement == "clicked"


def test_funnel_serves_unless_the_one_model_is_clearly_better() -> None:
    """Log loss of rare orders hardly differs, so the funnel serves; a one model that is far nearer takes over."""
    data = shop(8_000)
    y = data.response

    fitted = fit(data, HYPER, "shop", lambda _: None)

    assert set(fitted.stage_texts) == {"engage", "engaged_order", "organic"}
    assert fitted.description.funnel is not None
    assert {"later.logloss_of_funnel", "later.logloss_of_one_model", "funnel.scale"} <= set(fitted.metrics)
    assert is_clearly_better(y, np.where(y > 0, 0.9, 0.1), np.full(len(y), 0.5))
    assert not is_clearly_better(y, np.full(len(y), 0.03), np.full(len(y), 0.03))
