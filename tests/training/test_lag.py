"""Lags: how long sends keep being noticed, found again from simulated ones."""

import math
from dataclasses import replace
from functools import lru_cache

import numpy as np
import pytest
from numpy.typing import NDArray

from models.curves import AGE_BINS, AGES, HOUR_BINS, ChannelLag, age_bins, hour_bins
from models.features import Column
from models.rhythm import WEEK, Rhythms, RhythmTypes, hours_of_week
from tests.training.examples import dataset_of
from training.dataset import Dataset
from training.lag import (
    blocks,
    exposures,
    exposures_of,
    fit_lag,
    hazards,
    noticed_by_cell,
    noticed_in_time,
    thin,
    unroll,
)

FloatArray = NDArray[np.float64]
MORNING = tuple(3.0 if hour % 24 in range(6, 12) else 1 / 3 for hour in range(WEEK))
EVENING = tuple(MORNING[(hour + 12) % WEEK] for hour in range(WEEK))
RHYTHMS = Rhythms(RhythmTypes(shares=(0.5, 0.5), weeks=(MORNING, EVENING), own_weight=1e6))
ZONE = "Europe/Moscow"
LOUD = 3
"""Bin of the week in which the planted channel is noticed more than the rhythm says."""
PLANTED = ChannelLag(
    log_keep=tuple(-1.5 - 0.25 * i for i in range(AGE_BINS)),
    power=0.6,
    log_hours=tuple(0.8 if i == LOUD else 0.0 for i in range(HOUR_BINS)),
)
SENDS = 12_000
START = 490_000.0
"""Hours since 1970."""


def sends(
    seen_hours: FloatArray,
    start: FloatArray | None = None,
    active: list[tuple[int, ...]] | None = None,
    **changes: float,
) -> Dataset:
    """Return sends by push at these hours since 1970, noticed so long after; each message lives 48 hours unless said otherwise."""
    n = len(seen_hours)
    start = np.full(n, START) if start is None else start
    found = dataset_of(
        columns=(Column(name="channel", kind="category", categories=("push",)),),
        matrix=np.zeros((n, 1)),
        decide_time=np.round(start * 3.6e9).astype(np.int64),
        channel=np.full(n, "push"),
        propensity=np.ones(n),
        response=np.zeros(n),
        digest="sends",
        seen_hours=seen_hours,
        lifetime_hours=changes.get("lifetime_hours", 48.0),
    )
    window = changes.get("window_hours", math.inf)
    return replace(
        found,
        active_hours=((),) * n if active is None else tuple(active),
        window_hours=window,
        watched_hours=np.full(n, window),
    )


@lru_cache(maxsize=1)
def simulated(seed: int = 0) -> Dataset:
    """Simulate sends at any minute of the week to morning and evening people, noticed by the planted lag."""
    rng = np.random.default_rng(seed)
    start = START + rng.uniform(0, 8 * WEEK, SENDS)
    clock = hours_of_week(np.arange(int(START) - 4 * WEEK, int(START)), ZONE)
    of_type = [
        tuple(int(START) - 4 * WEEK + int(i) for i in np.flatnonzero(np.isin(clock % 24, hours))[:80])
        for hours in (range(6, 12), range(18, 24))
    ]
    active = [of_type[i] for i in rng.integers(2, size=SENDS)]
    nobody = sends(np.full(SENDS, np.nan), start, active, lifetime_hours=float(AGES))
    cells = unroll(nobody, np.ones(SENDS, dtype=bool), RHYTHMS, to_expiry=True)
    chance = noticed_by_cell(cells, hazards(cells, {"push": PLANTED}, nobody))
    u = rng.random(SENDS)
    seen = np.full(SENDS, np.nan)
    first = np.flatnonzero(np.diff(cells.send, prepend=-1))
    for i, rows in enumerate(np.split(chance, first[1:])):
        cell = int(np.searchsorted(np.cumsum(rows), u[i]))
        if cell < len(rows):
            seen[i] = cell + rng.random()
    return sends(seen, start, active, lifetime_hours=float(AGES))


