"""Acceptance: `python -m service` as a process of its own, spoken to over its socket."""

import contextlib
import itertools
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from queue import SimpleQueue
from typing import Any
from uuid import uuid4

import grpc
import pytest
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from grpc_health.v1.health_pb2_grpc import HealthStub

from service.gen.channelchoice.v1.channel_choice_service_pb2 import (
    ChooseChannelRequest,
    ChooseChannelResponse,
    StreamChooseChannelRequest,
)
from service.gen.channelchoice.v1.channel_choice_service_pb2_grpc import ChannelChoiceServiceStub
from service.gen.channelchoice.v1.decision_pb2 import VERDICT_SEND
from service.gen.channelchoice.v1.outcome_pb2 import OUTCOME_STATUS_ACCEPTED, OUTCOME_TYPE_SENT, OutcomeResult
from service.gen.channelchoice.v1.outcome_service_pb2 import ReportOutcomesRequest
from service.gen.channelchoice.v1.outcome_service_pb2_grpc import OutcomeServiceStub
from tests.service.examples import RULES, choose_request, outcome
from tests.service.security import write_tokens
from tests.service.served import ask_database, read_refusal

_TIMEOUT_SECONDS = 30
Start = Callable[..., "Process"]


@dataclass(frozen=True, kw_only=True)
class Process:
    """A running service: its process, what it wrote to its log until it served, and a channel to it."""

    popen: subprocess.Popen[str]
    address: str
    grpc_channel: grpc.Channel
    log: list[dict[str, Any]] = field(default_factory=list)

    def choose(self, request: ChooseChannelRequest) -> ChooseChannelResponse:
        stub = ChannelChoiceServiceStub(self.grpc_channel)
        return stub.ChooseChannel(request, timeout=_TIMEOUT_SECONDS, wait_for_ready=True)

    def report(self, event_id: str, decision_id: str) -> OutcomeResult:
        sent = outcome(event_id, OUTCOME_TYPE_SENT, decision_id=decision_id)
        request = ReportOutcomesRequest(outcomes=[sent])
        return OutcomeServiceStub(self.grpc_channel).ReportOutcomes(request, timeout=_TIMEOUT_SECONDS).results[0]

    @property
    def health(self) -> Any:
        """The health stub, whose type stubs lack the methods."""
        return HealthStub(self.grpc_channel)

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Send a signal and return the exit code."""
        self.popen.send_signal(number)
        return self.popen.wait(_TIMEOUT_SECONDS)


def command(folder: Path, *options: str) -> list[str]:
    """The command that serves from a folder."""
    (folder / "rules.toml").write_text(RULES)
    known = ["--database-url", f"sqlite:///{folder / 'store.db'}", "--rules-file", str(folder / "rules.toml")]
    return [sys.executable, "-m", "service", "--log-format", "json", *known, *options]


def run(root: Path, folder: Path, *options: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the command to its end."""
    return subprocess.run(
        command(folder, *options),
        cwd=root,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=_TIMEOUT_SECONDS,
        check=False,
    )


