"""When a customer is active: a week of hours, shrunk towards a few typical ones.

A rhythm is attention by hour of the local week, of mean 1. Customers are a mixture of K types with shares s_k and weeks t_k. For a customer
with n active hours of which c(h) fell into hour h of the week, of smoothed share o(h),

    weight of type k  ~ s_k exp(sum_h c(h) log t_k(h))
    rhythm(h)         = (kappa sum_k weight_k t_k(h) + n o(h)) / (kappa + n).

`kappa` says how many hours a customer must have been active until their own week counts as much as the types'.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Annotated
from zoneinfo import ZoneInfo

import numpy as np
from numpy.typing import NDArray
from pydantic import ConfigDict, Field

from models.local_time import zone

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.intp]
WEEK = 168
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


_SAME_DAY = np.array([0.1, 0.8, 0.1])


def smooth_week(counts: FloatArray) -> FloatArray:
    """Return counts spread over neighbouring hours and over days of the same sort, working days or weekend; shapes (..., 168)."""
    days = counts.reshape(*counts.shape[:-1], 7, 24)
    near = sum(w * np.roll(days, shift, axis=-1) for w, shift in zip(_SAME_DAY, (-1, 0, 1), strict=True))
    found = np.empty_like(days)
    found[..., :5, :] = near[..., :5, :].mean(axis=-2, keepdims=True)
    found[..., 5:, :] = near[..., 5:, :].mean(axis=-2, keepdims=True)
    return found.reshape(counts.shape)


def hours_of_week(hours: Iterable[int], time_zone: str) -> IntArray:
    """Return the hour of the local week of whole hours since 1970 in UTC, 0 to 167."""
    where = zone(time_zone)
    local = [hour + _offset(where, hour // 24) for hour in hours]
    return (np.array(local, dtype=np.intp) + _THURSDAY * 24) % WEEK


def count_week(hours: Iterable[int], time_zone: str) -> FloatArray:
    """Return how many of these hours fall into each hour of the local week, shape (168,)."""
    return np.bincount(hours_of_week(hours, time_zone), minlength=WEEK).astype(np.float64)


@lru_cache(maxsize=65536)
def _offset(where: ZoneInfo, day: int) -> int:
    """Return how many whole hours a zone is ahead of UTC at noon of a day since 1970."""
    moment = _EPOCH + timedelta(days=day, hours=12)
    offset = moment.astimezone(where).utcoffset()
    assert offset is not None  # an aware moment has one
    return round(offset / timedelta(hours=1))
