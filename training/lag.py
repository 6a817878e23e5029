"""How long a message of each channel keeps being noticed, and how a channel follows its readers' rhythm.

The hazard of noticing a send i of channel c in a cell g of one hour is

    lambda_i(g) = exp(attention_i) x keep_c(g - sent_i) x exp(power_c log rhythm_i(g) + hour_c(g)),

a Poisson regression over the cells in which each send was still unnoticed, with a ridge that draws power_c towards 1 and the hours towards
0. Attention is what the stage `notice` says (training.linear, training.grow); the two are fitted in turns.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

from models.curves import AGE_BINS, AGES, HOUR_BINS, ChannelLag, age_bins, hour_bins
from models.rhythm import Rhythms, hours_of_week
from training.dataset import Dataset
from training.rhythm import count_activity

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.intp]
Int32Array = NDArray[np.int32]
Int16Array = NDArray[np.int16]
BoolArray = NDArray[np.bool_]
BLOCK = 1 << 15
"""Decisions whose cells are in memory together."""
MOST_SENDS = 50_000
"""Sends of a channel that its lag is learned from at most."""
_LEAST_OPEN = 0.05
"""Hours in which a send can be noticed though its message expires at once."""
_RIDGE_HOUR, _RIDGE_POWER, _RIDGE_AGE = 10.0, 4.0, 3.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Cells:
    """One row for each hour after a send in which it could still be noticed, that of its notice the last; arrays of shape (rows,)."""

    send: Int32Array
    """Which decision."""
    age: Int16Array
    hour: Int16Array
    """Hour of the local week, at the middle."""
    log_rhythm: FloatArray
    weight: FloatArray
    """Share of the hour in which it could be noticed."""
    is_noticed: BoolArray


def unroll(data: Dataset, used: BoolArray, rhythms: Rhythms, *, to_expiry: bool = False) -> Cells:
    """Return the cells of the sends used, up to the message's expiry and no more than AGES hours after each; up to its notice, or all `to_expiry`.

    A notice after that does not count: until then the send was not noticed. A send is watched until the window of its decision ends, or as long as the log tells of it.
    """
    places = np.flatnonzero(used)
    start, seen = data.send_hours[places], data.seen_hours[places]
    open_hours = _open_hours(data, places, to_expiry=to_expiry)
    is_noticed = np.zeros(len(places), dtype=bool) if to_expiry else seen < open_hours
    count = np.where(is_noticed, np.floor(np.where(is_noticed, seen, 0.0)) + 1, np.ceil(open_hours)).astype(np.intp)
    ends = np.cumsum(count)
    send = np.repeat(places, count)
    age = np.arange(len(send)) - np.repeat(ends - count, count)
    hour = _hours_of_week(data.time_zone[places], np.floor(start + 0.5).astype(np.intp), age, count)
    weight, happened = np.ones(len(send)), np.zeros(len(send), dtype=bool)
    weight[ends - 1] = np.where(is_noticed, 0.5, open_hours - (count - 1))
    happened[ends - 1] = is_noticed
    return Cells(
        send=send.astype(np.int32),
        age=age.astype(np.int16),
        hour=hour,
        log_rhythm=_log_rhythm(data, rhythms, send, hour),
        weight=weight,
        is_noticed=happened,
    )


def noticed_in_time(data: Dataset, used: BoolArray) -> FloatArray:
    """Tell which of the sends used were noticed while `unroll` looks; shape (n,), 0 for all others."""
    places = np.flatnonzero(used)
    found = np.zeros(len(data))
    found[places] = data.seen_hours[places] < _open_hours(data, places, to_expiry=False)
    return found


def _open_hours(data: Dataset, places: IntArray, *, to_expiry: bool) -> FloatArray:
    """Return for how many hours sends could be noticed and were watched, or could be noticed at all."""
    watched = np.inf if to_expiry else data.decide_time[places] / 3.6e9 + data.watched_hours[places]
    ends = np.minimum(data.expire_hours[places], watched)
    return np.minimum(np.maximum(ends - data.send_hours[places], _LEAST_OPEN), AGES)


def _hours_of_week(zones: NDArray[np.str_], first: IntArray, age: IntArray, count: IntArray) -> Int16Array:
    """Return the hour of the local week of each cell of sends in these zones with these first hours and as many cells."""
    names, zone = np.unique(zones, return_inverse=True)
    if not len(names):
        return np.zeros(0, dtype=np.int16)
    begin = int(first.min())
    span = np.arange(begin, int(first.max()) + AGES + 1)
    clocks = np.array([hours_of_week(span, str(name)) for name in names], dtype=np.int16)
    found: Int16Array = clocks[np.repeat(zone, count), np.repeat(first - begin, count) + age]
    return found


def _log_rhythm(data: Dataset, rhythms: Rhythms, send: IntArray, hour: Int16Array) -> FloatArray:
    """Return the log of its customer's rhythm at each cell, a block of decisions at a time."""
    found = np.empty(len(send))
    for begin in range(0, len(data), BLOCK):
        first, last = np.searchsorted(send, [begin, begin + BLOCK])
        if first < last:
            weeks = np.log(rhythms.of(count_activity(data, slice(begin, begin + BLOCK))))
            found[first:last] = weeks[send[first:last] - begin, hour[first:last]]
    return found