def test_planted_lag_is_found_again() -> None:
    """Rates by age, power and hours come out within five standard errors, as the events in each give them, and what the ridge draws."""
    data = simulated()
    cells = unroll(data, np.ones(SENDS, dtype=bool), RHYTHMS)

    found = fit_lag(cells, np.ones(len(cells.send), dtype=bool), np.zeros(SENDS))

    noticed = cells.is_noticed > 0
    events = np.bincount(age_bins(cells.age[noticed].astype(np.intp)), minlength=AGE_BINS)
    assert events.sum() == pytest.approx((~np.isnan(data.seen_hours)).sum())
    errors = np.array(found.log_keep) - np.array(PLANTED.log_keep)
    assert np.all(np.abs(errors) < 5 / np.sqrt(events) + 0.1)
    spread = float(np.var(cells.log_rhythm[noticed]))
    assert found.power == pytest.approx(0.6, abs=5 / np.sqrt(events.sum() * spread) + 0.02)
    by_hour = np.bincount(hour_bins(cells.hour[noticed].astype(np.intp)), minlength=HOUR_BINS)
    assert np.all(np.abs(np.array(found.log_hours) - PLANTED.log_hours) < 5 / np.sqrt(by_hour) + 20 / by_hour)


def test_attention_is_taken_off_before_the_lag_is_fitted() -> None:
    """Twice the attention for all sends halves the rates by age, and leaves power and hours."""
    data = simulated()
    cells = unroll(data, np.ones(SENDS, dtype=bool), RHYTHMS)
    every = np.ones(len(cells.send), dtype=bool)

    plain, twice = fit_lag(cells, every, np.zeros(SENDS)), fit_lag(cells, every, np.full(SENDS, math.log(2)))

    np.testing.assert_allclose(np.array(plain.log_keep) - twice.log_keep, math.log(2), atol=0.01)
    assert twice.power == pytest.approx(plain.power, abs=0.01)


def test_send_that_nobody_noticed_is_open_until_its_expiry() -> None:
    """A send has a cell for each hour of its message's life, the last for what is left of it."""
    cells = unroll(sends(np.array([np.nan]), lifetime_hours=2.25), np.ones(1, dtype=bool), RHYTHMS)

    assert cells.age.tolist() == [0, 1, 2]
    assert cells.weight.tolist() == pytest.approx([1, 1, 0.25])
    assert not cells.is_noticed.any()


def test_send_that_was_noticed_ends_there() -> None:
    """The cell of the notice is the last, half of it at risk."""
    cells = unroll(sends(np.array([1.7])), np.ones(1, dtype=bool), RHYTHMS)

    assert cells.age.tolist() == [0, 1]
    assert cells.weight.tolist() == [1, 0.5]
    assert cells.is_noticed.tolist() == [0, 1]


@pytest.mark.parametrize(
    ("seen", "lives", "window"), [(5.5, 3.0, math.inf), (80.0, 500.0, math.inf), (np.nan, 48.0, 3.0)]
)
def test_late_notices_and_unwatched_hours_do_not_count(seen: float, lives: float, window: float) -> None:
    """Noticed after the expiry or three days is not noticed; hours after the window of the decision are not watched."""
    cells = unroll(sends(np.array([seen]), lifetime_hours=lives, window_hours=window), np.ones(1, dtype=bool), RHYTHMS)

    assert not cells.is_noticed.any()
    assert len(cells.age) == min(lives, window, AGES)


def test_window_does_not_shorten_what_is_still_to_come() -> None:
    """To the expiry means to the expiry, whatever was watched."""
    data = sends(np.array([1.0]), lifetime_hours=6.0, window_hours=3.0)

    cells = unroll(data, np.ones(1, dtype=bool), RHYTHMS, to_expiry=True)

    assert len(cells.age) == 6
    assert not cells.is_noticed.any()


