"""PostgreSQL: one database for any number of processes.

Transactions are READ COMMITTED. What must not interleave between processes is held by advisory locks, all of a transaction's taken in one
statement at its begin in the order of their numbers, so that no two transactions wait for each other.
"""

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import cache
from typing import Any, TypeVar

import psycopg
from psycopg import errors
from sqlalchemy.dialects import postgresql
from sqlalchemy.dialects.postgresql import psycopg as dialect
from sqlalchemy.engine import URL

from models.errors import StoreUnavailable
from service.store.database import BUSY_SECONDS, Cursor
from service.store.statements import compile_statements

T = TypeVar("T")
Connection = psycopg.Connection[tuple[Any, ...]]
BROKEN: tuple[type[Exception], ...] = (psycopg.OperationalError, psycopg.InternalError, psycopg.ProgrammingError)
"""The last is of tables that are not there, or may not be written: nothing of a unit."""
_CONNECT_SECONDS = 5
_LOCK = "SELECT count(pg_advisory_xact_lock(number)) FROM unnest(%s::bigint[]) AS number"


@cache
def _statements() -> dict[str, str]:
    return compile_statements(dialect.dialect(), postgresql.insert)  # type: ignore[no-untyped-call]  # SQLAlchemy's own


def connect(url: URL) -> Connection:
    """Open a connection on which nothing waits for longer than BUSY_SECONDS, and a commit is on disk when it is answered."""
    limit = round(BUSY_SECONDS * 1000)
    settings = {
        "statement_timeout": limit,
        "lock_timeout": limit,
        "idle_in_transaction_session_timeout": 2 * limit,
        "synchronous_commit": "on",
        "default_transaction_isolation": r"read\ committed",
    }
    return psycopg.connect(
        url.set(drivername="postgresql").render_as_string(hide_password=False),
        autocommit=True,
        connect_timeout=_CONNECT_SECONDS,
        application_name="channel-choice",
        options=" ".join(f"-c {name}={value}" for name, value in settings.items()),
        keepalives_idle=10,
        keepalives_interval=5,
        keepalives_count=3,
        tcp_user_timeout=2 * limit,
    )


class PostgresCursor:
    """Runs statements by name; see Cursor."""

    def __init__(self, connection: Connection) -> None:
        self._cursor = connection.cursor()
        self._sql = _statements()

    def _execute(self, name: str, values: Mapping[str, Any]) -> psycopg.Cursor[tuple[Any, ...]]:
        return self._cursor.execute(self._sql[name], values)

    def rows(self, name: str, values: Mapping[str, Any]) -> list[Any]:
        return self._execute(name, values).fetchall()

    def row(self, name: str, values: Mapping[str, Any]) -> Any:
        return self._execute(name, values).fetchone()

    def run(self, name: str, values: Mapping[str, Any]) -> int:
        return self._execute(name, values).rowcount

    def run_many(self, name: str, values: Sequence[Mapping[str, Any]]) -> None:
        if values:
            self._cursor.executemany(self._sql[name], values)


class PostgresSession:
    """Writes groups of units, each in a savepoint, and connects again where the connection was lost; see Session."""

    def __init__(self, url: URL) -> None:
        self._url = url
        self.broken = BROKEN
        self._open()

    def _open(self) -> None:
        self._connection = connect(self._url)
        self.cursor: Cursor = PostgresCursor(self._connection)

    def begin(self, locks: Iterable[int]) -> None:
        if self._connection.closed:
            self._open()
        self._connection.execute("BEGIN")
        numbers = sorted(set(locks))
        if numbers:
            self._connection.execute(_LOCK, [numbers])

    def run_unit(self, unit: Callable[[Cursor], T]) -> T:
        self._connection.execute("SAVEPOINT unit")
        try:
            result = unit(self.cursor)
        except self.broken:
            raise
        except Exception:
            self._connection.execute("ROLLBACK TO unit; RELEASE unit")
            raise
        self._connection.execute("RELEASE unit")
        return result

    def commit(self) -> None:
        self._connection.execute("COMMIT")

    def roll_back(self) -> None:
        try:
            self._connection.execute("ROLLBACK")
        except psycopg.Error:
            self._connection.close()

    def is_worth_repeating(self, error: Exception) -> bool:
        """Tell whether it was a deadlock, or a connection that was lost while nothing was asked of it, as after a restart."""
        return isinstance(error, errors.DeadlockDetected | errors.SerializationFailure) or self._connection.closed

    def close(self) -> None:
        self._connection.close()


class Postgres:
    """A PostgreSQL database; threads that read share a bounded number of connections."""

    def __init__(self, url: URL, connections: int) -> None:
        self.broken: tuple[type[Exception], ...] = (psycopg.Error,)
        self._url = url
        self._count = connections
        self._free = threading.Semaphore(connections)
        self._idle: list[Connection] = []

    @contextmanager
    def _taken(self) -> Iterator[list[Connection]]:
        """Take a place of the pool; the list has an idle connection or nothing, and what it has at the end is kept."""
        if not self._free.acquire(timeout=BUSY_SECONDS):
            raise StoreUnavailable(
                f"all {self._count} connections to the database are in use; try again, or raise database_connections"
            )
        held: list[Connection] = []
        try:
            with suppress(IndexError):
                held.append(self._idle.pop())
            yield held
        finally:
            self._idle += [connection for connection in held if not connection.closed]
            self._free.release()

    def reading(self, question: Callable[[Cursor], T]) -> T:
        """Ask something; where an idle connection turns out to be lost, as after a restart, ask again on a new one."""
        with self._taken() as held:
            if held:
                try:
                    return question(PostgresCursor(held[0]))
                except psycopg.OperationalError:
                    if not held[0].closed:
                        raise
                    held.clear()
                    self._forget()
            held.append(connect(self._url))
            return question(PostgresCursor(held[0]))

    def _forget(self) -> None:
        """Close all idle connections, since what ended one will have ended the others."""
        with suppress(IndexError):
            while True:
                self._idle.pop().close()

    def session(self) -> PostgresSession:
        return PostgresSession(self._url)

    def close(self) -> None:
        self._forget()