def blocks(used: BoolArray) -> Iterator[BoolArray]:
    """Yield masks that together are `used`, each of a part of the decisions whose cells are not too many."""
    for begin in range(0, len(used), BLOCK):
        mask = np.zeros(len(used), dtype=bool)
        mask[begin : begin + BLOCK] = used[begin : begin + BLOCK]
        if mask.any():
            yield mask


def thin(channel: NDArray[np.str_], used: BoolArray, most: int = MOST_SENDS) -> BoolArray:
    """Return which of the sends used lags are learned from: of a channel with more than `most` every second, third and so on."""
    found = np.zeros(len(used), dtype=bool)
    for name in np.unique(channel[used]):
        places = np.flatnonzero(used & (channel == name))
        found[places[:: -(-len(places) // most)]] = True
    return found


def fit_lag(cells: Cells, rows: BoolArray, attention: FloatArray) -> ChannelLag:
    """Fit the lag of one channel from its rows; `attention`, shape (n,), are log rates of all decisions."""
    ages, hours = age_bins(cells.age[rows].astype(np.intp)), hour_bins(cells.hour[rows].astype(np.intp))
    rhythm, happened = cells.log_rhythm[rows], cells.is_noticed[rows]
    offset = attention[cells.send[rows]] + np.log(cells.weight[rows])
    level = np.log((happened.sum() + 0.5) / np.exp(offset).sum())

    def split(theta: FloatArray) -> tuple[FloatArray, float, FloatArray]:
        return theta[:AGE_BINS], float(theta[AGE_BINS]), theta[AGE_BINS + 1 :]

    def objective(theta: FloatArray) -> tuple[float, FloatArray]:
        by_age, power, by_hour = split(theta)
        score = np.minimum(offset + by_age[ages] + power * rhythm + by_hour[hours], 30.0)
        expected = np.exp(score)
        step = np.diff(by_age)
        value = float(np.sum(expected - happened * score))
        value += (
            _RIDGE_AGE * float(step @ step) + _RIDGE_POWER * (power - 1) ** 2 + _RIDGE_HOUR * float(by_hour @ by_hour)
        )
        residual = expected - happened
        of_age: FloatArray = np.bincount(ages, residual, minlength=AGE_BINS).astype(np.float64)
        of_age[1:] += 2 * _RIDGE_AGE * step
        of_age[:-1] -= 2 * _RIDGE_AGE * step
        of_hour = np.bincount(hours, residual, minlength=HOUR_BINS) + 2 * _RIDGE_HOUR * by_hour
        of_power = float(residual @ rhythm) + 2 * _RIDGE_POWER * (power - 1)
        return value, np.concatenate([of_age, [of_power], of_hour])

    begin = np.concatenate([np.full(AGE_BINS, level), [1.0], np.zeros(HOUR_BINS)])
    found = minimize(objective, begin, jac=True, method="L-BFGS-B", options={"maxiter": 200}).x
    by_age, power, by_hour = split(found)
    return ChannelLag(log_keep=tuple(float(x) for x in by_age), power=power, log_hours=tuple(float(x) for x in by_hour))


def hazards(cells: Cells, lags: dict[str, ChannelLag], data: Dataset) -> FloatArray:
    """Return the hazard of each cell at an attention of 1, shape (rows,); 0 of channels without a lag."""
    found = np.zeros(len(cells.send))
    for channel, lag in lags.items():
        rows = (data.channel == channel)[cells.send]
        rate = lag.rate(cells.age[rows], cells.log_rhythm[rows], cells.hour[rows])
        found[rows] = rate * cells.weight[rows]
    return found


def exposures(cells: Cells, lags: dict[str, ChannelLag], data: Dataset) -> FloatArray:
    """Return the cumulative hazard of each decision at an attention of 1, up to its notice or end; shape (n,)."""
    return np.bincount(cells.send, hazards(cells, lags, data), minlength=len(data)).astype(np.float64)


def exposures_of(data: Dataset, used: BoolArray, rhythms: Rhythms, lags: dict[str, ChannelLag]) -> FloatArray:
    """Return the exposures of the sends used, shape (n,), 0 for all others; however many they are, their cells do not fill the memory."""
    found = np.zeros(len(data))
    for block in blocks(used):
        found += exposures(unroll(data, block, rhythms), lags, data)
    return found


def noticed_by_cell(cells: Cells, hazard: FloatArray) -> FloatArray:
    """Return P(noticed in cell) for the hazards of all cells, shape (rows,)."""
    before = np.cumsum(hazard) - hazard
    is_first = np.diff(cells.send, prepend=-1) != 0
    begin = before[is_first][np.cumsum(is_first) - 1]
    found: FloatArray = np.exp(begin - before) * -np.expm1(-hazard)
    return found
