"""When a customer is active: a week of hours, shrunk towards a few typical ones.

A rhythm is attention by hour of the local week, of mean 1. Customers are a mixture of K types with shares s_k and weeks t_k. For a customer
with n active hours of which c(h) fell into hour h of the week, of smoothed share o(h),

    weight of type k  ~ s_k exp(sum_h c(h) log t_k(h))
    rhythm(h)         = (kappa sum_k weight_k t_k(h) + n o(h)) / (kappa + n).

`kappa` says how many hours a customer must have been active until their own week counts as much as the types'.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from itertools import chain, pairwise
from typing import Annotated
from zoneinfo import ZoneInfo

import numpy as np
from numpy.typing import NDArray
from pydantic import ConfigDict, Field

from models.local_time import zone

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.intp]
WEEK = 168
_SPAN = 32 * 24
"""Hours whose offsets are looked up together."""
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_THURSDAY = 3
"""Weekday of 1970-01-01."""
_Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]


@dataclass(frozen=True, slots=True, kw_only=True)
class RhythmTypes:
    """The typical weeks. Hours of the week count from Monday 00:00 on the local clock."""

    __pydantic_config__ = ConfigDict(extra="ignore")

    shares: Annotated[tuple[_Positive, ...], Field(min_length=1)]
    weeks: tuple[Annotated[tuple[_Positive, ...], Field(min_length=WEEK, max_length=WEEK)], ...]
    """One week of 168 hours for each type, each of mean 1."""
    own_weight: _Positive
    """kappa."""


class Rhythms:
    """Rhythms of customers by the typical weeks."""

    def __init__(self, types: RhythmTypes) -> None:
        self._weeks = np.array(types.weeks)
        self._log_weeks = np.log(self._weeks)
        self._log_shares = np.log(np.array(types.shares))
        self._own_weight = types.own_weight

    def of(self, counts: FloatArray) -> FloatArray:
        """Return the rhythm of customers with these active hours by hour of the week; shapes (..., 168)."""
        score = self._log_shares + counts @ self._log_weeks.T
        weight = np.exp(score - score.max(axis=-1, keepdims=True))
        weight /= weight.sum(axis=-1, keepdims=True)
        typical = weight @ self._weeks
        total = counts.sum(axis=-1, keepdims=True)
        own = smooth_week(counts) * (WEEK / np.maximum(total, 1.0))
        found: FloatArray = (self._own_weight * typical + total * own) / (self._own_weight + total)
        return found


def _smoothing() -> FloatArray:
    """Return what each hour of the week gets from each other: 0.8 of itself and 0.1 of its neighbours, spread over days of the same sort."""
    hours = np.eye(24)
    near = 0.8 * hours + 0.1 * np.roll(hours, 1, axis=0) + 0.1 * np.roll(hours, -1, axis=0)
    same_sort = np.zeros((7, 7))
    same_sort[:5, :5], same_sort[5:, 5:] = 1 / 5, 1 / 2
    found: FloatArray = np.kron(same_sort, near).astype(np.float64)
    return found


_SMOOTHING = _smoothing()


def smooth_week(counts: FloatArray) -> FloatArray:
    """Return counts spread over neighbouring hours and over days of the same sort, working days or weekend; shapes (..., 168)."""
    found: FloatArray = counts @ _SMOOTHING
    return found


def hours_of_week(hours: Sequence[int] | range | IntArray, time_zone: str) -> IntArray:
    """Return what hour of the local week, 0 to 167, the clock shows in the middle of whole hours since 1970 in UTC."""
    where, found = zone(time_zone), np.array(hours, dtype=np.intp)
    spans = found // _SPAN
    for span in set(spans.tolist()):
        mine = spans == span
        found[mine] += _offsets(where, span)[found[mine] - span * _SPAN]
    return (found + _THURSDAY * 24) % WEEK


def count_week(hours: Sequence[int], time_zone: str) -> FloatArray:
    """Return how many of these hours fall into each hour of the local week, shape (168,)."""
    return np.bincount(hours_of_week(hours, time_zone), minlength=WEEK).astype(np.float64)


def count_weeks(hours: Sequence[Sequence[int]], time_zones: Sequence[str]) -> FloatArray:
    """Do the same for several customers, each with a zone of their own, shape (k, 168)."""
    if len(hours) == 1:
        return count_week(hours[0], time_zones[0])[None]
    found = np.zeros(len(hours) * WEEK)
    for where in {zone_name for of_one, zone_name in zip(hours, time_zones, strict=True) if len(of_one)}:
        mine = [place for place, zone_name in enumerate(time_zones) if zone_name == where]
        together = np.fromiter(chain.from_iterable(hours[place] for place in mine), dtype=np.intp)
        owner = np.repeat(mine, [len(hours[place]) for place in mine])
        found += np.bincount(owner * WEEK + hours_of_week(together, where), minlength=len(found))
    return found.reshape(len(hours), WEEK)


@lru_cache(maxsize=65536)
def _offsets(where: ZoneInfo, span: int) -> IntArray:
    """Return by how many hours the clock is ahead of UTC in the middle of each hour of a span, shape (_SPAN,); a half counts as a whole one."""
    days = [span * _SPAN + hour for hour in range(0, _SPAN + 1, 24)]
    offsets = [[_offset(where, day)] * 24 for day in days]
    for place, (begin, end) in enumerate(pairwise(days)):
        if _offset(where, begin) != _offset(where, end):
            offsets[place] = [_offset(where, hour) for hour in range(begin, end)]
    return np.array(offsets[:-1], dtype=np.intp).ravel()


def _offset(where: ZoneInfo, hour: int) -> int:
    offset = (_EPOCH + timedelta(hours=hour, minutes=30)).astimezone(where).utcoffset()
    assert offset is not None  # an aware moment has one
    return math.floor(offset / timedelta(hours=1) + 0.5)
