"""Bundles swapped under load: `python -m tests.faults.reloads` prints what calls and answers came to.

A server process follows an alias, threads call it without a pause, and the alias is moved again and again: between two good bundles, to a corrupt one, to one whose files
are gone. Each answer is then held against the log, and each row of the log is decided again with the bundle that it names: an answer that mixed two bundles
would not come out again.
"""

import argparse
import itertools
import shutil
import signal
import sqlite3
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import grpc
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from grpc_health.v1.health_pb2_grpc import HealthStub

from models.bundle import RESPONSE, Bundle, load_bundle
from models.decide import Decision, decide
from models.record import choice_to_json, pack_actions
from models.rules import Rules, read_rules
from service.gen.channelchoice.v1.channel_choice_service_pb2 import (
    AdvanceCascadeRequest,
    BatchChooseChannelRequest,
    ChooseChannelRequest,
)
from service.gen.channelchoice.v1.channel_choice_service_pb2_grpc import ChannelChoiceServiceStub
from service.gen.channelchoice.v1.decision_pb2 import DECISION_VIEW_FULL, VERDICT_SEND
from service.gen.channelchoice.v1.decision_pb2 import Decision as Answered
from service.gen.channelchoice.v1.outcome_pb2 import OUTCOME_TYPE_UNDELIVERED, Outcome
from service.gen.channelchoice.v1.outcome_service_pb2 import ReportOutcomesRequest
from service.gen.channelchoice.v1.outcome_service_pb2_grpc import OutcomeServiceStub
from service.rpc.server import BUNDLE_HEALTH
from service.store.rows import decision_of
from service.store.store import Store
from tests.faults.run import RULES_FILE, Server
from tests.funnels import write_funnel
from tests.service.examples import choose_request

_SECONDS = 60
_ALIAS = "models:/shop@champion"
_CHANNELS = ("in_app", "push", "email", "viber", "sms")
_BATCH = 5


@dataclass(slots=True, kw_only=True)
class Report:
    """What a run came to."""

    seconds: float = 0.0
    swaps: int = 0
    refusals: int = 0
    """Bad bundles that the alias pointed to, each refused while the one before served."""
    calls: Counter[str] = field(default_factory=Counter)
    failed: list[str] = field(default_factory=list)
    by_version: Counter[str] = field(default_factory=Counter)
    """Answers, by the bundle that they name."""
    checked: int = 0
    """Answers whose row was decided again."""
    mixed: list[str] = field(default_factory=list)
    """Answers that do not come out again under the bundle that they name."""
    told_apart: int = 0
    """Answers that come out otherwise under the other bundle, so that a mix would be seen."""
    exit_code: int = -1

    def lines(self) -> list[str]:
        calls = ", ".join(f"{count} {name}" for name, count in sorted(self.calls.items()))
        return [
            f"{'seconds':<24}{self.seconds:.0f}",
            f"{'swaps':<24}{self.swaps}",
            f"{'bad bundles refused':<24}{self.refusals}",
            f"{'calls':<24}{self.calls.total()}: {calls}",
            f"{'failed calls':<24}{len(self.failed)}",
            f"{'answers checked':<24}{self.checked}, of {len(self.by_version)} bundles",
            f"{'told apart':<24}{self.told_apart}",
            f"{'answers that mix':<24}{len(self.mixed)}",
            *(f"  {problem}" for problem in [*self.failed, *self.mixed][:20]),
        ]


