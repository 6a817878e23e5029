"""Callers who come while others are served are served together, so that what they have in common is done once.

This is flat combining (Hendler, Incze, Shavit & Tzafrir, SPAA 2010): who finds nobody at work begins at once, whoever comes meanwhile
waits, and all of those are served next. Nobody waits for others to come. Callers wait on an event loop; threads of their own serve, one at a time.

While a round waits, as for a commit, nobody begins: those who come meanwhile share the next round's commit. If it waits for longer than a good
disk takes, the next one begins beside it.
"""

import asyncio
import threading
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, Generic, TypeVar

A = TypeVar("A")
B = TypeVar("B")
_PATIENCE = 0.02
"""Seconds that callers wait behind a round that only waits, before the next one begins."""
_AT_ONCE = 16
"""Rounds that may wait beside each other."""
_serving = threading.local()


def only_wait() -> None:
    """Say that the round that this thread serves, where it serves one, only waits from now on: if it does so for long, the next one begins."""
    say = getattr(_serving, "only_waits", None)
    if say is not None:
        say()


class _Caller(Generic[A, B]):
    """Somebody who asked, with the future that is to be told."""

    __slots__ = ("answer", "asked", "future", "loop")

    def __init__(self, asked: A) -> None:
        self.asked = asked
        self.loop = asyncio.get_running_loop()
        self.future: asyncio.Future[B] = self.loop.create_future()
        self.answer: B | Exception

    def tell(self) -> None:
        """Tell the answer, on the event loop, to who has not given up."""
        if self.future.done():
            return
        if isinstance(self.answer, Exception):
            self.future.set_exception(self.answer)
        else:
            self.future.set_result(self.answer)


class Rounds(Generic[A, B]):
    """Serves what callers ask for in rounds of at most so many, one after another but where one only waits for long."""

    def __init__(
        self, serve: Callable[[Sequence[A]], Sequence[B | Exception]], most: int, patience: float = _PATIENCE
    ) -> None:
        """`serve` answers what is asked in its order, or says with what it fails; where it raises for several, each of them is served alone."""
        self._serve = serve
        self._most = most
        self._patience = patience
        self._waiting: deque[_Caller[A, B]] = deque()
        self._last = 0
        """The number of the round that began last."""
        self._is_at_work = False
        """Whether a thread serves until nobody waits."""
        self._lock = threading.Lock()
        self._threads = ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="round")

    async def ask(self, asked: A) -> B:
        """Return the answer; raises what `serve` says or raises for this alone."""
        caller: _Caller[A, B] = _Caller(asked)
        with self._lock:
            self._waiting.append(caller)
            is_first, self._is_at_work = not self._is_at_work, True
        if is_first:
            self._threads.submit(self._work)
        return await caller.future

    def close(self) -> None:
        """Wait for the rounds that have begun."""
        self._threads.shutdown()

    def _work(self) -> None:
        """Serve rounds until nobody waits, or another thread does so because this one waits for long."""
        number, callers = self._next()
        while callers:
            loop = callers[0].loop
            _serving.only_waits = partial(loop.call_soon_threadsafe, self._be_patient, loop, number)
            try:
                self._serve_all(callers)
            finally:
                _serving.only_waits = None
            loop.call_soon_threadsafe(_tell, callers)
            number, callers = self._next(number)

    def _next(self, after: int | None = None) -> tuple[int, list[_Caller[A, B]]]:
        """Take those of the next round, who have not given up; nobody where another thread has begun one since."""
        callers: list[_Caller[A, B]] = []
        with self._lock:
            if after is not None and after != self._last:
                return after, callers
            while self._waiting and len(callers) < self._most:
                caller = self._waiting.popleft()
                if not caller.future.done():
                    callers.append(caller)
            self._last += 1
            self._is_at_work = bool(callers)
            return self._last, callers

    def _serve_all(self, callers: Sequence[_Caller[A, B]]) -> None:
        """Answer every caller, whatever happens."""
        try:
            answers = self._serve([caller.asked for caller in callers])
            for caller, answer in zip(callers, answers, strict=True):
                caller.answer = answer
        except Exception as error:
            if len(callers) == 1:
                callers[0].answer = error
                return
            for caller in callers:
                self._serve_all([caller])

    def _be_patient(self, loop: asyncio.AbstractEventLoop, number: int) -> None:
        loop.call_later(self._patience, self._take_over, number)

    def _take_over(self, number: int) -> None:
        """Let another thread begin the next round, where this is still the last: now, or once somebody comes."""
        with self._lock:
            if number != self._last:
                return
            self._last += 1
            self._is_at_work = is_next = bool(self._waiting)
        if is_next:
            self._threads.submit(self._work)


def _tell(callers: Iterable[_Caller[Any, Any]]) -> None:
    for caller in callers:
        caller.tell()
