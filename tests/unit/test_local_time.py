"""Local time: quiet hours over midnight, daylight saving and odd offsets."""

from datetime import UTC, datetime, time, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from models.local_time import is_quiet, next_loud, next_quiet, zone
from models.rules import QuietHours

ZONES = (
    "UTC",
    "Europe/Berlin",
    "America/Sao_Paulo",
    "America/Santiago",
    "America/St_Johns",
    "Asia/Kathmandu",
    "Asia/Tehran",
    "Asia/Gaza",
    "Australia/Lord_Howe",
    "Africa/Cairo",
    "Africa/Casablanca",
    "Pacific/Apia",
    "Pacific/Chatham",
    "Pacific/Kiritimati",
    "Antarctica/Troll",
    "Europe/Moscow",
    "Asia/Pyongyang",
)
MICROSECOND = timedelta(microseconds=1)
MINUTE = timedelta(minutes=1)
OVER_MIDNIGHT = QuietHours(start=time(21, 30), end=time(9, 0))


def clocks() -> st.SearchStrategy[time]:
    return st.times().map(lambda t: t.replace(second=0, microsecond=0))


def quiet_hours() -> st.SearchStrategy[QuietHours]:
    windows = st.builds(lambda start, end: QuietHours(start=start, end=end), clocks(), clocks())
    return windows.filter(lambda quiet: quiet.start != quiet.end)


