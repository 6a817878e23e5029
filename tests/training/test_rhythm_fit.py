"""Typical weeks found again from customers' activity."""

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from models.features import NO_SEND, Column
from models.rhythm import WEEK, Rhythms, count_week
from tests.training.examples import dataset_of
from training.dataset import Dataset
from training.rhythm import count_activity, fit_rhythms

ZONE = "Europe/Moscow"
START = 490_000 // WEEK * WEEK


def shop(customers: int, hours: int, seed: int = 0, morning_share: float = 0.7) -> tuple[Dataset, NDArray[np.bool_]]:
    """Return decisions of customers, each active so often, nine times of ten in their mornings or their evenings; and who is of mornings."""
    rng = np.random.default_rng(seed)
    is_morning = rng.random(customers) < morning_share
    active = []
    for i in range(customers):
        days, at_home = rng.integers(56, size=hours), rng.random(hours) < 0.9
        clock = np.where(
            at_home, rng.integers(6, size=hours) + (3 if is_morning[i] else 15), rng.integers(24, size=hours)
        )
        active.append(tuple(sorted({START + int(d) * 24 + int(c) for d, c in zip(days, clock, strict=True)})))
    found = dataset_of(
        columns=(Column(name="channel", kind="category", categories=(NO_SEND,)),),
        matrix=np.zeros((customers, 1)),
        decide_time=np.int64(START + 60 * 24) * 3_600_000_000 + np.arange(customers),
        channel=np.full(customers, NO_SEND),
        propensity=np.ones(customers),
        response=np.zeros(customers),
        digest="shop",
    )
    return replace(found, active_hours=tuple(active)), is_morning


def test_two_kinds_of_customers_are_told_apart() -> None:
    """Of mornings and evenings in UTC, seen on Moscow's clock, each customer's rhythm peaks in their own hours."""
    data, is_morning = shop(1_500, 12)

    rhythms = Rhythms(fit_rhythms(data, seed=1)).of(count_activity(data))

    mornings = [day * 24 + hour for day in range(7) for hour in range(6, 12)]
    evenings = [day * 24 + hour for day in range(7) for hour in range(18, 24)]
    says_morning = rhythms[:, mornings].mean(axis=1) > rhythms[:, evenings].mean(axis=1)
    assert np.mean(says_morning == is_morning) > 0.97
    assert rhythms[is_morning][:, mornings].mean() > 2.5
    assert rhythms[is_morning][:, evenings].mean() < 0.7


def test_shares_of_types_are_those_of_customers() -> None:
    """A customer of whom nothing is known has the weeks of all in proportion: seven of ten are of mornings."""
    data, _ = shop(1_500, 12)

    unknown = Rhythms(fit_rhythms(data, seed=1)).of(np.zeros(WEEK)).reshape(7, 24).mean(axis=0)

    assert unknown[6:12].sum() / (unknown[6:12].sum() + unknown[18:24].sum()) == pytest.approx(0.7, abs=0.05)


def test_own_weeks_count_more_where_customers_differ_beyond_types() -> None:
    """Where everybody has hours of their own, a customer's own week is given more weight than where all are of a few types."""
    alike, _ = shop(600, 60)
    rng = np.random.default_rng(4)
    own = [tuple(sorted({START + int(d) * 24 + int(h) for d in range(56)})) for h in rng.integers(24, size=600)]

    of_types, of_persons = fit_rhythms(alike, seed=1), fit_rhythms(replace(alike, active_hours=tuple(own)), seed=1)

    assert of_persons.own_weight < of_types.own_weight


@pytest.mark.parametrize("customers", [1, 5])
def test_nobody_active_gives_one_flat_week(customers: int) -> None:
    """Where no activity is known there is one type, every hour alike, and fitting does not fail."""
    data, _ = shop(customers, 0)

    found = fit_rhythms(data, seed=1)

    assert len(found.shares) == 1
    np.testing.assert_allclose(found.weeks[0], 1.0, atol=1e-4)


def test_types_have_weeks_of_mean_one_without_dead_hours() -> None:
    """What a bundle keeps is well formed: shares sum to 1, weeks have a mean of 1, and no hour is 0."""
    data, _ = shop(800, 20)

    found = fit_rhythms(data, seed=1)

    assert sum(found.shares) == pytest.approx(1, abs=1e-5)
    assert 1 < len(found.shares) <= 10
    assert np.mean(found.weeks, axis=1) == pytest.approx(np.ones(len(found.shares)), abs=1e-3)
    assert np.min(found.weeks) > 0


def test_latest_decision_of_a_customer_is_the_one_that_counts() -> None:
    """A customer with many decisions counts once, with what was known at the last."""
    data, _ = shop(400, 20)
    twice = replace(data, customer=np.array([f"customer-{i // 2}" for i in range(400)]))
    last = data.take(np.arange(400) % 2 == 1)

    assert fit_rhythms(twice, seed=1) == fit_rhythms(last, seed=1)


def test_same_log_gives_the_same_types() -> None:
    """The same seed finds the same types."""
    data, _ = shop(300, 20)

    assert fit_rhythms(data, seed=5) == fit_rhythms(data, seed=5)


def test_activity_is_counted_on_the_customers_clock() -> None:
    """Rows of counts are those of each decision's customer and zone."""
    data, _ = shop(3, 5)

    np.testing.assert_array_equal(count_activity(data)[1], count_week(data.active_hours[1], ZONE))
