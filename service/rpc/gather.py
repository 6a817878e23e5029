"""Messages of a stream that are there already, taken together: it is read on while what was read is answered."""

import asyncio
from collections.abc import AsyncIterable, AsyncIterator
from typing import TypeVar

T = TypeVar("T")


class _End:
    """Stands where the source has ended, with what it raised."""

    def __init__(self, error: Exception | None = None) -> None:
        self.error = error


async def gathered(source: AsyncIterable[T], most: int) -> AsyncIterator[list[T]]:
    """Yield what has come since the last time, in order: at least one message, and at most so many; raises what the source raises, once all before it was taken.

    No more than `most` messages are read ahead, so that the stream's flow control holds.
    """
    ahead: asyncio.Queue[T | _End] = asyncio.Queue(most)

    async def read() -> None:
        end = _End()
        try:
            async for item in source:
                await ahead.put(item)
        except Exception as error:  # it is the taker's
            end = _End(error)
        await ahead.put(end)

    reading = asyncio.create_task(read())
    try:
        while True:
            taken: list[T] = []
            item = await ahead.get()
            while not isinstance(item, _End):
                taken.append(item)
                if len(taken) == most or ahead.empty():
                    break
                item = ahead.get_nowait()
            if taken:
                yield taken
            if isinstance(item, _End):
                if item.error is not None:
                    raise item.error
                return
    finally:
        reading.cancel()