def moments() -> st.SearchStrategy[datetime]:
    """Moments of all years, and many within a day of a change of some clock."""
    changes = [
        utc(2011, 12, 30, 10),
        utc(2018, 11, 4, 3),
        utc(2026, 3, 29, 1),
        utc(2026, 10, 25, 1),
        utc(2026, 4, 4, 15),
        utc(2026, 10, 3, 15, 30),
        utc(2018, 5, 4, 15),
    ]
    near = st.builds(
        lambda change, seconds: change + timedelta(seconds=seconds),
        st.sampled_from(changes),
        st.integers(-86_400, 86_400),
    )
    anywhere = st.datetimes(datetime(1972, 1, 1), datetime(2060, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001 hypothesis wants naive bounds
    return near | anywhere


def utc(year: int, month: int, day: int, hour: int = 0, minute: int = 0) -> datetime:
    return datetime(year, month, day, hour, minute, tzinfo=UTC)


@pytest.mark.parametrize(
    ("clock", "expected"),
    [("21:29", False), ("21:30", True), ("23:59", True), ("00:00", True), ("08:59", True), ("09:00", False)],
)
def test_window_over_midnight_is_half_open(clock: str, expected: bool) -> None:
    """Quiet hours over midnight begin with their start and are over at their end."""
    moment = datetime.fromisoformat(f"2026-11-04T{clock}:00+03:00")

    assert is_quiet(moment, zone("Europe/Moscow"), OVER_MIDNIGHT) is expected


def test_window_up_to_midnight_ends_there() -> None:
    """Quiet hours that end at 00:00 are over when the day turns."""
    quiet = QuietHours(start=time(22), end=time(0))
    where = zone("Asia/Kathmandu")

    assert next_loud(utc(2026, 1, 1, 17), where, quiet) == utc(2026, 1, 1, 18, 15)
    assert next_quiet(utc(2026, 1, 1, 18, 15), where, quiet) == utc(2026, 1, 2, 16, 15)


def test_quiet_hours_that_end_in_a_gap_end_after_it() -> None:
    """Where 02:00 skips to 03:00, quiet hours until 02:30 are over at the skip."""
    quiet = QuietHours(start=time(0), end=time(2, 30))

    assert next_loud(utc(2026, 3, 29, 0, 30), zone("Europe/Berlin"), quiet) == utc(2026, 3, 29, 1)


def test_quiet_hours_that_start_in_a_gap_start_after_it() -> None:
    """Where 02:00 skips to 03:00, quiet hours from 02:30 begin at the skip."""
    quiet = QuietHours(start=time(2, 30), end=time(9))

    assert next_quiet(utc(2026, 3, 29, 0, 30), zone("Europe/Berlin"), quiet) == utc(2026, 3, 29, 1)


def test_quiet_hours_within_a_gap_do_not_happen() -> None:
    """Quiet hours that lie within the skipped hour leave that day out."""
    quiet = QuietHours(start=time(2, 10), end=time(2, 50))

    assert next_quiet(utc(2026, 3, 29), zone("Europe/Berlin"), quiet) == utc(2026, 3, 30, 0, 10)


def test_quiet_hours_within_a_repeated_hour_happen_twice() -> None:
    """Where the clock shows 02:00 to 03:00 twice, quiet hours in it happen twice."""
    quiet = QuietHours(start=time(2, 15), end=time(2, 45))
    where = zone("Europe/Berlin")

    assert next_loud(utc(2026, 10, 25, 0, 20), where, quiet) == utc(2026, 10, 25, 0, 45)
    assert next_quiet(utc(2026, 10, 25, 0, 45), where, quiet) == utc(2026, 10, 25, 1, 15)
    assert next_loud(utc(2026, 10, 25, 1, 15), where, quiet) == utc(2026, 10, 25, 1, 45)


def test_quiet_hours_that_end_in_a_repeated_hour_begin_again_with_it() -> None:
    """Quiet hours until 02:30 are over, begin again when the clock goes back to 02:00, and are over again."""
    quiet = QuietHours(start=time(22), end=time(2, 30))
    where = zone("Europe/Berlin")

    assert next_loud(utc(2026, 10, 25), where, quiet) == utc(2026, 10, 25, 0, 30)
    assert next_quiet(utc(2026, 10, 25, 0, 30), where, quiet) == utc(2026, 10, 25, 1)
    assert next_loud(utc(2026, 10, 25, 1), where, quiet) == utc(2026, 10, 25, 1, 30)


def test_day_without_midnight_ends_quiet_hours_at_its_first_instant() -> None:
    """Where midnight itself is skipped, quiet hours until 00:30 are over at 01:00, the first instant of the day."""
    quiet = QuietHours(start=time(22), end=time(0, 30))

    loud = next_loud(utc(2018, 11, 4, 2), zone("America/Sao_Paulo"), quiet)

    assert loud == utc(2018, 11, 4, 3)
    assert loud.astimezone(zone("America/Sao_Paulo")).time() == time(1)


def test_skipped_calendar_day_is_passed_over() -> None:
    """Where a whole day is left out of the calendar, the night before it and the morning after it are one."""
    night = QuietHours(start=time(22), end=time(8))

    loud = next_loud(utc(2011, 12, 30, 9), zone("Pacific/Apia"), night)

    assert loud == utc(2011, 12, 30, 18)


def test_change_of_half_an_hour_is_seen() -> None:
    """Where the clock moves by half an hour, quiet hours end by what it then shows."""
    quiet = QuietHours(start=time(0), end=time(2, 15))

    assert next_loud(utc(2026, 10, 3, 15), zone("Australia/Lord_Howe"), quiet) == utc(2026, 10, 3, 15, 30)


def test_zone_is_unknown_by_name() -> None:
    """A zone that does not exist is an error, not UTC."""
    with pytest.raises(KeyError):
        zone("Europe/Moskva")


@example(moment=utc(2011, 12, 30, 9), name="Pacific/Apia", quiet=QuietHours(start=time(23), end=time(22)))
@example(moment=utc(2026, 10, 25), name="Europe/Berlin", quiet=QuietHours(start=time(2, 59), end=time(2)))
@given(moment=moments(), name=st.sampled_from(ZONES), quiet=quiet_hours())
def test_next_loud_is_the_first_loud_moment(moment: datetime, name: str, quiet: QuietHours) -> None:
    """The next loud moment is loud, not before the moment asked for, and all between them is quiet."""
    where = zone(name)

    loud = next_loud(moment, where, quiet)

    assert loud >= moment
    assert not is_quiet(loud, where, quiet)
    assert all(is_quiet(between, where, quiet) for between in _between(moment, loud))


@example(moment=utc(2026, 3, 29), name="Europe/Berlin", quiet=QuietHours(start=time(2), end=time(3)))
@given(moment=moments(), name=st.sampled_from(ZONES), quiet=quiet_hours())
def test_next_quiet_is_the_first_quiet_moment(moment: datetime, name: str, quiet: QuietHours) -> None:
    """The next quiet moment is quiet, not before the moment asked for, and all between them is loud."""
    where = zone(name)

    quiet_from = next_quiet(moment, where, quiet)

    assert quiet_from >= moment
    assert is_quiet(quiet_from, where, quiet)
    assert not any(is_quiet(between, where, quiet) for between in _between(moment, quiet_from))


@given(moment=moments(), name=st.sampled_from(ZONES), quiet=quiet_hours())
def test_answer_is_the_same_in_any_zone_of_the_asker(moment: datetime, name: str, quiet: QuietHours) -> None:
    """The moment found does not depend on the zone in which the moment asked for is written."""
    elsewhere = moment.astimezone(ZoneInfo("Asia/Tokyo"))

    assert next_loud(elsewhere, zone(name), quiet) == next_loud(moment, zone(name), quiet)
    assert next_quiet(elsewhere, zone(name), quiet) == next_quiet(moment, zone(name), quiet)


def _between(begin: datetime, end: datetime) -> list[datetime]:
    """Return every seventh minute of [begin, end), and the edges."""
    if begin == end:
        return []
    count = int((end - begin) / MINUTE)
    return [begin, *(begin + n * MINUTE for n in range(0, count, 7)), end - MICROSECOND]
