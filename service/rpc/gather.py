"""Messages of a stream that are there already, taken together: one thread reads on while what was read is answered."""

import threading
from collections import deque
from collections.abc import Iterable, Iterator
from typing import Generic, TypeVar

T = TypeVar("T")


def gathered(source: Iterable[T], most: int) -> Iterator[list[T]]:
    """Yield what has come since the last time, in order: at least one message, and at most so many; raises what the source raises, once all before it was taken.

    No more than `most` messages are read ahead, so that the stream's flow control holds.
    """
    ahead = _Ahead[T](most)
    threading.Thread(target=ahead.read, args=(source,), name="gather", daemon=True).start()
    try:
        while some := ahead.take():
            yield some
    finally:
        ahead.close()


class _Ahead(Generic[T]):
    """What was read and not taken yet."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._changed = threading.Condition()
        self._items: deque[T] = deque()
        self._error: Exception | None = None
        self._is_over = False
        self._is_closed = False

    def read(self, source: Iterable[T]) -> None:
        """Read until the source ends, or nobody takes any more."""
        try:
            for item in source:
                with self._changed:
                    while len(self._items) >= self._most and not self._is_closed:
                        self._changed.wait()
                    if self._is_closed:
                        return
                    self._items.append(item)
                    self._changed.notify_all()
        except Exception as error:  # it is the taker's
            self._error = error
        finally:
            with self._changed:
                self._is_over = True
                self._changed.notify_all()

    def take(self) -> list[T]:
        """Wait for something and take all that is there; nothing where the source has ended."""
        with self._changed:
            while not self._items and not self._is_over:
                self._changed.wait()
            taken = list(self._items)
            self._items.clear()
            self._changed.notify_all()
            if not taken and self._error is not None:
                raise self._error
            return taken

    def close(self) -> None:
        """Let the reader end."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()
