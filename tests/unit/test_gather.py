"""Messages of a stream that are there already, taken together."""

from collections.abc import Iterator
from queue import SimpleQueue

import pytest

from service.rpc.gather import gathered


def test_all_that_is_read_is_given_in_order() -> None:
    """Whatever comes together, nothing is lost and nothing overtakes."""
    found = list(gathered(iter(range(1000)), 7))

    assert [number for some in found for number in some] == list(range(1000))
    assert all(1 <= len(some) <= 7 for some in found)


def test_no_more_is_read_ahead_than_allowed() -> None:
    """Who takes nothing lets the source wait with one message more than the most."""
    asked: SimpleQueue[int] = SimpleQueue()

    def source() -> Iterator[int]:
        for number in range(100):
            asked.put(number)
            yield number

    taken = gathered(source(), 4)
    first = next(taken)
    while asked.get(timeout=10) < len(first) + 4:  # it reads on until 4 wait
        pass

    assert asked.empty()
    taken.close()  # type: ignore[attr-defined]  # it is a generator


def test_what_the_source_raises_comes_after_what_it_gave() -> None:
    """A stream that breaks is answered up to there."""

    def source() -> Iterator[int]:
        yield 1
        raise KeyError("gone")

    taken = gathered(source(), 4)

    assert next(taken) == [1]
    with pytest.raises(KeyError):
        next(taken)
