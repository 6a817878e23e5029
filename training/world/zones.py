"""Time zones of the customers, and what the local clock shows in any hour; two of them change their clocks.

Offsets are those of the zone in that hour, from the IANA database. All are whole hours, and clocks change at whole hours, so that a cell
of the world is one hour of the local clock: an hour that is shown twice has two cells, one that is skipped has none.
"""

from datetime import timedelta
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from models.local_time import zone as read_zone
from training.world.clock import WEEK, to_time

IntArray = NDArray[np.int64]

ZONES = (
    "Europe/Kaliningrad",
    "Europe/Moscow",
    "Asia/Yekaterinburg",
    "Asia/Novosibirsk",
    "Asia/Vladivostok",
    "Europe/Berlin",
    "America/New_York",
)
COUNTRIES = ("RU", "RU", "RU", "RU", "RU", "DE", "US")
HOME_SHARES = (0.08, 0.5, 0.2, 0.14, 0.08, 0.0, 0.0)
"""Of customers, by zone; none of these zones changes its clock."""
CHANGING_SHARES = (0.03, 0.2, 0.08, 0.06, 0.03, 0.4, 0.2)
"""The same with 60 % of customers where clocks change."""
_DAYS_BEFORE, _DAYS_AFTER = 366, 30 * 366
"""Days around START whose changes are known."""


@lru_cache(maxsize=len(ZONES))
def _offsets(zone: int) -> tuple[IntArray, IntArray]:
    """Return the hours since START from which an offset holds, and the offsets, one more: the first holds before all."""
    where = read_zone(ZONES[zone])

    def ahead(hour: int) -> int:
        offset = to_time(hour).astimezone(where).utcoffset()
        assert offset is not None  # of an aware time
        return offset // timedelta(hours=1)

    changes: list[int] = []
    offsets = [ahead(-24 * _DAYS_BEFORE)]
    for day in range(-_DAYS_BEFORE, _DAYS_AFTER):
        if ahead(24 * (day + 1)) != offsets[-1]:
            changes.append(next(hour for hour in range(24 * day, 24 * day + 25) if ahead(hour) != offsets[-1]))
            offsets.append(ahead(24 * (day + 1)))
    return np.array(changes, dtype=np.int64), np.array(offsets, dtype=np.int64)


def week_hours(zone: int, hours: IntArray) -> IntArray:
    """Return the hour of the local week, 0 to 167 from Monday 00:00, of hours since START."""
    changes, offsets = _offsets(zone)
    return np.asarray((hours + offsets[np.searchsorted(changes, hours, side="right")]) % WEEK)


def week_hours_of_all(hours: IntArray) -> IntArray:
    """Return the hours of the local week in every zone, (Z, *hours.shape)."""
    return np.stack([week_hours(zone, hours) for zone in range(len(ZONES))])


def next_change_day(hour: int) -> int:
    """Return the first midnight in UTC at or after an hour, both since START, of a day on which clocks change in some zone."""
    known = np.concatenate([_offsets(zone)[0] for zone in range(len(ZONES))])
    days = 24 * (known // 24)
    return int(days[days >= hour].min())