@contextlib.contextmanager
def started(root: Path, folder: Path, *options: str) -> Iterator[Process]:
    """Start the service and wait for the line of its log that says that it serves; kill it at the end."""
    arguments = command(folder, "--address", "127.0.0.1:0", *options)
    with subprocess.Popen(arguments, cwd=root, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as popen:
        try:
            log = list(read_log(popen))
            threading.Thread(target=lambda: list(popen.stderr or ()), daemon=True).start()
            with grpc.insecure_channel(log[-1]["address"]) as channel:
                yield Process(popen=popen, address=log[-1]["address"], grpc_channel=channel, log=log)
        finally:
            popen.kill()


def read_log(popen: subprocess.Popen[str]) -> Iterator[dict[str, Any]]:
    """Read log lines up to the one that says that the service serves."""
    assert popen.stderr is not None
    for line in popen.stderr:
        if line.startswith("{"):
            entry = json.loads(line)
            yield entry
            if entry["event"] == "serving":
                return
    raise AssertionError(f"the service ended before it served, with {popen.wait(_TIMEOUT_SECONDS)}")


@pytest.fixture
def process(root: Path, tmp_path: Path) -> Iterator[Process]:
    with started(root, tmp_path) as process:
        yield process


def request(number: int = 0) -> ChooseChannelRequest:
    """A request that may be sent at any hour, for a customer of its own."""
    return choose_request(f"request-{number}", customer=f"customer-{number}", channels=["in_app"])


def ask_until_turned_away(address: str) -> grpc.StatusCode:
    """Ask over and over on a new connection, and return what the first refused call was refused with."""
    with grpc.insecure_channel(address) as late:
        while True:
            try:
                ChannelChoiceServiceStub(late).ChooseChannel(request(2), timeout=_TIMEOUT_SECONDS)
            except grpc.RpcError as error:
                return read_refusal(error).code


def test_the_service_starts_and_answers(process: Process) -> None:
    """Started on an empty folder the service says where it serves, is healthy, and decides."""
    decision = process.choose(request()).decision

    assert decision.verdict == VERDICT_SEND
    for name in ("", "channelchoice.v1.ChannelChoiceService", "channelchoice.v1.AdminService"):
        assert process.health.Check(HealthCheckRequest(service=name)).status == HealthCheckResponse.SERVING
    assert process.log[-1]["rules"].startswith("test+")
    assert process.log[-1]["bundle"] == "none"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_service_cleanly(process: Process, number: signal.Signals) -> None:
    """With nothing in flight SIGTERM and SIGINT end the process with exit code 0."""
    process.choose(request())

    assert process.stop(number) == 0


def test_calls_in_flight_survive_the_drain(process: Process, tmp_path: Path) -> None:
    """After SIGTERM health says NOT_SERVING and new calls are turned away, while an open stream is answered to its end."""
    waiting: SimpleQueue[StreamChooseChannelRequest | None] = SimpleQueue()
    answers = ChannelChoiceServiceStub(process.grpc_channel).StreamChooseChannel(
        iter(waiting.get, None), timeout=_TIMEOUT_SECONDS
    )
    waiting.put(StreamChooseChannelRequest(request=request(1)))
    before = next(answers).result.decision
    watch = process.health.Watch(HealthCheckRequest(), timeout=_TIMEOUT_SECONDS)
    statuses = [next(watch).status]

    process.popen.send_signal(signal.SIGTERM)
    statuses.append(next(watch).status)
    watch.cancel()
    code = ask_until_turned_away(process.address)
    waiting.put(StreamChooseChannelRequest(request=request(3)))
    during = next(answers).result.decision
    waiting.put(None)

    assert list(answers) == []
    assert process.popen.wait(_TIMEOUT_SECONDS) == 0
    assert statuses == [HealthCheckResponse.SERVING, HealthCheckResponse.NOT_SERVING]
    assert code in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED)  # CANCELLED: reached gRPC as it shut down
    kept = {row[0] for row in ask_database(tmp_path / "store.db", "SELECT decision_id FROM decisions")}
    assert {before.decision_id, during.decision_id} <= kept


def test_a_stream_that_does_not_end_does_not_hold_the_process(root: Path, tmp_path: Path) -> None:
    """After drain_seconds the process ends though a caller keeps its stream open."""
    waiting: SimpleQueue[StreamChooseChannelRequest | None] = SimpleQueue()
    with started(root, tmp_path, "--drain-seconds", "0.2") as process:
        answers = ChannelChoiceServiceStub(process.grpc_channel).StreamChooseChannel(iter(waiting.get, None))
        waiting.put(StreamChooseChannelRequest(request=request()))
        next(answers)

        code = process.stop()
        waiting.put(None)

        with pytest.raises(grpc.RpcError):
            next(answers)
    assert code == 0


