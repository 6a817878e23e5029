"""What a send is worth with what may follow it: cascades valued by backward induction.

A cascade of up to three steps is a sequence of sends i, k, l through different channels, each not before the wait of the one before is
over, each made only if no order came until then:

    W(i) = N0(i) + (1 - p(i)) max(0, max_k [ N1(k) + (1 - p(k)) max(0, max_l N2(l)) ])
    Nd   = kept^d x incremental value - price x (1 + shadow price) - harm

`p` is P(order | send). `kept` is how much of the expected effect is left in somebody who has just ignored a message: being ignored says
that the interest is less than was thought. Where free channels go strictly first, a paid one may be step d + 1 only if at most d free ones
are eligible. A longer cascade is looked at three steps ahead; AdvanceCascade plans anew at each step.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import numpy as np
from numpy.typing import NDArray

from models.actions import ActionTable

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.intp]
LOOK_AHEAD = 3
_NEVER = -np.inf
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True, kw_only=True)
class CascadeValues:
    """Value in micros of each action with the best that may follow, shape (n,). The rest is of the m sends in order of time."""

    value_micros: FloatArray
    _places: IntArray
    """Which action each send is, shape (m,)."""
    _channel: IntArray
    _next: IntArray
    """Place of the first send that the wait leaves time for, m where there is none; shape (m,)."""
    _second: FloatArray
    """Worth of each send as second step after a first through each channel, with its best third; shape (m, channels)."""
    _third: FloatArray
    """Worth of each send as third step, shape (m,)."""

    def following(self, index: int) -> tuple[int, ...]:
        """Return the actions that best follow the action of that index, in order; none where it is best left alone."""
        first = np.flatnonzero(self._places == index)
        if not len(first):
            return ()
        channel = self._channel[first[0]]
        second = _best_after(self._second[:, channel], self._next[first[0]])
        if second is None:
            return ()
        is_free = (self._channel != channel) & (self._channel != self._channel[second])
        third = _best_after(np.where(is_free, self._third, _NEVER), self._next[second])
        return tuple(int(self._places[place]) for place in (second, third) if place is not None)


def _best_after(worth: FloatArray, begin: int) -> int | None:
    """Return the place of the greatest positive worth from `begin` on."""
    if begin >= len(worth):
        return None
    best = begin + int(worth[begin:].argmax())
    return best if worth[best] > 0 else None


def value_cascades(
    table: ActionTable, waits: Mapping[str, timedelta], steps_left: int, kept: float, *, is_strict: bool
) -> CascadeValues:
    """Value every action of a table as the first of a cascade of at most `steps_left` steps.

    Sends are taken in order of time, so that what may follow a send is a tail of them, and the best of a tail is a running maximum
    from the end, one for each channel. All arrays have at most m x channels entries.

    Parameters
    ----------
    table : n actions; no send is worth what it is worth alone.
    waits : how long a step through each channel is waited for.
    steps_left : steps that may still be made, the first among them.
    kept : in [0, 1], see the module.
    is_strict : whether paid channels wait for free ones.
    """
    seconds = np.array(
        [np.inf if a.send_time is None else (a.send_time - _EPOCH).total_seconds() for a in table.actions]
    )
    places = np.argsort(seconds, kind="stable")[: int(np.isfinite(seconds).sum())]
    sends = [table.actions[place] for place in places]
    numbers = {name: number for number, name in enumerate(dict.fromkeys(send.channel for send in sends))}
    channel = np.array([numbers[send.channel] for send in sends], dtype=np.intp)
    start = seconds[places]
    ready = start + np.array([waits[send.channel].total_seconds() for send in sends])
    following = np.searchsorted(start, ready, side="left")
    free = len({c for c, paid in zip(channel, table.is_paid[places], strict=True) if not paid})
    second, third = (
        _net(table, kept**depth, closed=is_strict and free > depth)[places]
        if steps_left > depth
        else np.full(len(sends), _NEVER)
        for depth in (1, 2)
    )
    stays = 1 - table.p_response[places]
    is_of = channel[:, None] == np.arange(len(numbers))
    after = _best_of_tails(np.where(is_of, third[:, None], _NEVER))[following]
    after = np.where(is_of, _NEVER, after)
    worth = np.where(is_of, _NEVER, second[:, None] + stays[:, None] * _best_without(after))
    gain = _best_of_tails(worth)[following, channel]
    value = table.net_micros.copy()
    value[places] += stays * np.maximum(gain, 0.0)
    return CascadeValues(
        value_micros=value, _places=places, _channel=channel, _next=following, _second=worth, _third=third
    )


def _net(table: ActionTable, kept: float, *, closed: bool) -> FloatArray:
    """Return the net value of each action after so much interest is left; `closed` shuts paid ones out."""
    net = kept * table.incremental_micros - table.price_micros * (1 + table.shadow_price) - table.harm_micros
    return np.where(table.is_paid, _NEVER, net) if closed else net


def _best_of_tails(worth: FloatArray) -> FloatArray:
    """Return, for each row and the end, the greatest of each column from there on; shape (m + 1, columns)."""
    ended = np.vstack([worth, np.full((1, worth.shape[1]), _NEVER)])
    best: FloatArray = np.maximum.accumulate(ended[::-1], axis=0)[::-1]
    return best


def _best_without(worth: FloatArray) -> FloatArray:
    """Return, for each row and column, the greatest of the row's other columns where it is positive, else 0."""
    rows = np.arange(len(worth))
    if worth.shape[1] < 2:
        return np.zeros_like(worth)
    best = worth.argmax(axis=1)
    others = worth.copy()
    others[rows, best] = _NEVER
    found = np.repeat(worth[rows, best][:, None], worth.shape[1], axis=1)
    found[rows, best] = others.max(axis=1)
    positive: FloatArray = np.maximum(found, 0.0)
    return positive


def value_cascades_plainly(
    table: ActionTable, waits: Mapping[str, timedelta], steps_left: int, kept: float, *, is_strict: bool
) -> FloatArray:
    """Do what `value_cascades` does by looking at every sequence: the reference that it is tested against."""
    free = len({a.channel for a, paid in zip(table.actions, table.is_paid, strict=True) if a.send_time and not paid})

    def worth(index: int, depth: int, used: tuple[str, ...]) -> float:
        action = table.actions[index]
        if is_strict and table.is_paid[index] and depth > 0 and free > depth:
            return float(_NEVER)
        net = float(kept**depth * table.incremental_micros[index])
        net -= float(table.price_micros[index] * (1 + table.shadow_price) + table.harm_micros[index])
        if action.send_time is None or depth + 1 >= min(steps_left, LOOK_AHEAD):
            return net
        ready = action.send_time + waits[action.channel]
        following = [
            worth(k, depth + 1, (*used, action.channel))
            for k, next_action in enumerate(table.actions)
            if next_action.send_time is not None
            and next_action.send_time >= ready
            and next_action.channel not in (*used, action.channel)
        ]
        return net + (1 - float(table.p_response[index])) * max(0.0, *following, 0.0)

    return np.array([worth(index, 0, ()) for index in range(len(table))])
