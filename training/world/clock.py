"""The world's clock: whole hours since START, a Monday at midnight in UTC.

Everything happens in cells of one hour. A send at hour t can be seen from cell t on; what happens in a cell is known from the next
hour on. The truth is this discrete process, not an approximation of a continuous one, so that sums over cells are exact.
"""

from datetime import UTC, datetime, timedelta

START = datetime(2026, 9, 7, tzinfo=UTC)
WEEK = 168
"""Hours of a week; an hour of the week counts from Monday 00:00 of the local clock."""
HOUR = timedelta(hours=1)
HALF_HOUR = HOUR / 2
EPOCH_HOURS = int(START.timestamp()) // 3600
"""Hours from 1970 to START."""


def to_hour(moment: datetime) -> int:
    """Return the first whole hour since START at or after a moment."""
    return -((START - moment) // HOUR)


def to_time(hour: float) -> datetime:
    """Return the moment of an hour since START."""
    return START + timedelta(hours=hour)
