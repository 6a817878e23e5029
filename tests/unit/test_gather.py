"""Messages of a stream that are there already, taken together."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from service.rpc.gather import gathered


async def numbers(count: int) -> AsyncIterator[int]:
    """Yield numbers from 0 on."""
    for number in range(count):
        yield number


def test_all_that_is_read_is_given_in_order() -> None:
    """Whatever comes together, nothing is lost and nothing overtakes."""

    async def run() -> None:
        found = [some async for some in gathered(numbers(1000), 7)]
        assert [number for some in found for number in some] == list(range(1000))
        assert all(1 <= len(some) <= 7 for some in found)
        assert max(map(len, found)) > 1

    asyncio.run(run())


def test_no_more_is_read_ahead_than_allowed() -> None:
    """Who takes nothing lets the source wait with one message more than the most."""
    asked: list[int] = []

    async def source() -> AsyncIterator[int]:
        async for number in numbers(100):
            asked.append(number)
            yield number

    async def run() -> None:
        taken = gathered(source(), 4)
        first = await anext(taken)
        for _ in range(100):  # it reads on until 4 wait
            await asyncio.sleep(0)
        assert len(asked) == len(first) + 4 + 1
        await taken.aclose()  # type: ignore[attr-defined]  # it is a generator

    asyncio.run(run())


def test_what_the_source_raises_comes_after_what_it_gave() -> None:
    """A stream that breaks is answered up to there."""

    async def source() -> AsyncIterator[int]:
        yield 1
        raise KeyError("gone")

    async def run() -> None:
        taken = gathered(source(), 4)
        assert await anext(taken) == [1]
        with pytest.raises(KeyError):
            await anext(taken)

    asyncio.run(run())
