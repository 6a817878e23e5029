"""A bare echo, `python -m tests.benchmarks.echo sync|aio BYTES`: the floor under every gRPC server in Python.

It prints its port, then answers every call with that many bytes, which nothing encodes or decodes.
"""

import asyncio
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc

METHOD = "/tests.Echo/Echo"
_WORKERS = 16
_ADDRESS = "127.0.0.1:0"


def _handlers(answer: Any) -> grpc.GenericRpcHandler:
    service, method = METHOD.strip("/").split("/")
    return grpc.method_handlers_generic_handler(service, {method: grpc.unary_unary_rpc_method_handler(answer)})


def serve(size: int) -> None:
    """Serve on a pool of threads, as the service does."""
    body = bytes(size)
    server = grpc.server(ThreadPoolExecutor(_WORKERS))
    server.add_generic_rpc_handlers((_handlers(lambda request, context: body),))
    print(server.add_insecure_port(_ADDRESS), flush=True)
    server.start()
    server.wait_for_termination()


async def serve_aio(size: int) -> None:
    """Serve on an event loop."""
    body = bytes(size)

    async def answer(_request: bytes, _context: Any) -> bytes:
        return body

    server = grpc.aio.server()
    server.add_generic_rpc_handlers((_handlers(answer),))
    print(server.add_insecure_port(_ADDRESS), flush=True)
    await server.start()
    await server.wait_for_termination()


if __name__ == "__main__":
    kind, length = sys.argv[1], int(sys.argv[2])
    if kind == "aio":
        asyncio.run(serve_aio(length))
    else:
        serve(length)
