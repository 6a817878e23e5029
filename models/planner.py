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
    """Value in micros of each action with the best that may follow, and which actions those are; shape (n,), -1 for none."""

    value_micros: FloatArray
    second: IntArray
    third: IntArray


def value_cascades(
    table: ActionTable, waits: Mapping[str, timedelta], steps_left: int, kept: float, *, is_strict: bool
) -> CascadeValues:
    """Value every action of a table as the first of a cascade of at most `steps_left` steps.

    Parameters
    ----------
    table : n actions; no send is worth what it is worth alone.
    waits : how long a step through each channel is waited for.
    steps_left : steps that may still be made, the first among them.
    kept : in [0, 1], see the module.
    is_strict : whether paid channels wait for free ones.
    """
    n = len(table)
    names = list(dict.fromkeys(action.channel for action in table.actions if action.send_time is not None))
    place = {name: index for index, name in enumerate(names)}
    channel = np.array([place.get(a.channel, -1) for a in table.actions])
    is_send = channel >= 0
    start = np.array([0.0 if a.send_time is None else (a.send_time - _EPOCH).total_seconds() for a in table.actions])
    ready = start + np.array(
        [waits[a.channel].total_seconds() if a.send_time is not None else 0 for a in table.actions]
    )
    free = len({c for c, paid in zip(channel, table.is_paid, strict=True) if c >= 0 and not paid})
    follows = is_send[:, None] & is_send[None, :] & (channel[:, None] != channel[None, :])
    follows &= start[None, :] >= ready[:, None]
    net = [_net(table, kept**depth, closed=is_strict and free > depth) for depth in range(LOOK_AHEAD)]
    second, third = np.full(n, -1, dtype=np.intp), np.full(n, -1, dtype=np.intp)
    value = table.net_micros.copy()
    if steps_left < 2 or not follows.any():
        return CascadeValues(value_micros=value, second=second, third=third)
    later = np.broadcast_to(net[1], (n, n))
    last_of = np.full((n, n), -1, dtype=np.intp)
    if steps_left >= LOOK_AHEAD:
        gain, last_of = _last_steps(follows, net[2], channel, len(names))
        later = net[1] + (1 - table.p_response) * gain
    worth = np.where(follows, later, _NEVER)
    best = worth.argmax(axis=1)
    rows = np.arange(n)
    following = np.maximum(worth[rows, best], 0.0)
    goes_on = following > 0
    value += (1 - table.p_response) * following
    second[goes_on] = best[goes_on]
    third[goes_on] = last_of[rows, best][goes_on]
    return CascadeValues(value_micros=value, second=second, third=third)


def _net(table: ActionTable, kept: float, *, closed: bool) -> FloatArray:
    """Return the net value of each action after so much interest is left; `closed` shuts paid ones out."""
    net = kept * table.incremental_micros - table.price_micros * (1 + table.shadow_price) - table.harm_micros
    return np.where(table.is_paid, _NEVER, net) if closed else net


def _last_steps(
    follows: NDArray[np.bool_], net: FloatArray, channel: IntArray, channels: int
) -> tuple[FloatArray, IntArray]:
    """Return, for first step i and second step k, what the best third step adds and which it is; shape (n, n).

    The third step uses neither channel. So for each k the best step of the best channel after it, and that of the best other channel,
    are all that is needed.
    """
    n = len(net)
    after = np.where(follows, net[None, :], _NEVER)
    by_channel = np.full((n, channels), _NEVER)
    which = np.zeros((n, channels), dtype=np.intp)
    for c in range(channels):
        members = np.flatnonzero(channel == c)
        inner = after[:, members].argmax(axis=1)
        which[:, c] = members[inner]
        by_channel[:, c] = after[np.arange(n), which[:, c]]
    order = np.argsort(-by_channel, axis=1, kind="stable")
    rows = np.arange(n)
    best = order[:, 0]
    other = order[:, 1] if channels > 1 else best
    is_taken = channel[:, None] == best[None, :]
    chosen = np.where(is_taken, other[None, :], best[None, :])
    gain = by_channel[rows[None, :], chosen]
    if channels == 1:
        gain = np.where(is_taken, _NEVER, gain)
    last = np.where(gain > 0, which[rows[None, :], chosen], -1)
    return np.maximum(gain, 0.0), last


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
