"""Rhythms: the hour of the local week, and a customer's week beside the typical ones."""

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from models.rhythm import WEEK, Rhythms, RhythmTypes, count_week, count_weeks, hours_of_week, smooth_week

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
ZONES = (
    "UTC",
    "Europe/Moscow",
    "Europe/Berlin",
    "America/New_York",
    "Asia/Kolkata",
    "Australia/Lord_Howe",
    "Pacific/Apia",
)
MORNING = tuple(3.0 if hour % 24 in range(6, 12) else 1 / 3 for hour in range(WEEK))
EVENING = tuple(MORNING[(hour + 12) % WEEK] for hour in range(WEEK))
TYPES = RhythmTypes(shares=(0.75, 0.25), weeks=(MORNING, EVENING), own_weight=20.0)
RHYTHMS = Rhythms(TYPES)


def hour_of(moment: datetime) -> int:
    return (moment - EPOCH) // timedelta(hours=1)


@given(hour=st.integers(0, 700_000), zone=st.sampled_from(ZONES))
def test_hour_is_what_the_clock_shows_in_its_middle(hour: int, zone: str) -> None:
    """For any hour and zone the hour of the week is that of the wall clock half an hour in, a half hour counting as a whole one."""
    found = int(hours_of_week([hour], zone)[0])

    middle = (EPOCH + timedelta(hours=hour, minutes=30)).astimezone(ZoneInfo(zone))
    assert found == middle.weekday() * 24 + middle.hour


@pytest.mark.parametrize(
    ("change", "jump"),
    [(datetime(2026, 3, 29, 1, tzinfo=UTC), 2), (datetime(2026, 10, 25, 1, tzinfo=UTC), 0)],
)
def test_clock_change_skips_an_hour_or_shows_one_twice(change: datetime, jump: int) -> None:
    """In Berlin the hour before the change and the one after are two apart in spring and the same in autumn."""
    first = hour_of(change) - 3

    found = hours_of_week(range(first, first + 6), "Europe/Berlin")

    assert np.diff(found).tolist() == [1, 1, jump, 1, 1]


def test_hours_of_many_years_are_those_of_each() -> None:
    """Hours in any order and far apart are told each by its own offset."""
    hours = [hour_of(datetime(year, month, 1, tzinfo=UTC)) for year in (2026, 1999, 2010) for month in (7, 1)]

    together = hours_of_week(hours, "America/New_York")

    assert together.tolist() == [int(hours_of_week([hour], "America/New_York")[0]) for hour in hours]


def test_week_counts_each_active_hour_once() -> None:
    """Counts are by hour of the local week; nothing counted is a week of zeros."""
    monday = hour_of(datetime(2026, 11, 2, 6, tzinfo=UTC))  # 9 in Moscow

    found = count_week([monday, monday + WEEK, monday + 1], "Europe/Moscow")

    assert (found[9], found[10], found.sum()) == (2, 1, 3)
    assert not count_week([], "Europe/Moscow").any()


def test_unknown_zone_is_named() -> None:
    """A zone that does not exist is an error that names it."""
    with pytest.raises(ZoneInfoNotFoundError, match="Mars/Olympus"):
        hours_of_week([1], "Mars/Olympus")


def test_smoothing_keeps_the_sum_and_the_sort_of_day() -> None:
    """Counts are spread over neighbouring hours and days of the same sort; none is lost, and none reaches the other sort."""
    counts = np.zeros(WEEK)
    counts[2 * 24] = 5.0

    found = smooth_week(counts).reshape(7, 24)

    np.testing.assert_allclose(found[:5, [23, 0, 1]], [[0.1, 0.8, 0.1]] * 5, rtol=1e-12)
    assert found.sum() == pytest.approx(5.0)
    assert not found[5:].any()


def test_unknown_customer_has_the_mix_of_the_typical_weeks() -> None:
    """Without any active hour a rhythm is the mean of the types by their shares."""
    found = RHYTHMS.of(np.zeros(WEEK))

    np.testing.assert_allclose(found, 0.75 * np.array(MORNING) + 0.25 * np.array(EVENING), rtol=1e-12)


def test_some_hours_tell_the_type() -> None:
    """Ten evenings make a customer of the evening type, whose other hours then count as that type's."""
    found = RHYTHMS.of(_evenings(10))

    assert found[20] > 5 * found[8]
    assert found[20] > 2.5


def test_very_active_customer_has_their_own_week() -> None:
    """With a hundred times the weight of the types, the rhythm is within a few hundredths of the customer's own smoothed week."""
    counts = np.zeros(WEEK)
    counts[3::24] = 2000 / 7

    found = RHYTHMS.of(counts)

    own = smooth_week(counts) * WEEK / counts.sum()
    assert np.abs(found - own).max() < 0.03 * own.max()
    assert found[3] > 15


@given(st.lists(st.integers(0, WEEK - 1), max_size=300))
def test_rhythm_has_a_mean_of_one_and_no_dead_hour(hours: list[int]) -> None:
    """However a customer was active, attention averages to 1, and no hour is without any."""
    found = RHYTHMS.of(np.bincount(np.array(hours, dtype=np.intp), minlength=WEEK).astype(np.float64))

    assert found.mean() == pytest.approx(1.0, rel=1e-9)
    assert found.min() > 0


def test_many_customers_are_as_each_alone() -> None:
    """Rhythms of many customers at once are those of each."""
    counts = np.array([_evenings(0), _evenings(3), _evenings(40)])

    np.testing.assert_allclose(RHYTHMS.of(counts), [RHYTHMS.of(row) for row in counts], rtol=1e-12)


def _evenings(days: int) -> NDArray[np.float64]:
    counts = np.zeros(WEEK)
    for day in range(days):
        counts[day % 7 * 24 + 20] += 1
    return counts


@given(
    customers=st.lists(
        st.tuples(st.lists(st.integers(400_000, 500_000), max_size=6), st.sampled_from(ZONES)), min_size=1, max_size=5
    )
)
def test_weeks_of_many_are_those_of_each(customers: list[tuple[list[int], str]]) -> None:
    """Hours of customers in several zones, some without any, are counted together as each one's."""
    hours, zones = [active for active, _ in customers], [zone for _, zone in customers]

    found = count_weeks(hours, zones)

    np.testing.assert_array_equal(found, [count_week(active, zone) for active, zone in customers])
