"""Runs clients against services on one PostgreSQL, kills services and PostgreSQL at random moments, then checks what is left."""

import contextlib
import json
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import psycopg

from tests.faults.checker import Findings, check, sample_budgets
from tests.postgres import PostgresServer, postgres_server

RULES_FILE = Path(__file__).parent / "rules.toml"
_ROOT = Path(__file__).parent.parent.parent
_START_SECONDS = 60
_STALL_SECONDS = 1.5
_SAMPLE_SECONDS = 0.2


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How long, how much, and how many faults; the seed says which and when."""

    seconds: float
    kills: int
    servers: int = 3
    clients: int = 4
    people_per_second: float = 10.0
    seed: int = 1


@dataclass(kw_only=True)
class Report:
    """What a run did, and what was found."""

    seconds: float
    faults: Counter[str]
    findings: Findings
    samples: int = 0
    exits: list[int] = field(default_factory=list)

    def lines(self) -> list[str]:
        found, kinds = self.findings, ", ".join(f"{count} x {kind}" for kind, count in sorted(self.faults.items()))
        return [
            f"{'seconds':<24}{self.seconds:.0f}",
            f"{'decisions kept':<24}{found.decisions}, of them {found.sends} sends",
            f"{'outcomes kept':<24}{found.outcomes}",
            f"{'answers checked':<24}{found.acknowledged_decisions} decisions, {found.acknowledged_outcomes} outcomes",
            f"{'looks at the ledger':<24}{self.samples}",
            f"{'faults':<24}{sum(self.faults.values())}: {kinds}",
            f"{'acknowledged rows lost':<24}{found.lost}",
            f"{'violations':<24}{len(found.violations)}",
            *(f"  {violation}" for violation in found.violations[:50]),
        ]


class Server:
    """One service process, started again on its port after each kill."""

    def __init__(self, folder: Path, number: int, url: str, options: Sequence[str] = ()) -> None:
        self.address = f"127.0.0.1:{_free_port()}"
        self._command = [sys.executable, "-m", "service", "--address", self.address, "--database-url", url]
        self._command += ["--rules-file", str(RULES_FILE), "--identity-key-file", str(folder / "identity.key")]
        self._command += ["--log-format", "json", "--workers", "8", *options]
        self._log = folder / f"server-{number}.log"
        self._popen: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start the process unless it runs."""
        if self._popen is None or self._popen.poll() is not None:
            with self._log.open("ab") as log:
                self._popen = subprocess.Popen(self._command, cwd=_ROOT, stdout=log, stderr=log)

    def wait(self) -> None:
        """Wait until it takes connections; where it refused to start, as while PostgreSQL is down, start it again."""
        host, _, port = self.address.rpartition(":")
        deadline = time.monotonic() + _START_SECONDS
        while True:
            with contextlib.suppress(OSError), socket.create_connection((host, int(port)), timeout=1):
                return
            assert time.monotonic() < deadline, self._log.read_text()[-2000:]
            self.start()
            time.sleep(_SAMPLE_SECONDS)

    def send(self, number: signal.Signals) -> None:
        if self._popen is not None:
            self._popen.send_signal(number)

    def kill(self) -> None:
        """Kill the process with -9 and start another at once."""
        self.send(signal.SIGKILL)
        if self._popen is not None:
            self._popen.wait()
        self.start()

    def stop(self) -> int:
        """Stop the process as an operator would; return its exit code."""
        self.send(signal.SIGTERM)
        return -1 if self._popen is None else self._popen.wait(_START_SECONDS)


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def run(plan: Plan, folder: Path) -> Report:
    """Run a plan; what it wrote stays in the folder."""
    began = time.monotonic()
    with postgres_server("max_connections=100") as database, contextlib.ExitStack() as closing:
        url = database.make_migrated()
        servers = [Server(folder, number, url) for number in range(plan.servers)]
        servers[0].start()  # makes the identity key that the others need
        servers[0].wait()
        for server in servers:
            server.start()
            closing.callback(server.send, signal.SIGKILL)
        for server in servers:
            server.wait()
        logs = [folder / f"client-{number}.jsonl" for number in range(plan.clients)]
        with _sampling(url) as (samples, beyond):
            clients = [_start_client(servers, log, plan, number) for number, log in enumerate(logs)]
            for client in clients:
                closing.callback(client.kill)
            faults = _inject(plan, database, servers)
            for client in clients:
                assert client.stdin is not None
                client.stdin.close()
            exits = [client.wait(2 * _START_SECONDS) for client in clients]
        exits += [server.stop() for server in servers]
        findings = check(url, RULES_FILE, logs)
    findings.violations += [f"{problem} while it ran" for problem in beyond]
    return Report(seconds=time.monotonic() - began, faults=faults, findings=findings, samples=len(samples), exits=exits)


