"""The actions of one decision, and what hangs on nothing else: worked out once for all customers who have the same.

Customers of a campaign in one zone whose channels are the same have the same slots too, so that `models.actions.list_actions` gives them one and the same
`Actions`. Its arrays are shared and cannot be written.
"""

from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import Any, TypeVar, cast

import numpy as np
from numpy.typing import NDArray

T = TypeVar("T")
FloatArray = NDArray[np.float64]
IntArray = NDArray[np.intp]
BoolArray = NDArray[np.bool_]
_MOST_KEPT = 64
"""Answers that one list of actions keeps: its customers' zones and the moments at which they are decided are few."""
MOST_SLOTS = 16
"""Slots of a channel among all of which later steps of a cascade are sought."""
SPREAD_SLOTS = 8
"""Slots of a channel that has more, among which they are. A later step is decided anew when its time comes, with slots laid anew."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Action:
    """What can be chosen: a channel and when to send through it, or no send (`channel` is "none", no time)."""

    channel: str
    send_time: datetime | None = None


class Actions(tuple[Action, ...]):
    """Actions in order, with what follows from them alone; n of them, m of them sends."""

    @classmethod
    def of(cls, actions: Iterable[Action]) -> "Actions":
        """Return the actions as such a tuple; themselves where they are one."""
        return actions if isinstance(actions, Actions) else cls(actions)

    @cached_property
    def is_send(self) -> BoolArray:
        """Shape (n,)."""
        return _shared(np.array([action.send_time is not None for action in self], dtype=np.bool_))

    @cached_property
    def sends(self) -> "Actions":
        """The sends among them."""
        return Actions(action for action in self if action.send_time is not None)

    @cached_property
    def place(self) -> dict[int, int]:
        """Where each action stands, by its identity."""
        return {id(action): place for place, action in enumerate(self)}

    @cached_property
    def timed(self) -> tuple[tuple[str, float], ...]:
        """The sends as (channel, hours since 1970)."""
        hours = {moment: moment.timestamp() / 3600 for moment in self.moments[0] if moment is not None}
        return tuple((a.channel, hours[a.send_time]) for a in self if a.send_time is not None)

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Channels as they come, no send among them, each once."""
        return tuple(dict.fromkeys(action.channel for action in self))

    def places_of(self, channel: str) -> IntArray:
        """Return where the sends through a channel stand."""
        return self.once(("places", channel), lambda: _shared(self._find_places(channel)))

    def _find_places(self, channel: str) -> IntArray:
        firsts, kind = self.kinds
        of_channel = [n for n, a in enumerate(firsts) if a.channel == channel and a.send_time is not None]
        return np.flatnonzero(np.isin(kind, of_channel))

    @cached_property
    def channel(self) -> IntArray:
        """The number of each action's channel among the names, shape (n,)."""
        number = {name: place for place, name in enumerate(self.names)}
        return _shared(np.array([number[action.channel] for action in self], dtype=np.intp))

    @cached_property
    def is_later(self) -> BoolArray:
        """Which sends may be later steps, shape (m,): all of a channel with at most MOST_SLOTS, else SPREAD_SLOTS, spread evenly over its slots and the first among them.

        A channel's own slots alone decide, so that with one channel less there is no more to choose from.
        """
        channel = self.sends.channel
        count = np.bincount(channel) if len(channel) else np.zeros(1, dtype=np.intp)
        if count.max() <= MOST_SLOTS:
            return _shared(np.ones(len(channel), dtype=np.bool_))
        order = np.lexsort((np.array([hour for _, hour in self.timed]), channel))
        rank = np.empty(len(channel), dtype=np.intp)
        rank[order] = np.arange(len(channel)) - (np.cumsum(count) - count)[channel[order]]
        of_all = count[channel]
        is_one = rank * SPREAD_SLOTS // of_all > (rank - 1) * SPREAD_SLOTS // of_all
        return _shared(np.asarray(is_one | (of_all <= MOST_SLOTS)))

    @cached_property
    def moments(self) -> tuple[tuple[datetime | None, ...], IntArray]:
        """The times of the actions, each once, and the place of each action's among them, shape (n,)."""
        places: dict[datetime | None, int] = {}
        of = [places.setdefault(action.send_time, len(places)) for action in self]
        return tuple(places), _shared(np.array(of, dtype=np.intp))

    @cached_property
    def kinds(self) -> tuple[tuple[Action, ...], IntArray]:
        """The first action of each channel, and of no send, and the place of each action's among them, shape (n,)."""
        places: dict[tuple[str, bool], int] = {}
        of = [places.setdefault((a.channel, a.send_time is None), len(places)) for a in self]
        array = np.array(of, dtype=np.intp)
        firsts = tuple(self[int(place)] for place in np.unique(array, return_index=True)[1]) if len(of) else ()
        return firsts, _shared(array)

    def part(self, mask: BoolArray) -> "Actions":
        """Return the actions for which the mask, shape (n,), is true."""
        return self.once(
            mask.tobytes(), lambda: Actions(a for a, kept in zip(self, mask.tolist(), strict=True) if kept)
        )

    def once(self, key: Hashable, make: Callable[[], T]) -> T:
        """Return what was made for this key, which with the actions says all that it is made from; make it the first time."""
        found = self._made.get(key)
        if found is None:
            if len(self._made) >= _MOST_KEPT:
                self._made.clear()
            found = self._made[key] = make()
        return cast(T, found)

    @cached_property
    def _made(self) -> dict[Hashable, Any]:
        return {}


def _shared(array: NDArray[Any]) -> NDArray[Any]:
    array.flags.writeable = False
    return array
