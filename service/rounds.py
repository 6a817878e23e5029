"""Callers who come while others are served are served together by one of them, so that what they have in common is done once.

This is flat combining (Hendler, Incze, Shavit & Tzafrir, SPAA 2010): who finds nobody at work begins at once, whoever comes meanwhile
waits, and the first of those then serves all of them. Nobody waits for others to come.

While a round waits, as for a commit, nobody begins: those who come meanwhile share the next round's commit. If it waits for longer than a good
disk takes, the next one begins beside it.
"""

import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

A = TypeVar("A")
B = TypeVar("B")
_PATIENCE = 0.02
"""Seconds that a caller waits behind a round that only waits, before it looks whether to begin."""


class _Caller(Generic[A, B]):
    """A caller who waits for an answer, for its turn to serve, or to be told to serve itself alone."""

    __slots__ = ("answers", "asked", "is_leading", "waking")

    def __init__(self, asked: A) -> None:
        self.asked = asked
        self.answers: Sequence[B] = ()
        """The answer, once there is one."""
        self.is_leading = False
        self.waking = threading.Lock()
        self.waking.acquire()


class Rounds(Generic[A, B]):
    """Serves what callers ask for in rounds of at most so many, one after another but where one only waits for long."""

    def __init__(self, serve: Callable[[Sequence[A]], Sequence[B]], most: int, patience: float = _PATIENCE) -> None:
        """`serve` answers what is asked in its order; where it fails for several, each of them is served alone."""
        self._serve = serve
        self._most = most
        self._patience = patience
        self._waiting: deque[_Caller[A, B]] = deque()
        self._leader: int | None = None
        """The thread whose turn it is; 0 while it is being handed over."""
        self._is_idle = False
        """Whether it only waits."""
        self._lock = threading.Lock()

    def ask(self, asked: A) -> B:
        """Return the answer; raises what `serve` raises for this alone."""
        mine: _Caller[A, B] = _Caller(asked)
        with self._lock:
            if self._leader is None:
                self._call(mine)
            else:
                self._waiting.append(mine)
        while not mine.is_leading and not mine.waking.acquire(timeout=self._patience):
            self._take_over(mine)
        if mine.is_leading:
            self._lead(mine)
        (answer,) = mine.answers or self._serve([asked])
        return answer

    def only_wait(self) -> None:
        """Say that this thread's round, where it is its turn, only waits from now on: if it does so for long, the next one begins."""
        with self._lock:
            self._is_idle = self._is_idle or self._leader == threading.get_ident()

    def _call(self, caller: _Caller[A, B] | None) -> None:
        """Give a caller the turn."""
        self._is_idle = False
        self._leader = None if caller is None else 0
        if caller is not None:
            caller.is_leading = True

    def _take_over(self, mine: _Caller[A, B]) -> None:
        """Take the turn of a round that only waits, where this caller is the next."""
        with self._lock:
            if self._is_idle and self._waiting and self._waiting[0] is mine:
                self._call(self._waiting.popleft())

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
            self._pass_on()
            for caller in callers[1:]:
                caller.waking.release()

    def _pass_on(self) -> None:
        """Give the turn to the next, where nobody has taken it over."""
        with self._lock:
            if self._leader != threading.get_ident():
                return
            following = self._waiting.popleft() if self._waiting else None
            self._call(following)
        if following is not None:
            following.waking.release()
