"""Local time of customers: quiet hours by the wall clock of an IANA zone, safe over midnight and daylight saving.

Quiet hours are a half-open interval of wall-clock times [start, end). Where the clock goes back and shows an hour twice, both
are judged by what the clock shows; where it skips forward, the first instant after the gap ends quiet hours that end in it.
"""

from datetime import UTC, datetime, time, timedelta
from functools import lru_cache
from zoneinfo import ZoneInfo

from models.rules import QuietHours


@lru_cache(maxsize=1024)
def zone(name: str) -> ZoneInfo:
    """Return the IANA zone of that name; raises zoneinfo.ZoneInfoNotFoundError or ValueError where there is none."""
    return ZoneInfo(name)


def is_quiet(moment: datetime, where: ZoneInfo, quiet: QuietHours) -> bool:
    """Tell whether the wall clock at that moment is within quiet hours."""
    return _within(moment.astimezone(where).time(), quiet.start, quiet.end)


def next_loud(moment: datetime, where: ZoneInfo, quiet: QuietHours) -> datetime:
    """Return the first moment at or after this one that is outside quiet hours."""
    return _next_boundary(moment, where, quiet) if is_quiet(moment, where, quiet) else moment


def next_quiet(moment: datetime, where: ZoneInfo, quiet: QuietHours) -> datetime:
    """Return the first moment at or after this one that is within quiet hours."""
    return moment if is_quiet(moment, where, quiet) else _next_boundary(moment, where, quiet)


def _within(clock: time, start: time, end: time) -> bool:
    return start <= clock < end if start < end else clock >= start or clock < end


def _next_boundary(moment: datetime, where: ZoneInfo, quiet: QuietHours) -> datetime:
    """Return the first moment after this one at which being quiet turns."""
    day = moment.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    while True:
        for turn in _turns_of_day(day, where, quiet):
            if turn > moment:
                return turn
        day += timedelta(days=1)


@lru_cache(maxsize=65536)
def _turns_of_day(day: datetime, where: ZoneInfo, quiet: QuietHours) -> tuple[datetime, ...]:
    """Return the moments of a day in UTC at which being quiet turns, in order.

    It can turn only at the wall times of start and end (each twice, where the clock shows it twice) and where the zone's offset
    jumps; each of these moments is compared with the one just before it.
    """
    end = day + timedelta(days=1)
    candidates = {_offset_jump(day, where)}
    for local_day in {day.astimezone(where).date(), end.astimezone(where).date()}:
        for wall in (quiet.start, quiet.end):
            for fold in (0, 1):
                candidates.add(datetime.combine(local_day, wall, where).replace(fold=fold).astimezone(UTC))
    before = timedelta(microseconds=1)
    return tuple(
        moment
        for moment in sorted(c for c in candidates if c is not None)
        if day <= moment < end and is_quiet(moment, where, quiet) != is_quiet(moment - before, where, quiet)
    )


def _offset_jump(day: datetime, where: ZoneInfo) -> datetime | None:
    """Return the second within a day in UTC at which the zone's offset changes, None where it does not."""
    low, high = day, day + timedelta(days=1)
    if low.astimezone(where).utcoffset() == high.astimezone(where).utcoffset():
        return None
    while high - low > timedelta(seconds=1):
        middle = (low + (high - low) / 2).replace(microsecond=0)
        if middle.astimezone(where).utcoffset() == low.astimezone(where).utcoffset():
            low = middle
        else:
            high = middle
    return high