class _Alias:
    """A registry in a file, as the service reads MLflow's, with versions in folders."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "mlflow.db"
        with closing(sqlite3.connect(self.path)) as connection, connection:
            connection.execute("CREATE TABLE model_versions (name, version, source, storage_location)")
            connection.execute("CREATE TABLE registered_model_aliases (name, alias, version)")
            connection.execute("INSERT INTO registered_model_aliases VALUES ('shop', 'champion', 0)")
        self._versions = itertools.count()

    def move(self, bundle: Path) -> None:
        """Register a folder as a new version and point the alias at it."""
        version = next(self._versions)
        with closing(sqlite3.connect(self.path)) as connection, connection:
            connection.execute("INSERT INTO model_versions VALUES ('shop', ?, ?, NULL)", (version, str(bundle)))
            connection.execute("UPDATE registered_model_aliases SET version = ?", (version,))


class _Load:
    """Threads that call until they are told to end; every answer and every failure is kept."""

    def __init__(self, address: str, threads: int, report: Report) -> None:
        self.answers: list[Answered] = []
        self._report = report
        self._numbers = itertools.count()
        self._is_ending = threading.Event()
        self._told = threading.Condition()
        self._channels = [grpc.insecure_channel(address) for _ in range(threads)]
        self._threads = [threading.Thread(target=self._run, args=(channel,)) for channel in self._channels]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def end(self) -> None:
        self._is_ending.set()
        for thread in self._threads:
            thread.join()
        for channel in self._channels:
            channel.close()

    def wait_for(self, wanted: Callable[[Counter[str]], bool]) -> None:
        """Wait until the answers, counted by their bundle, are as wanted."""
        with self._told:
            assert self._told.wait_for(lambda: wanted(self._report.by_version), _SECONDS), self._report.lines()

    def _run(self, channel: grpc.Channel) -> None:
        choices, outcomes = ChannelChoiceServiceStub(channel), OutcomeServiceStub(channel)
        while not self._is_ending.is_set():
            number = next(self._numbers)
            if number % 4 == 3:
                asked = BatchChooseChannelRequest(requests=[_request(f"{number}-{k}") for k in range(_BATCH)])
                batch = self._call("batches", choices.BatchChooseChannel, asked)
                self._keep([result.decision for result in batch.results] if batch else [])
                continue
            found = self._call("choices", choices.ChooseChannel, _request(f"{number}"))
            if found is None:
                continue
            self._keep([found.decision])
            if found.decision.verdict == VERDICT_SEND and number % 2 == 0:
                name = found.decision.decision_id
                failed = Outcome(event_id=f"{number}", type=OUTCOME_TYPE_UNDELIVERED, decision_id=name, step=1)
                failed.occur_time.GetCurrentTime()
                self._call("reports", outcomes.ReportOutcomes, ReportOutcomesRequest(outcomes=[failed]))
                asked_next = AdvanceCascadeRequest(decision_id=name, completed_step=1, view=DECISION_VIEW_FULL)
                following = self._call("advances", choices.AdvanceCascade, asked_next)
                self._keep([following.decision] if following else [])

    def _call(self, name: str, method: Any, request: object) -> Any:
        self._report.calls[name] += 1
        try:
            return method(request, timeout=_SECONDS)
        except grpc.RpcError as error:
            self._report.failed.append(f"{name}: {error}")
            return None

    def _keep(self, answers: list[Answered]) -> None:
        with self._told:
            self.answers += answers
            self._report.by_version.update(answer.versions.bundle for answer in answers)
            self._told.notify_all()


def _request(name: str) -> ChooseChannelRequest:
    return choose_request(f"request-{name}", customer=f"customer-{name}", channels=_CHANNELS)


def run(folder: Path, swaps: int, threads: int) -> Report:
    """Serve, call and swap; what was kept stays in the folder."""
    began, report = time.monotonic(), Report()
    good = [folder / "one", folder / "two"]
    for place, attention in zip(good, (0.5, 2.0), strict=True):
        write_funnel(place, place.name, {"push": attention, "sms": 1 / attention})
    corrupt = Path(shutil.copytree(good[0], folder / "corrupt"))
    (corrupt / RESPONSE).write_text("cut off")
    alias = _Alias(folder)
    alias.move(good[0])
    url = f"sqlite:///{folder / 'store.db'}"
    options = ["--bundle", _ALIAS, "--mlflow-uri", f"sqlite:///{alias.path}", "--bundle-poll-seconds", "0.01"]
    server = Server(folder, 0, url, options)
    server.start()
    try:
        server.wait()
        load = _Load(server.address, threads, report)
        load.start()
        try:
            _swap(alias, good, [corrupt, folder / "gone"], load, server.address, report, swaps)
        finally:
            load.end()
        report.exit_code = server.stop()
    finally:
        server.send(signal.SIGKILL)
    bundles = {bundle.version: bundle for bundle in map(load_bundle, good)}
    _check(url, bundles, read_rules(RULES_FILE), load.answers, report)
    report.seconds = time.monotonic() - began
    return report


def _swap(
    alias: _Alias, good: list[Path], bad: list[Path], load: _Load, address: str, report: Report, swaps: int
) -> None:
    """Move the alias to the other good bundle each time that the one it points to has answered, and now and then to a bad one."""
    versions = [load_bundle(place).version for place in good]
    with grpc.insecure_channel(address) as channel:
        statuses = _statuses(channel)
        next(statuses)
        for number in range(swaps):
            if number % 5 == 4:
                alias.move(bad[number // 5 % len(bad)])
                assert next(statuses) == HealthCheckResponse.NOT_SERVING
                report.refusals += 1
            place = (number + 1) % 2
            before = report.by_version[versions[place]]
            alias.move(good[place])
            if number % 5 == 4:
                assert next(statuses) == HealthCheckResponse.SERVING
            load.wait_for(lambda found, place=place, before=before: found[versions[place]] > before + 1)  # type: ignore[misc]  # bound as defaults
            report.swaps += 1


def _statuses(channel: grpc.Channel) -> Iterator[int]:
    """Yield what health says of the bundle: now, and each time that it changes."""
    stub: Any = HealthStub(channel)  # its type stubs lack the methods
    for answer in stub.Watch(HealthCheckRequest(service=BUNDLE_HEALTH)):
        yield answer.status


def _check(url: str, bundles: dict[str, Bundle], rules: Rules, answers: list[Answered], report: Report) -> None:
    """Decide every row of the log again, and hold every answer against its row."""
    store = Store(url)
    try:
        for answer in answers:
            row = store.read(lambda reader, a=answer: reader.find_step(a.decision_id, a.step))  # type: ignore[misc]  # bound as a default
            if row is None:
                report.mixed.append(f"{answer.request_id} step {answer.step} is not in the log")
                continue
            kept = decision_of(row)
            version = answer.versions.bundle
            if not version:  # the end of a cascade, which no bundle decides
                continue
            report.checked += 1
            other = next(bundle for name, bundle in bundles.items() if name != version)
            is_row = (row.bundle_version, row.propensity) == (version, answer.propensity)
            if not is_row or not _comes_out(kept, rules, bundles[version]) or not _is_answered(answer, kept):
                report.mixed.append(f"{answer.request_id} step {answer.step} is not what {version} decides")
            report.told_apart += kept.distribution is not None and not _comes_out(kept, rules, other)
    finally:
        store.close()


def _comes_out(kept: Decision, rules: Rules, bundle: Bundle) -> bool:
    """Tell whether a decision comes out again, to the bit, under a bundle."""
    again = decide(kept.context, rules, bundle)
    choice = replace(
        again.choice, service_version=kept.choice.service_version, bundle_version=kept.choice.bundle_version
    )
    is_choice = choice_to_json(choice) == choice_to_json(kept.choice)
    return is_choice and pack_actions(again) == pack_actions(kept)


def _is_answered(answer: Answered, kept: Decision) -> bool:
    """Tell whether the distribution that was answered is the one that was kept."""
    logged = [] if kept.distribution is None else list(map(float, kept.distribution.probabilities))
    return sorted(action.propensity for action in answer.actions) == sorted(logged)


def main() -> int:
    """Run and print; 0 where no call failed and no answer mixed bundles."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults.reloads", description=__doc__)
    parser.add_argument("--swaps", type=int, default=200)
    parser.add_argument("--threads", type=int, default=6)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        report = run(Path(folder), options.swaps, options.threads)
    print("\n".join(report.lines()))
    return 1 if report.failed or report.mixed or report.exit_code else 0


if __name__ == "__main__":
    raise SystemExit(main())
