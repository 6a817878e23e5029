"""Callers who come while others are served are served together, and nobody is left waiting."""

import asyncio
import threading
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

import pytest

from service.rounds import Rounds, only_wait

T = TypeVar("T")
WAIT = 30.0
"""Seconds until a test that hangs fails."""


class Kitchen:
    """Serves numbers by doubling them; a round waits until it is let go, a negative number spoils it, and zero is refused."""

    def __init__(self, most: int = 16, patience: float = WAIT) -> None:
        self.rounds: list[list[int]] = []
        self.begun = threading.Semaphore(0)
        self.let_go = threading.Semaphore(0)
        self.only_waits = False
        self.asking: Rounds[int, int] = Rounds(self.serve, most, patience)

    def serve(self, asked: Sequence[int]) -> list[int | Exception]:
        """Double what is asked for, once this may go on."""
        self.rounds.append(list(asked))
        if self.only_waits:
            only_wait()
        self.begun.release()
        assert self.let_go.acquire(timeout=WAIT)
        if min(asked) < 0:
            raise ValueError(f"spoiled among {len(asked)}")
        return [2 * number if number else KeyError(f"refused among {len(asked)}") for number in asked]

    async def ask(self, *numbers: int) -> "list[asyncio.Task[int]]":
        """Ask for a first number and, while its round is served, for the others in this order; return once they wait."""
        first, *others = numbers
        asked = [asyncio.create_task(self.asking.ask(first))]
        await self.next_round()
        asked += [asyncio.create_task(self.asking.ask(number)) for number in others]
        await asyncio.sleep(0)  # each asks
        return asked

    async def next_round(self) -> None:
        """Wait until one more round has begun."""
        assert await asyncio.to_thread(self.begun.acquire, timeout=WAIT)

    def open(self) -> None:
        """Let all rounds go on."""
        self.let_go.release(100_000)


@contextmanager
def kitchen(most: int = 16, patience: float = WAIT) -> Iterator[Kitchen]:
    """Open a kitchen whose threads end with the block."""
    made = Kitchen(most, patience)
    try:
        yield made
    finally:
        made.open()
        made.asking.close()


def on_a_loop(test: Callable[[], Awaitable[T]]) -> T:
    """Run a test that awaits, for no longer than it may hang."""

    async def within() -> T:
        return await asyncio.wait_for(test(), WAIT)

    return asyncio.run(within())


def test_who_waits_is_served_in_the_next_round() -> None:
    """All who come while one is served are served together after it, each with an answer of their own."""

    async def run() -> None:
        with kitchen() as cook:
            asked = await cook.ask(1, 2, 3, 4, 5)
            cook.open()
            assert await asyncio.gather(*asked) == [2, 4, 6, 8, 10]
            assert cook.rounds == [[1], [2, 3, 4, 5]]

    on_a_loop(run)


def test_who_finds_nobody_at_work_begins() -> None:
    """Callers one after another are served at once, each alone."""

    async def run() -> None:
        with kitchen() as cook:
            cook.open()
            assert [await cook.asking.ask(number) for number in range(1, 5)] == [2, 4, 6, 8]
            assert cook.rounds == [[1], [2], [3], [4]]

    on_a_loop(run)


def test_a_round_is_not_larger_than_most() -> None:
    """More callers than a round may hold are served in rounds one after another, in the order in which they came."""

    async def run() -> None:
        with kitchen(most=3) as cook:
            asked = await cook.ask(*range(1, 9))
            cook.open()
            assert await asyncio.gather(*asked) == [2 * number for number in range(1, 9)]
            assert cook.rounds == [[1], [2, 3, 4], [5, 6, 7], [8]]

    on_a_loop(run)


