"""What turns plain methods of the services into handlers: an event loop receives and sends, threads answer.

One thread alone deals with what comes and goes, however many calls are in flight; threads that each waited for a call of their own took the
interpreter from each other, which cost more than the calls themselves.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import wraps
from typing import Any, NoReturn, Protocol, TypeVar

import grpc

from models.errors import ChannelChoiceError
from service.log import get_logger
from service.rpc.errors import to_status
from service.rpc.gather import gathered

_log = get_logger(__name__)
_MOST_GATHERED = 32
"""Messages of a stream that are answered together where they have come already."""


class Pool:
    """The threads that methods are answered in, and how many streams may be open at once."""

    def __init__(self, workers: int, streams: int) -> None:
        self.threads = ThreadPoolExecutor(workers, thread_name_prefix="call")
        self.free_streams = streams
        """Counted on the event loop alone."""

    def close(self) -> None:
        """Wait for what is still at work, also of calls that were cut off."""
        self.threads.shutdown()


class Servicer(Protocol):
    """What has methods to be answered in a pool."""

    pool: Pool


S = TypeVar("S", bound=Servicer)
Q = TypeVar("Q")
R = TypeVar("R")
Unary = Callable[[S, Q, Any], Coroutine[Any, Any, R]]


def ending(method: Callable[[S, Q], Awaitable[R]]) -> Unary[S, Q, R]:
    """Turn our errors that leave a unary method into gRPC's; anything else is logged and becomes INTERNAL."""

    @wraps(method)
    async def wrapped(self: S, request: Q, context: Any) -> R:
        try:
            return await method(self, request)
        except Exception as error:
            await _end(context, error, method.__name__)

    return wrapped


def answering(method: Callable[[S, Q], R]) -> Unary[S, Q, R]:
    """Answer a unary method in a thread of the pool; of errors see `ending`."""

    @wraps(method)
    async def answered(self: S, request: Q) -> R:
        return await asyncio.get_running_loop().run_in_executor(self.pool.threads, method, self, request)

    return ending(answered)


def streaming(method: Callable[[S, Sequence[Q]], Iterable[R]]) -> Callable[[S, Any, Any], AsyncIterator[R]]:
    """Answer what comes through a stream, as much at a time as has come, in a thread of the pool, within the limit of open streams; of errors see `ending`."""

    @wraps(method)
    async def wrapped(self: S, requests: Any, context: Any) -> AsyncIterator[R]:
        pool, loop = self.pool, asyncio.get_running_loop()
        if not pool.free_streams:
            problem = "too many streams are open; close one, or raise the setting streams"
            await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, problem)
        pool.free_streams -= 1
        try:
            async for messages in gathered(requests, _MOST_GATHERED):
                for answer in await loop.run_in_executor(pool.threads, method, self, messages):
                    yield answer
        except Exception as error:
            await _end(context, error, method.__name__)
        finally:
            pool.free_streams += 1

    return wrapped


async def _end(context: Any, error: Exception, method: str) -> NoReturn:
    if isinstance(error, ChannelChoiceError):
        await context.abort_with_status(to_status(error))
    _log.error("call failed", method=method, kind=type(error).__name__, exc_info=error)
    await context.abort(grpc.StatusCode.INTERNAL, f"{type(error).__name__} in {method}; see the server's log")
    raise AssertionError("abort raises")
