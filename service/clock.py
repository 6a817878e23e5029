"""Where the time comes from."""

import threading
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Protocol

Observe = Callable[[datetime], None]


class Clock(Protocol):
    """Something that tells the time."""

    def now(self) -> datetime:
        """Return the time in UTC."""
        ...


class SystemClock:
    """The machine's clock."""

    def now(self) -> datetime:
        return datetime.now(UTC)


class RequestClock:
    """A clock that callers move by the times in what they send, never backwards: weeks pass in minutes."""

    def __init__(self) -> None:
        self._now = datetime(2000, 1, 1, tzinfo=UTC)
        self._lock = threading.Lock()

    def now(self) -> datetime:
        return self._now

    def observe(self, moment: datetime) -> None:
        """Move to this moment where it is later."""
        with self._lock:
            self._now = max(self._now, moment)


def ignore(_moment: datetime) -> None:
    """Observe nothing: what goes with a clock that moves by itself."""