def test_nothing_acknowledged_is_lost_by_kill_9(root: Path, tmp_path: Path) -> None:
    """Killed in the middle of load, every decision and outcome that was answered is in the database and is answered again."""
    acknowledged: SimpleQueue[tuple[ChooseChannelRequest, str, str]] = SimpleQueue()

    def load(process: Process, worker: int) -> None:
        number = worker
        with contextlib.suppress(grpc.RpcError):
            while True:
                asked = request(number)
                decision_id = process.choose(asked).decision.decision_id
                acknowledged.put((asked, decision_id, ""))
                event_id = str(uuid4())
                if process.report(event_id, decision_id).status == OUTCOME_STATUS_ACCEPTED:
                    acknowledged.put((asked, decision_id, event_id))
                number += 8

    with started(root, tmp_path) as process:
        workers = [threading.Thread(target=load, args=(process, worker)) for worker in range(8)]
        for worker in workers:
            worker.start()
        answered = [acknowledged.get(timeout=_TIMEOUT_SECONDS) for _ in range(400)]
        process.popen.kill()
        for worker in workers:
            worker.join(_TIMEOUT_SECONDS)
    while not acknowledged.empty():
        answered.append(acknowledged.get())

    database = tmp_path / "store.db"
    decisions = {row[0] for row in ask_database(database, "SELECT decision_id FROM decisions")}
    events = {row[0] for row in ask_database(database, "SELECT event_id FROM outcomes")}
    assert {decision_id for _, decision_id, _ in answered} <= decisions
    assert {event_id for _, _, event_id in answered if event_id} <= events
    assert ask_database(database, "PRAGMA integrity_check") == [("ok",)]
    with started(root, tmp_path) as again:
        for asked, decision_id, _ in answered[-20:]:
            answer = again.choose(asked)
            assert (answer.replayed, answer.decision.decision_id) == (True, decision_id)


def test_reflection_lets_a_caller_ask_without_the_contract(root: Path, process: Process) -> None:
    """`buf curl` with nothing but the address lists the methods and gets a decision."""
    buf = [str(Path(sys.executable).parent / "buf"), "curl", "--protocol", "grpc", "--http2-prior-knowledge"]
    url = f"http://{process.address}"
    body = {
        "request_id": "by-hand",
        "customer": {"customer_id": "c1"},
        "message": {
            "campaign": "c",
            "kind": "k",
            "category": "MESSAGE_CATEGORY_MARKETING",
            "order_margin": {"micros": "900000000", "currency": "RUB"},
        },
        "channels": [{"channel": "in_app"}],
    }

    def curl(*arguments: str) -> str:
        result = subprocess.run(
            [*buf, *arguments], cwd=root, capture_output=True, text=True, timeout=_TIMEOUT_SECONDS, check=False
        )
        assert result.returncode == 0, result.stderr
        return result.stdout

    methods = curl("--list-methods", url).split()
    answer = json.loads(curl("-d", json.dumps(body), f"{url}/channelchoice.v1.ChannelChoiceService/ChooseChannel"))

    assert "channelchoice.v1.OutcomeService/StreamOutcomes" in methods
    assert answer["decision"]["verdict"] == "VERDICT_SEND"
    assert answer["decision"]["channel"] == "in_app"


def test_a_second_process_on_the_port_refuses_to_start(root: Path, tmp_path: Path, process: Process) -> None:
    """The port is not shared in silence: the second process ends with code 2 and says that it is in use."""
    other = tmp_path / "other"
    other.mkdir()

    result = run(root, other, "--address", process.address)

    assert result.returncode == 2
    assert f"address: cannot listen on {process.address}: in use" in result.stderr
    assert "Traceback" not in result.stderr
    assert process.choose(request()).decision.decision_id


