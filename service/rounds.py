"""Callers who come while others are served are served together by one of them, so that what they have in common is done once.

This is flat combining (Hendler, Incze, Shavit & Tzafrir, SPAA 2010): who finds nobody at work begins at once, whoever comes meanwhile
waits, and the first of those then serves all of them. Nobody waits for others to come.
"""

import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

A = TypeVar("A")
B = TypeVar("B")


class _Caller(Generic[A, B]):
    """A caller who waits: for an answer, for its turn to serve, or to be told to serve itself alone."""

    __slots__ = ("answers", "asked", "is_leading", "waking")

    def __init__(self, asked: A) -> None:
        self.asked = asked
        self.answers: Sequence[B] = ()
        """The answer, once there is one."""
        self.is_leading = False
        self.waking = threading.Lock()
        self.waking.acquire()


class Rounds(Generic[A, B]):
    """Serves what callers ask for in rounds of at most so many, one round at a time until it passes its turn on."""

    def __init__(self, serve: Callable[[Sequence[A]], Sequence[B]], most: int) -> None:
        """`serve` answers what is asked in its order; where it fails for several, each of them is served alone."""
        self._serve = serve
        self._most = most
        self._waiting: deque[_Caller[A, B]] = deque()
        self._leader: int | None = None
        """The thread whose turn it is; 0 while it is being handed over."""
        self._lock = threading.Lock()

    def ask(self, asked: A) -> B:
        """Return the answer; raises what `serve` raises for this alone."""
        mine: _Caller[A, B] = _Caller(asked)
        with self._lock:
            if self._leader is None:
                mine.is_leading = True
                self._leader = 0
            else:
                self._waiting.append(mine)
        if not mine.is_leading:
            mine.waking.acquire()
        if mine.is_leading:
            self._lead(mine)
        (answer,) = mine.answers or self._serve([asked])
        return answer

    def pass_on(self) -> None:
        """Let the next round begin, where it is this thread's turn: for what is left of its own it only waits, or answers."""
        with self._lock:
            if self._leader != threading.get_ident():
                return
            following = self._waiting.popleft() if self._waiting else None
            self._leader = None if following is None else 0
        if following is not None:
            following.is_leading = True
            following.waking.release()

    def _lead(self, mine: _Caller[A, B]) -> None:
        """Serve this caller and those who wait; leave nobody waiting, whatever happens."""
        callers = [mine]
        with self._lock:
            self._leader = threading.get_ident()
            while self._waiting and len(callers) < self._most:
                callers.append(self._waiting.popleft())
        try:
            answers = self._serve([caller.asked for caller in callers])
            for caller, answer in zip(callers, answers, strict=True):
                caller.answers = (answer,)
        except Exception:
            if len(callers) == 1:
                raise
        finally:
            self.pass_on()
            for caller in callers[1:]:
                caller.waking.release()