def test_one_failure_is_not_that_of_the_others() -> None:
    """Where a round fails, each of its callers is served alone, so that who spoils it alone is told."""

    async def run() -> None:
        with kitchen() as cook:
            asked = await cook.ask(1, 2, -3, 4)
            cook.open()
            assert [await asked[place] for place in (0, 1, 3)] == [2, 4, 8]
            with pytest.raises(ValueError, match="spoiled among 1"):
                await asked[2]
            assert cook.rounds == [[1], [2, -3, 4], [2], [-3], [4]]
            assert await cook.asking.ask(7) == 14

    on_a_loop(run)


def test_what_is_refused_alone_spoils_no_round() -> None:
    """An error among the answers is its caller's, and the round is not served again."""

    async def run() -> None:
        with kitchen() as cook:
            asked = await cook.ask(1, 2, 0, 4)
            cook.open()
            assert [await asked[place] for place in (0, 1, 3)] == [2, 4, 8]
            with pytest.raises(KeyError, match="refused among 3"):
                await asked[2]
            assert cook.rounds == [[1], [2, 0, 4]]

    on_a_loop(run)


def test_who_gave_up_while_waiting_is_not_served() -> None:
    """A call that was cancelled before its round costs nothing and keeps nobody else waiting; one cancelled during it hurts no other."""

    async def run() -> None:
        with kitchen() as cook:
            asked = await cook.ask(1, 2, 3)
            asked[0].cancel()
            asked[1].cancel()
            await asyncio.sleep(0)  # both are told
            cook.open()
            assert await asked[2] == 6
            assert cook.rounds == [[1], [3]]
            assert await cook.asking.ask(7) == 14

    on_a_loop(run)


def test_the_next_round_begins_where_one_waits_for_long() -> None:
    """Once a round only waits, the next one begins after its callers' patience, and rounds end in any order."""

    async def run() -> None:
        with kitchen(patience=0.001) as cook:
            cook.only_waits = True
            first = asyncio.create_task(cook.asking.ask(1))
            await cook.next_round()
            second = asyncio.create_task(cook.asking.ask(2))
            await cook.next_round()
            assert cook.rounds == [[1], [2]]
            assert not first.done()
            cook.open()
            assert list(await asyncio.gather(first, second)) == [2, 4]

    on_a_loop(run)


def test_who_comes_while_one_waits_for_long_begins_at_once() -> None:
    """Patience that ended with nobody there is not asked of who comes later."""

    async def run() -> None:
        with kitchen(patience=0.0) as cook:
            cook.only_waits = True
            first = asyncio.create_task(cook.asking.ask(1))
            await cook.next_round()
            while cook.asking._is_at_work:
                await asyncio.sleep(0)
            cook.asking._patience = WAIT
            second = asyncio.create_task(cook.asking.ask(2))
            await cook.next_round()
            assert not first.done()
            cook.open()
            assert list(await asyncio.gather(first, second)) == [2, 4]
            assert cook.rounds == [[1], [2]]

    on_a_loop(run)


def test_a_round_that_computes_is_not_overtaken() -> None:
    """However long callers wait, none begins while a round is not said to only wait; nor can a thread that serves nobody say so."""

    async def run() -> None:
        with kitchen(patience=0.0) as cook:
            asked = await cook.ask(1, 2, 3)
            only_wait()
            for _ in range(100):  # what would begin after no patience at all has begun by then
                await asyncio.sleep(0)
            assert cook.rounds == [[1]]
            cook.open()
            assert await asyncio.gather(*asked) == [2, 4, 6]
            assert cook.rounds == [[1], [2, 3]]

    on_a_loop(run)


def test_nobody_is_lost_among_many() -> None:
    """Of many callers at once, some of whom fail, every one gets the answer that is theirs."""

    async def run() -> None:
        with kitchen(most=5, patience=0.0) as cook:
            cook.only_waits = True
            cook.open()
            numbers = [number if number % 7 else -number for number in range(1, 2000)]
            answers = await asyncio.gather(*map(cook.asking.ask, numbers), return_exceptions=True)
            for number, answer in zip(numbers, answers, strict=True):
                if number < 0:
                    assert isinstance(answer, ValueError)
                else:
                    assert answer == 2 * number

    on_a_loop(run)
