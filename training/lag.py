"""How long a message of each channel keeps being noticed, and how a channel follows its readers' rhythm.

The hazard of noticing a send i of channel c in a cell g of one hour is

    lambda_i(g) = exp(attention_i) x keep_c(g - sent_i) x exp(power_c log rhythm_i(g) + hour_c(g)),

a Poisson regression over the cells in which each send was still unnoticed, with a ridge that draws power_c towards 1 and the hours towards
0. Attention is what the stage `notice` says (training.linear, training.grow); the two are fitted in turns.
"""

import math
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
_LEAST_OPEN = 0.05
"""Hours in which a send can be noticed though its message expires at once."""
_RIDGE_HOUR, _RIDGE_POWER, _RIDGE_AGE = 10.0, 4.0, 3.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Cells:
    """One row for each hour after a send in which it could still be noticed, that of its notice the last; arrays of shape (rows,)."""

    send: IntArray
    """Which decision."""
    age: IntArray
    hour: IntArray
    """Hour of the local week, at the middle."""
    log_rhythm: FloatArray
    weight: FloatArray
    """Share of the hour in which it could be noticed."""
    is_noticed: FloatArray


def unroll(data: Dataset, used: NDArray[np.bool_], rhythms: Rhythms, *, to_expiry: bool = False) -> Cells:
    """Return the cells of the sends used, up to the message's expiry and no more than AGES hours after each; up to its notice, or all `to_expiry`.

    A notice after that does not count: until then the send was not noticed. A send is watched until the window of its decision ends, or as long as the log tells of it.
    """
    weeks = np.log(rhythms.of(count_activity(data)))
    watched = np.inf if to_expiry else data.decide_time / 3.6e9 + data.watched_hours
    ends = np.minimum(data.expire_hours, watched)
    send: list[IntArray] = []
    age: list[IntArray] = []
    hour: list[IntArray] = []
    weight: list[FloatArray] = []
    noticed: list[FloatArray] = []
    for i in np.flatnonzero(used):
        start, seen = float(data.send_hours[i]), float(data.seen_hours[i])
        open_hours = min(max(float(ends[i]) - start, _LEAST_OPEN), AGES)
        is_noticed = not to_expiry and seen < open_hours
        count = int(seen) + 1 if is_noticed else math.ceil(open_hours)
        first = math.floor(start + 0.5)
        send.append(np.full(count, i))
        age.append(np.arange(count))
        hour.append(hours_of_week(range(first, first + count), str(data.time_zone[i])))
        share = np.ones(count)
        share[-1] = 0.5 if is_noticed else open_hours - (count - 1)
        weight.append(share)
        happened = np.zeros(count)
        happened[-1] = is_noticed
        noticed.append(happened)
    sends, hours = np.concatenate(send), np.concatenate(hour)
    return Cells(
        send=sends,
        age=np.concatenate(age),
        hour=hours,
        log_rhythm=weeks[sends, hours],
        weight=np.concatenate(weight),
        is_noticed=np.concatenate(noticed),
    )


def fit_lag(cells: Cells, rows: NDArray[np.bool_], attention: FloatArray) -> ChannelLag:
    """Fit the lag of one channel from its rows; `attention`, shape (n,), are log rates of all decisions."""
    ages, hours = age_bins(cells.age[rows]), hour_bins(cells.hour[rows])
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
    channels = data.channel[cells.send]
    for channel, lag in lags.items():
        rows = channels == channel
        rate = lag.rate(cells.age[rows], cells.log_rhythm[rows], cells.hour[rows])
        found[rows] = rate * cells.weight[rows]
    return found


def exposures(cells: Cells, lags: dict[str, ChannelLag], data: Dataset) -> FloatArray:
    """Return the cumulative hazard of each decision at an attention of 1, up to its notice or end; shape (n,)."""
    return np.bincount(cells.send, hazards(cells, lags, data), minlength=len(data)).astype(np.float64)


def noticed_by_cell(cells: Cells, hazard: FloatArray) -> FloatArray:
    """Return P(noticed in cell) for the hazards of all cells, shape (rows,)."""
    before = np.cumsum(hazard) - hazard
    is_first = np.diff(cells.send, prepend=-1) != 0
    begin = before[is_first][np.cumsum(is_first) - 1]
    found: FloatArray = np.exp(begin - before) * -np.expm1(-hazard)
    return found
