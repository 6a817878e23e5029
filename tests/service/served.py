"""A service in this process, spoken to over a real socket, whose clock the test moves."""

import contextlib
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import grpc
import psycopg
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo, RetryInfo
from grpc_status import rpc_status

from service.app import App, open_app
from service.gen.channelchoice.v1.admin_service_pb2_grpc import AdminServiceStub
from service.gen.channelchoice.v1.channel_choice_service_pb2 import (
    AdvanceCascadeRequest,
    ChooseChannelRequest,
    ChooseChannelResponse,
    GetDecisionRequest,
    GetDecisionResponse,
)
from service.gen.channelchoice.v1.channel_choice_service_pb2_grpc import ChannelChoiceServiceStub
from service.gen.channelchoice.v1.customer_service_pb2_grpc import CustomerServiceStub
from service.gen.channelchoice.v1.decision_pb2 import DECISION_VIEW_FULL, Decision
from service.gen.channelchoice.v1.outcome_pb2 import Outcome, OutcomeResult, OutcomeStatus
from service.gen.channelchoice.v1.outcome_service_pb2 import ReportOutcomesRequest
from service.gen.channelchoice.v1.outcome_service_pb2_grpc import OutcomeServiceStub
from service.settings import Settings
from tests.postgres import PostgresServer
from tests.service.examples import NOW, RULES

_TIMEOUT_SECONDS = 30


class MovedClock:
    """A clock that stands still until it is moved."""

    def __init__(self, moment: datetime = NOW) -> None:
        self.moment = moment

    def now(self) -> datetime:
        return self.moment

    def move(self, by: timedelta) -> datetime:
        self.moment += by
        return self.moment


@dataclass(frozen=True, kw_only=True)
class Served:
    """A serving service: its stubs, clock and files."""

    app: App
    clock: MovedClock
    database: str
    grpc_channel: grpc.Channel = field(repr=False)

    @property
    def decisions(self) -> ChannelChoiceServiceStub:
        return ChannelChoiceServiceStub(self.grpc_channel)

    @property
    def outcomes(self) -> OutcomeServiceStub:
        return OutcomeServiceStub(self.grpc_channel)

    @property
    def customers(self) -> CustomerServiceStub:
        return CustomerServiceStub(self.grpc_channel)

    @property
    def admin(self) -> AdminServiceStub:
        return AdminServiceStub(self.grpc_channel)

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.app.server.port}"

    def choose(self, request: ChooseChannelRequest) -> ChooseChannelResponse:
        return self.decisions.ChooseChannel(request, timeout=_TIMEOUT_SECONDS)

    def decide(self, request: ChooseChannelRequest) -> Decision:
        return self.choose(request).decision

    def advance(self, decision_id: str, completed_step: int) -> Decision:
        request = AdvanceCascadeRequest(decision_id=decision_id, completed_step=completed_step, view=DECISION_VIEW_FULL)
        return self.decisions.AdvanceCascade(request, timeout=_TIMEOUT_SECONDS).decision

    def get(self, decision_id: str) -> GetDecisionResponse:
        return self.decisions.GetDecision(GetDecisionRequest(decision_id=decision_id), timeout=_TIMEOUT_SECONDS)

    def report(self, *outcomes: Outcome) -> Sequence[OutcomeResult]:
        request = ReportOutcomesRequest(outcomes=outcomes)
        return self.outcomes.ReportOutcomes(request, timeout=_TIMEOUT_SECONDS).results

    def statuses(self, *outcomes: Outcome) -> list[str]:
        """Report outcomes and return the names of their statuses, without the prefix."""
        return [OutcomeStatus.Name(result.status).removeprefix("OUTCOME_STATUS_") for result in self.report(*outcomes)]

    def rows(self, question: str, *values: object) -> list[Any]:
        """Ask the database something, as anyone who may read it could."""
        return ask_database(self.database, question, *values)


def sqlite_in(folder: Path) -> str:
    """Return the URL of the SQLite file in a folder."""
    return f"sqlite:///{folder / 'store.db'}"


database_in: Callable[[Path], str] = sqlite_in
"""The URL of the database that goes with a folder, of the engine that the test is about."""