def _start_client(servers: list[Server], log: Path, plan: Plan, number: int) -> "subprocess.Popen[bytes]":
    addresses = ",".join(server.address for server in servers)
    seed, rate = str(plan.seed * 1000 + number), str(plan.people_per_second)
    command = [sys.executable, "-m", "tests.faults.client", addresses, str(log), seed, rate]
    log.touch()
    return subprocess.Popen(command, cwd=_ROOT, stdin=subprocess.PIPE)


def _inject(plan: Plan, database: PostgresServer, servers: list[Server]) -> Counter[str]:
    """Do harm at random moments until the plan's time is over, then mend everything."""
    chance = random.Random(plan.seed)
    moments = sorted(chance.uniform(0.05, 0.95) * plan.seconds for _ in range(plan.kills))
    kinds = (
        ["kill -9 a server"] * 6 + ["kill -9 PostgreSQL"] * 3 + ["stall a server", "end all connections"]
    ) * plan.kills
    faults: Counter[str] = Counter()
    began = time.monotonic()
    chosen = [kinds[0], "kill -9 PostgreSQL", *chance.sample(kinds, plan.kills)][: plan.kills]
    for moment, kind in zip(moments, chosen, strict=True):
        time.sleep(max(0.0, began + moment - time.monotonic()))
        _harm(kind, chance.choice(servers), database)
        faults[kind] += 1
    time.sleep(max(0.0, began + plan.seconds - time.monotonic()))
    for server in servers:
        server.wait()
    return faults


def _harm(kind: str, server: Server, database: PostgresServer) -> None:
    if kind == "kill -9 a server":
        server.kill()
    elif kind == "kill -9 PostgreSQL":
        database.kill()
        database.start()
    elif kind == "stall a server":
        server.send(signal.SIGSTOP)
        time.sleep(_STALL_SECONDS)
        server.send(signal.SIGCONT)
    else:
        with database.connected() as connection:
            connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'channel-choice'"
            )


@contextlib.contextmanager
def _sampling(url: str) -> Iterator[tuple[list[float], list[str]]]:
    """Look at the ledger again and again, whenever PostgreSQL can be asked."""
    samples: list[float] = []
    beyond: list[str] = []
    is_over = threading.Event()

    def sample() -> None:
        while not is_over.wait(_SAMPLE_SECONDS):
            with contextlib.suppress(psycopg.Error):
                beyond.extend(sample_budgets(url, RULES_FILE))
                samples.append(time.monotonic())

    thread = threading.Thread(target=sample)
    thread.start()
    try:
        yield samples, beyond
    finally:
        is_over.set()
        thread.join()


def write_report(report: Report, path: Path) -> None:
    """Write a report's figures as JSON."""
    found = report.findings
    figures = {
        "seconds": round(report.seconds),
        "decisions": found.decisions,
        "outcomes": found.outcomes,
        "acknowledged_decisions": found.acknowledged_decisions,
        "acknowledged_outcomes": found.acknowledged_outcomes,
        "faults": dict(report.faults),
        "lost": found.lost,
        "violations": found.violations,
    }
    path.write_text(json.dumps(figures, indent=2) + "\n")
