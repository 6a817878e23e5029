"""Callers who come while others are served are served together, and nobody is left waiting."""

import threading
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pytest

from service.rounds import Rounds

WAIT = 30.0
"""Seconds until a test that hangs fails."""


class Queue(deque[Any]):
    """Says when somebody waits."""

    def __init__(self) -> None:
        super().__init__()
        self.come = threading.Semaphore(0)

    def append(self, item: Any) -> None:
        super().append(item)
        self.come.release()


class Kitchen:
    """Serves numbers by doubling them; a round waits until it is let go, and a negative number spoils it."""

    def __init__(self, pool: ThreadPoolExecutor, most: int = 16, patience: float = WAIT) -> None:
        self.pool = pool
        self.rounds: list[list[int]] = []
        self.begun = threading.Semaphore(0)
        self.let_go = threading.Semaphore(0)
        self.only_waits = False
        self.asking = Rounds(self.serve, most, patience)
        self.queue = self.asking._waiting = Queue()

    def serve(self, asked: Sequence[int]) -> list[int]:
        """Double what is asked for, once this may go on."""
        self.rounds.append(list(asked))
        if self.only_waits:
            self.asking.only_wait()
        self.begun.release()
        assert self.let_go.acquire(timeout=WAIT)
        if min(asked) < 0:
            raise ValueError(f"spoiled among {len(asked)}")
        return [2 * number for number in asked]

    def ask(self, *numbers: int) -> "list[Future[int]]":
        """Ask for a first number and, while its round is served, for the others in this order; return once they wait."""
        first, *others = numbers
        asked = [self.pool.submit(self.asking.ask, first)]
        assert self.begun.acquire(timeout=WAIT)
        for number in others:
            asked.append(self.pool.submit(self.asking.ask, number))
            assert self.queue.come.acquire(timeout=WAIT)
        return asked

    def open(self) -> None:
        """Let all rounds go on."""
        self.let_go.release(1000)


class Counting:
    """Says when a caller has looked whether to begin."""

    def __init__(self, rounds: Rounds[int, int]) -> None:
        self.made = threading.Semaphore(0)
        self._look = rounds._take_over
        rounds._take_over = self.look  # type: ignore[method-assign,assignment]  # it does the same, and says so

    def look(self, caller: Any) -> None:
        """Look, and say so."""
        self._look(caller)
        self.made.release()


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    """Return threads for callers."""
    with ThreadPoolExecutor(64) as made:
        yield made


def test_who_waits_is_served_in_the_next_round(pool: ThreadPoolExecutor) -> None:
    """All who come while one is served are served together after it, each with an answer of their own."""
    kitchen = Kitchen(pool)
    asked = kitchen.ask(1, 2, 3, 4, 5)
    kitchen.open()
    assert [one.result(WAIT) for one in asked] == [2, 4, 6, 8, 10]
    assert kitchen.rounds == [[1], [2, 3, 4, 5]]


def test_who_finds_nobody_at_work_begins(pool: ThreadPoolExecutor) -> None:
    """Callers one after another are served at once, each alone."""
    kitchen = Kitchen(pool)
    kitchen.open()
    assert [kitchen.asking.ask(number) for number in range(5)] == [0, 2, 4, 6, 8]
    assert kitchen.rounds == [[0], [1], [2], [3], [4]]


def test_a_round_is_not_larger_than_most(pool: ThreadPoolExecutor) -> None:
    """More callers than a round may hold are served in rounds one after another, in the order in which they came."""
    kitchen = Kitchen(pool, most=3)
    asked = kitchen.ask(*range(8))
    kitchen.open()
    assert [one.result(WAIT) for one in asked] == [2 * number for number in range(8)]
    assert kitchen.rounds == [[0], [1, 2, 3], [4, 5, 6], [7]]


def test_one_failure_is_not_that_of_the_others(pool: ThreadPoolExecutor) -> None:
    """Where a round fails, each of its callers is served alone, so that who spoils it alone is told."""
    kitchen = Kitchen(pool)
    asked = kitchen.ask(1, 2, -3, 4)
    kitchen.open()
    assert [asked[place].result(WAIT) for place in (0, 1, 3)] == [2, 4, 8]
    with pytest.raises(ValueError, match="spoiled among 1"):
        asked[2].result(WAIT)
    assert kitchen.rounds[:2] == [[1], [2, -3, 4]]
    assert sorted(kitchen.rounds[2:]) == [[-3], [2], [4]]
    assert kitchen.asking.ask(7) == 14


def test_the_next_round_begins_where_one_waits_for_long(pool: ThreadPoolExecutor) -> None:
    """Once a round only waits, the next one begins after its callers' patience, and rounds end in any order."""
    kitchen = Kitchen(pool, patience=0.001)
    kitchen.only_waits = True
    first = pool.submit(kitchen.asking.ask, 1)
    assert kitchen.begun.acquire(timeout=WAIT)
    second = pool.submit(kitchen.asking.ask, 2)
    assert kitchen.begun.acquire(timeout=WAIT)
    assert kitchen.rounds == [[1], [2]]
    assert not first.done()
    kitchen.open()
    assert [first.result(WAIT), second.result(WAIT)] == [2, 4]


def test_a_round_that_computes_is_not_overtaken(pool: ThreadPoolExecutor) -> None:
    """However often callers look, none begins while a round is not said to only wait; nor can a thread that serves nobody say so."""
    kitchen = Kitchen(pool, patience=0.0001)
    asked = kitchen.ask(1, 2, 3)
    kitchen.asking.only_wait()
    looks = Counting(kitchen.asking)
    assert looks.made.acquire(timeout=WAIT)
    assert looks.made.acquire(timeout=WAIT)
    assert kitchen.rounds == [[1]]
    kitchen.open()
    assert [one.result(WAIT) for one in asked] == [2, 4, 6]
    assert kitchen.rounds == [[1], [2, 3]]


def test_nobody_is_lost_among_many(pool: ThreadPoolExecutor) -> None:
    """Of many callers at once, some of whom fail, every one gets the answer that is theirs."""
    kitchen = Kitchen(pool, most=5, patience=0.0001)
    kitchen.only_waits = True
    kitchen.let_go.release(100_000)
    numbers = [number if number % 7 else -number for number in range(1, 2000)]
    asked = [pool.submit(kitchen.asking.ask, number) for number in numbers]
    for number, one in zip(numbers, asked, strict=True):
        if number < 0:
            assert isinstance(one.exception(WAIT), ValueError)
        else:
            assert one.result(WAIT) == 2 * number