def test_check_tells_what_would_be_served(root: Path, tmp_path: Path) -> None:
    """--check opens everything, prints settings, rules and bundle, and ends with code 0 without listening on the port."""
    result = run(root, tmp_path, "--check", "--address", "127.0.0.1:1")

    assert result.returncode == 0, result.stderr
    assert "address = 127.0.0.1:1" in result.stdout
    assert "6 channels, 3 prices, RUB" in result.stdout
    assert result.stdout.rstrip().endswith("ready to serve")


def test_check_names_the_key_of_a_broken_rules_file(root: Path, tmp_path: Path) -> None:
    """A mistake in the rules file ends --check with code 2 and the key."""
    broken = tmp_path / "broken.toml"
    broken.write_text(RULES.replace("paid_optimism", "").replace("wait_minutes = 180", "wait_minutes = -1"))

    result = run(root, tmp_path, "--check", "--rules-file", str(broken))

    assert result.returncode == 2
    assert "channels.push.wait_minutes" in result.stderr
    assert str(broken) in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize(
    ("options", "environment", "message"),
    [
        (["--workers", "0"], {}, "workers: "),
        (["--address", "0.0.0.0:1"], {}, "address: 0.0.0.0 is not loopback"),
        ([], {"CHANNEL_CHOICE_WORKRES": "1"}, "CHANNEL_CHOICE_WORKRES: no such setting"),
        (["--database-url", "mysql://x/y"], {}, "database_url: the store runs on SQLite"),
        (["--bundle", "/nowhere"], {}, "bundle /nowhere: has no manifest.json"),
        (["--tokens-file", "/nowhere"], {}, "tokens_file: there is no file /nowhere"),
        (["--identity-key-file", "/nowhere/key"], {}, "identity_key_file: cannot be read or made"),
    ],
    ids=["value", "plaintext", "misspelt", "database", "bundle", "tokens", "key"],
)
def test_check_names_the_setting_that_is_wrong(
    root: Path, tmp_path: Path, options: list[str], environment: dict[str, str], message: str
) -> None:
    """Each wrong setting ends --check with code 2, its name, and no traceback."""
    result = run(root, tmp_path, "--check", *options, **environment)

    assert result.returncode == 2
    assert message in result.stderr
    assert "Traceback" not in result.stderr


def test_a_database_of_another_kind_stops_the_start(root: Path, tmp_path: Path) -> None:
    """A file that is no database ends the start with code 2 and what to do."""
    (tmp_path / "store.db").write_text("not a database, but long enough to be looked at " * 50)

    result = run(root, tmp_path)

    assert result.returncode == 2
    assert "move the file away or mend database_url" in result.stderr
    assert "Traceback" not in result.stderr


def test_the_example_is_asked_and_printed(root: Path, tmp_path: Path) -> None:
    """--example prints a request and its answer in words, then serves on."""
    arguments = command(tmp_path, "--address", "127.0.0.1:0", "--example")
    with subprocess.Popen(arguments, cwd=root, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as popen:
        assert popen.stdout is not None
        lines = list(itertools.takewhile(lambda line: line != "Serving until Ctrl-C.\n", popen.stdout))
        popen.terminate()
        code = popen.wait(_TIMEOUT_SECONDS)

    assert lines[0].startswith("ChooseChannel abandoned_cart, an order earns 900.00 RUB")
    assert any(line.startswith("  verdict     SEND through in_app") for line in lines)
    assert code == 0


def test_an_example_that_is_not_answered_does_not_end_the_service(root: Path, tmp_path: Path) -> None:
    """Where a token is needed --example says that it was refused, and the service serves on."""
    arguments = command(tmp_path, "--address", "127.0.0.1:0", "--example", "--tokens-file", str(write_tokens(tmp_path)))
    with subprocess.Popen(arguments, cwd=root, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as popen:
        assert popen.stdout is not None
        lines = list(itertools.takewhile(lambda line: line != "Serving until Ctrl-C.\n", popen.stdout))
        popen.terminate()
        code = popen.wait(_TIMEOUT_SECONDS)

    assert lines[0].startswith("The example was not answered: UNAUTHENTICATED")
    assert code == 0