class PostgresDatabases:
    """Databases of a server, one for each folder, until they are dropped."""

    def __init__(self, server: PostgresServer) -> None:
        self._server = server
        self._urls: dict[Path, str] = {}

    def url(self, folder: Path) -> str:
        if folder not in self._urls:
            self._urls[folder] = self._server.make_migrated()
        return self._urls[folder]

    def drop(self) -> None:
        for url in self._urls.values():
            self._server.drop(url)


@contextlib.contextmanager
def connected(url: str) -> Iterator[Callable[..., Any]]:
    """Connect to a database beside the service; what is called with a statement and values, for ?, runs it at once."""
    if url.startswith("sqlite"):
        with contextlib.closing(sqlite3.connect(url.removeprefix("sqlite:///"), isolation_level=None)) as connection:
            yield lambda statement, *values: connection.execute(statement, values)
    else:
        with contextlib.closing(psycopg.connect(url, autocommit=True)) as other:
            yield lambda statement, *values: other.execute(statement.replace("?", "%s"), values or None)


def ask_database(database: Path | str, question: str, *values: object) -> list[Any]:
    """Read rows of a database, or of an SQLite file, over a connection of its own."""
    with connected(f"sqlite:///{database}" if isinstance(database, Path) else database) as run:
        return list(run(question, *values).fetchall())


def settings_in(folder: Path, rules: str = RULES, **changes: Any) -> Settings:
    """Settings of a service that keeps everything in a folder and takes a free port of loopback."""
    rules_file = folder / "rules.toml"
    rules_file.write_text(rules)
    known: dict[str, Any] = {
        "address": "127.0.0.1:0",
        "database_url": database_in(folder),
        "identity_key_file": folder / "identity.key",
        "rules_file": rules_file,
        "bundle_cache": folder / "bundles",
    }
    return Settings(**(known | changes))


@contextlib.contextmanager
def serve(
    folder: Path,
    rules: str = RULES,
    *,
    clock: MovedClock | None = None,
    credentials: grpc.ChannelCredentials | None = None,
    **changes: Any,
) -> Iterator[Served]:
    """Serve from a folder until the end of the block."""
    clock = clock or MovedClock()
    settings = settings_in(folder, rules, **changes)
    with open_app(settings, clock) as app, contextlib.ExitStack() as closing:
        app.server.start()
        closing.callback(app.server.stop, 0)
        host = "localhost" if credentials is not None else "127.0.0.1"
        target = f"{host}:{app.server.port}"
        channel = grpc.insecure_channel(target) if credentials is None else grpc.secure_channel(target, credentials)
        closing.enter_context(channel)
        yield Served(app=app, clock=clock, database=settings.database_url, grpc_channel=channel)


@dataclass(frozen=True, kw_only=True)
class Refusal:
    """What a call was refused with."""

    code: grpc.StatusCode
    message: str
    reason: str
    metadata: dict[str, str]
    violations: dict[str, str]
    retry_seconds: float | None


@contextlib.contextmanager
def refused() -> Iterator[list[Refusal]]:
    """Expect the call in the block to be refused; afterwards the list holds the one refusal."""
    found: list[Refusal] = []
    try:
        yield found
    except grpc.RpcError as error:
        found.append(read_refusal(error))
    else:
        raise AssertionError("the call was answered, it was to be refused")


def read_refusal(error: grpc.RpcError) -> Refusal:
    """Read code and google.rpc details of an error that a client sees."""
    assert isinstance(error, grpc.Call)
    info, bad, retry = ErrorInfo(), BadRequest(), RetryInfo()
    status = rpc_status.from_call(error)
    found = {kind.DESCRIPTOR.name for kind in (info, bad, retry) for any_ in details(status) if any_.Unpack(kind)}
    return Refusal(
        code=error.code(),
        message=error.details() or "",
        reason=info.reason,
        metadata=dict(info.metadata),
        violations={violation.field: violation.description for violation in bad.field_violations},
        retry_seconds=retry.retry_delay.ToTimedelta().total_seconds() if "RetryInfo" in found else None,
    )


def details(status: Any) -> Iterable[Any]:
    return [] if status is None else status.details
