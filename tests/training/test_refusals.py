"""Refusals are rare: with few of them the stage looks at message and contacts alone, and takes it that contacts tire until the log says otherwise."""

import numpy as np
import pytest

from models.curves import FunnelModel
from models.features import NO_SEND, Column
from tests.training.examples import dataset_of
from tests.training.test_funnel import HYPER, later_of, model_of
from training.dataset import Dataset
from training.funnel import fit_funnel

CHANNELS = (NO_SEND, "push")
DECISIONS = 12_000


def shop(rate: float, power: float, seed: int = 0) -> Dataset:
    """Sends of which half are noticed and a fifth of those clicked; the others refuse with this chance, times (1 + contacts in a week) ^ power."""
    rng = np.random.default_rng(seed)
    channel, contacts = rng.integers(2, size=DECISIONS), rng.poisson(1.5, size=DECISIONS)
    seen = (channel == 1) & (rng.random(DECISIONS) < 0.5)
    clicked = seen & (rng.random(DECISIONS) < 0.2)
    refused = seen & ~clicked & (rng.random(DECISIONS) < rate * (1.0 + contacts) ** power)
    return dataset_of(
        columns=(
            Column(name="channel", kind="category", categories=CHANNELS),
            Column(name="contacts_7d", kind="number"),
            Column(name="x.noise", kind="number"),
        ),
        matrix=np.column_stack([channel, contacts, rng.normal(size=DECISIONS)]).astype(np.float64),
        decide_time=np.int64(1_700_000_000_000_000) + 3_600_000_000 * np.arange(DECISIONS, dtype=np.int64),
        channel=np.array(CHANNELS)[channel],
        propensity=np.full(DECISIONS, 0.5),
        response=(rng.random(DECISIONS) < np.where(clicked, 0.3, 0.03)).astype(np.float64),
        seen_hours=np.where(seen, rng.exponential(4.0, size=DECISIONS), np.nan),
        clicked_hours=np.where(clicked, 8.0, np.nan),
        unsubscribed=refused.astype(np.float64),
        delivered=np.ones(DECISIONS),
        digest="refusals",
    )


def learned(data: Dataset) -> FunnelModel:
    found = fit_funnel(data, later_of(data), HYPER, lambda _: None)
    assert found is not None
    return model_of(found)


def odds(model: FunnelModel, contacts: float, noise: float = 0.0) -> float:
    return float(np.exp(model.scores("unsubscribe", np.array([[1.0, contacts, noise]]))[0]))


@pytest.mark.parametrize("seed", range(3))
def test_few_refusals_tire_as_the_log_cannot_say_yet(seed: int) -> None:
    """Of some 60 refusals the slope has a standard error of 0.3: alone they could not say whether contacts tire; odds after six contacts are within
    three of the truth, and clearly above those after none."""
    data = shop(0.016, 0.5, seed)
    assert data.unsubscribed.sum() < 100

    model = learned(data)

    assert np.log(odds(model, 6) / odds(model, 0)) == pytest.approx(0.5 * np.log(7), abs=0.9 * 0.5 * np.log(7))
    assert odds(model, 6) > 1.5 * odds(model, 0)


def test_few_refusals_are_not_explained_by_what_customers_are_like() -> None:
    """A caller's feature has no say in refusals while there are less than 300 of them."""
    model = learned(shop(0.016, 0.5))

    assert odds(model, 1, noise=3.0) == odds(model, 1, noise=-3.0)


def test_many_refusals_that_do_not_tire_overrule_the_assumption() -> None:
    """Of a thousand refusals, as frequent after many contacts as after none, the assumption is gone: the slope has a standard error of 0.08."""
    data = shop(0.4, 0.0)
    assert data.unsubscribed.sum() > 900

    model = learned(data)

    assert abs(np.log(odds(model, 6) / odds(model, 0))) < 3 * 0.08 * np.log(7)