def test_rates_are_not_biased_by_the_end_of_the_window() -> None:
    """Sends late in their windows teach the same rates as others, since hours that nobody watched are not taken for hours unnoticed."""
    data = simulated()
    late = replace(
        data,
        decide_time=data.decide_time - 60 * 3_600_000_000,
        window_hours=72.0,
        watched_hours=np.full(SENDS, 72.0),
        seen_hours=np.where(data.seen_hours < 12, data.seen_hours, np.nan),
    )
    cells = unroll(late, np.ones(SENDS, dtype=bool), RHYTHMS)

    found = fit_lag(cells, np.ones(len(cells.send), dtype=bool), np.zeros(SENDS))

    events = np.bincount(age_bins(cells.age[cells.is_noticed > 0].astype(np.intp)), minlength=AGE_BINS)
    known = events > 50
    assert known.sum() >= 6
    errors = (np.array(found.log_keep) - np.array(PLANTED.log_keep))[known]
    assert np.all(np.abs(errors) < 5 / np.sqrt(events[known]) + 0.1)


def test_exposures_are_sums_of_hazards_by_send() -> None:
    """A decision's exposure is the sum of its cells' hazards; one of another channel has none."""
    data = sends(np.array([np.nan, 3.2]), lifetime_hours=10.0)
    cells = unroll(data, np.ones(2, dtype=bool), RHYTHMS)

    total = exposures(cells, {"push": PLANTED}, data)

    rate = hazards(cells, {"push": PLANTED}, data)
    assert total == pytest.approx([rate[cells.send == 0].sum(), rate[cells.send == 1].sum()])
    assert not exposures(cells, {"sms": PLANTED}, data).any()


def test_chances_by_cell_add_up_to_that_of_the_sum() -> None:
    """P(noticed in cell) adds up, send by send, to 1 - exp(-cumulative hazard)."""
    data = sends(np.full(3, np.nan), start=START + np.array([0.0, 5.3, 9.9]))
    cells = unroll(data, np.ones(3, dtype=bool), RHYTHMS, to_expiry=True)
    hazard = hazards(cells, {"push": PLANTED}, data)

    found = np.bincount(cells.send, noticed_by_cell(cells, hazard))

    np.testing.assert_allclose(found, 1 - np.exp(-np.bincount(cells.send, hazard)), rtol=1e-9)


def test_blocks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Cells and exposures of sends that are unrolled a few at a time are those of all at once."""
    data = simulated()
    used = np.arange(SENDS) % 3 > 0
    whole = unroll(data, used, RHYTHMS)
    total = exposures(whole, {"push": PLANTED}, data)
    monkeypatch.setattr("training.lag.BLOCK", 500)

    parts = [unroll(data, block, RHYTHMS) for block in blocks(used)]

    assert len(parts) == SENDS // 500
    for name in ("send", "age", "hour", "log_rhythm", "weight", "is_noticed"):
        np.testing.assert_allclose(np.concatenate([getattr(part, name) for part in parts]), getattr(whole, name))
    np.testing.assert_allclose(exposures_of(data, used, RHYTHMS, {"push": PLANTED}), total)
    np.testing.assert_array_equal(
        noticed_in_time(data, used), np.bincount(whole.send, whole.is_noticed, minlength=SENDS)
    )


def test_no_channel_has_more_sends_than_needed() -> None:
    """Of a channel with more sends than asked for, evenly some are taken; one with fewer has them all."""
    channel = np.array(["push"] * 100 + ["sms"] * 10 + ["push"] * 100)
    used = np.ones(210, dtype=bool)
    used[:3] = False

    found = thin(channel, used, most=50)

    assert found[channel == "sms"].all()
    assert np.diff(np.flatnonzero(found & (channel == "push"))[:25]).tolist() == [4] * 24
    assert (found & (channel == "push")).sum() == 50
    assert not found[:3].any()
