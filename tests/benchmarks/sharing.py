"""`python -m tests.benchmarks.sharing [--calls 600] [--rounds 3]`: what a second process on the same port and database earns.

Calls come from this process through sixteen connections, which the kernel divides among the servers. Clients and PostgreSQL need processors too, so beside the
throughput stands what each needed for one decision, and what a machine with so many processors could do at most if nothing ever waited.
"""

import argparse
import contextlib
import os
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

import grpc

from service.gen.channelchoice.v1.decision_pb2 import DECISION_MODE_DRY_RUN, DECISION_MODE_LIVE, DECISION_VIEW_BASIC
from tests.benchmarks.processes import CHOOSE, cpu_seconds, service
from tests.benchmarks.subject import HISTORY, Subject, prepare
from tests.benchmarks.workload import make_worlds
from tests.postgres import PostgresServer, postgres_server

_CONNECTIONS = 16
_TIMEOUT_SECONDS = 60
_MODES = {"DRY_RUN": DECISION_MODE_DRY_RUN, "LIVE": DECISION_MODE_LIVE}


@dataclass(frozen=True, slots=True, kw_only=True)
class Shared:
    """Decisions a second, and the CPU of one in ms: of the servers, the clients and the database."""

    per_second: float
    servers: float
    clients: float
    database: float

    @property
    def most(self) -> float:
        """Return the decisions a second that this machine's processors could do, if all of them were always busy."""
        return (os.cpu_count() or 1) * 1e3 / (self.servers + self.clients + self.database)


def load(address: str, pids: Sequence[int], database: PostgresServer, requests: Sequence[bytes]) -> Shared:
    """Make all calls, one at a time on each of many connections."""
    with contextlib.ExitStack() as closing, database.connected() as connection:
        backends = [row[0] for row in connection.execute("SELECT pid FROM pg_stat_activity").fetchall()]
        own = [("grpc.use_local_subchannel_pool", 1)]
        channels = [closing.enter_context(grpc.insecure_channel(address, options=own)) for _ in range(_CONNECTIONS)]
        calls = [cast(Callable[..., bytes], channel.unary_unary(CHOOSE)) for channel in channels]
        for channel in channels:
            grpc.channel_ready_future(channel).result(_TIMEOUT_SECONDS)

        def work(number: int) -> None:
            for request in requests[number::_CONNECTIONS]:
                calls[number](request, timeout=_TIMEOUT_SECONDS)

        def spent() -> tuple[float, float, float]:
            return sum(map(cpu_seconds, pids)), time.process_time(), sum(map(_seconds_of, backends))

        before, began = spent(), time.perf_counter()
        threads = [threading.Thread(target=work, args=(number,)) for number in range(_CONNECTIONS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        seconds = time.perf_counter() - began
        servers, clients, stored = (
            1e3 * (now - then) / len(requests) for now, then in zip(spent(), before, strict=True)
        )
    return Shared(per_second=len(requests) / seconds, servers=servers, clients=clients, database=stored)


def _seconds_of(pid: int) -> float:
    """Return the CPU of a backend; 0 of one that has ended."""
    try:
        return cpu_seconds(pid)
    except OSError:
        return 0.0


@contextlib.contextmanager
def running(subject: Subject, url: str, count: int) -> Iterator[tuple[str, list[int]]]:
    """Run so many processes on one port; their address and their ids."""
    with contextlib.ExitStack() as closing:
        first = closing.enter_context(service(subject.world, url, shared_address="127.0.0.1:0"))
        others = [
            closing.enter_context(service(subject.world, url, shared_address=first.address)) for _ in range(count - 1)
        ]
        yield first.address, [server.pid for server in (first, *others)]


def measure(subject: Subject, database: PostgresServer, rounds: int) -> Iterator[tuple[str, int, Shared]]:
    """Measure one process and two in turns; each round on a database of its own, so that no caps fill up."""
    for _ in range(rounds):
        for count in (1, 2):
            url = database.make_migrated()
            with running(subject, url, count) as (address, pids):
                for name, mode in _MODES.items():
                    requests = subject.requests(HISTORY, f"{name}-{count}", mode, DECISION_VIEW_BASIC)
                    load(address, pids, database, requests[: 4 * _CONNECTIONS])
                    yield name, count, load(address, pids, database, requests[4 * _CONNECTIONS :])


def main() -> None:
    """Print the medians over the rounds."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.sharing", description=__doc__)
    parser.add_argument("--calls", type=int, default=600, help="calls of one measurement")
    parser.add_argument("--rounds", type=int, default=3, help="how often each is measured")
    options = parser.parse_args()
    found: dict[tuple[str, int], list[Shared]] = {}
    with tempfile.TemporaryDirectory() as folder, postgres_server() as database:
        world = make_worlds(Path(folder))[0]
        subject = replace(prepare(world, 64), calls=options.calls)
        for name, count, shared in measure(subject, database, options.rounds):
            found.setdefault((name, count), []).append(shared)
    print(f"{os.cpu_count()} processors, {_CONNECTIONS} connections; medians of {options.rounds} rounds")
    print("mode     processes  calls/s  of most  CPU ms: servers  clients  PostgreSQL")
    for (name, count), rounds in found.items():
        per_second, servers, clients, stored, most = (
            statistics.median(getattr(shared, part) for shared in rounds)
            for part in ("per_second", "servers", "clients", "database", "most")
        )
        print(
            f"{name:8} {count:9} {per_second:8.0f} {per_second / most:8.2f} {servers:15.2f} {clients:8.2f} {stored:11.2f}"
        )
    for name in _MODES:
        one, two = ([shared.per_second for shared in found[name, count]] for count in (1, 2))
        of_one, of_two = ([shared.servers for shared in found[name, count]] for count in (1, 2))
        print(
            f"{name}: two processes do {statistics.median(two) / statistics.median(one):.2f} times what one does, "
            f"at {statistics.median(of_two) / statistics.median(of_one):.2f} times the CPU of a decision"
        )


if __name__ == "__main__":
    main()
