"""How long live decisions take at a steady pace of half of what the service can do, on both databases.

Calls arrive evenly, whether or not earlier ones are answered, and their time counts from when they were due, so that a server that falls behind is seen to.
"""

import contextlib
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from service.gen.channelchoice.v1.decision_pb2 import DECISION_MODE_DRY_RUN, DECISION_MODE_LIVE, DECISION_VIEW_BASIC
from tests.benchmarks.figures import LATENCY, Measured
from tests.benchmarks.processes import service
from tests.benchmarks.subject import Subject
from tests.postgres import postgres_server

_BUSY = 32


@contextlib.contextmanager
def databases(subject: Subject) -> Iterator[dict[str, tuple[Subject, str]]]:
    """A database of each engine without any history, each with a folder of its own for the key of identities."""
    with tempfile.TemporaryDirectory() as folder, postgres_server() as server:
        found = {}
        for name, url in (("SQLite", ""), ("PostgreSQL", server.make_migrated())):
            place = Path(folder) / name
            place.mkdir()
            world = replace(subject.world, folder=place)
            world.rules_file.write_text(subject.world.rules_file.read_text())
            world.bundle.symlink_to(subject.world.bundle)
            found[name] = (replace(subject, world=world), url)
        yield found


def measure(subjects: dict[str, tuple[Subject, str]], phase: int, measured: Measured) -> None:
    """Measure each database: unloaded one by one, as much as it takes, then half of that at a steady pace."""
    for name, (subject, url) in subjects.items():

        def live(kind: str, later: int = 0, subject: Subject = subject) -> list[bytes]:
            """Return requests of a phase of their own, so that no cap makes the decision a short one."""
            return subject.requests(phase + later, kind, DECISION_MODE_LIVE, DECISION_VIEW_BASIC)

        with service(subject.world, url) as server:
            server.load(subject.requests(phase, "warm", DECISION_MODE_DRY_RUN, DECISION_VIEW_BASIC)[: 2 * _BUSY], _BUSY)
            alone = server.load(live("alone")[: max(subject.calls // 3, 100)], 1)
            busy = server.load(live("busy", 1), _BUSY)
            most = subject.calls / busy.wall_seconds
            took = sorted(server.steady(live("steady", 2), most / 2))
        p99 = took[int(0.99 * len(took))]
        measured.add(f"LIVE BASIC on {name}, one at a time: p50", "ms", alone.quantile(0.5) * 1e3)
        measured.add(f"LIVE BASIC on {name}, {_BUSY} in flight: throughput", "calls/s", most)
        measured.add(f"LIVE BASIC on {name}, half of that: p50", "ms", took[len(took) // 2] * 1e3)
        measured.add(f"LIVE BASIC on {name}, half of that: p99", "ms", p99 * 1e3)
        measured.add(f"{LATENCY}, {name}", "x", p99 / alone.quantile(0.5))
