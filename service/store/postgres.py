"""PostgreSQL: one database for any number of processes.

Transactions are READ COMMITTED. What must not interleave between processes is held by advisory locks, all of a transaction's taken in one
statement at its begin in the order of their numbers, so that no two transactions wait for each other.
"""

import re
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import cache
from typing import Any, TypeVar

import psycopg
from psycopg import errors
from psycopg.abc import PQGen

from models.errors import StoreUnavailable
from service.log import get_logger
from service.store import partitions
from service.store.database import BUSY_SECONDS, MIGRATING, Cursor, Undone, tell
from service.store.sql import read_statements
from service.store.url import Url

T = TypeVar("T")
_log = get_logger(__name__)
BROKEN: tuple[type[Exception], ...] = (psycopg.OperationalError, psycopg.InternalError, psycopg.ProgrammingError)
"""The last is of tables that are not there, or may not be written: nothing of a unit."""
_LOCKED = (errors.DeadlockDetected, errors.SerializationFailure, errors.LockNotAvailable, errors.QueryCanceled)
_CONNECT_SECONDS = 5
_FEW = 4
"""Fewer rows than this are inserted one by one, since a COPY takes two round trips."""
_LOCK = "SELECT count(pg_advisory_xact_lock(number)) FROM unnest(%s::bigint[]) AS number"


@cache
def _statements() -> dict[str, str]:
    return read_statements("postgresql")


_INSERT = re.compile(r"INSERT INTO (?P<table>\w+) \((?P<columns>[^)]*)\)")


@cache
def _columns() -> dict[str, str]:
    """Return the columns of every table that rows are inserted into, as its inserts name them: all of them."""
    found = map(_INSERT.match, _statements().values())
    return {match["table"]: match["columns"] for match in found if match}


class Silent(psycopg.OperationalError):
    """Raised when the server keeps a connection open but does not answer on it."""


class Connection(psycopg.Connection[tuple[Any, ...]]):
    """A connection that does not wait for ever: the server's own limits are of no use where the server, or the way to it, stands still."""

    def wait(self, gen: PQGen[T], interval: float = 0.1, timeout: float | None = None) -> T:
        limit = 2 * BUSY_SECONDS
        begun = time.monotonic()
        try:
            return super().wait(gen, interval, limit if timeout is None else timeout)
        except psycopg.OperationalError as error:
            if timeout is not None or time.monotonic() - begun < limit:
                raise
            self.close()
            raise Silent(f"it has not answered for {limit:g} seconds") from error


def _conninfo(url: Url) -> str:
    return replace(url, driver="postgresql").render(is_shown=False)


def find_version(url: Url) -> str | None:
    """Return the migration that a database's schema is at, None where it has none; who migrates it meanwhile is waited for."""
    with psycopg.connect(_conninfo(url), connect_timeout=_CONNECT_SECONDS) as connection:
        connection.execute("SELECT pg_advisory_xact_lock(%s)", [MIGRATING])
        known = connection.execute("SELECT to_regclass('alembic_version')").fetchone()
        if known is None or known[0] is None:
            return None
        found = connection.execute("SELECT version_num FROM alembic_version").fetchone()
    return found[0] if found else None


def make_partitions(url: Url) -> None:
    """Make the partitions of the next months; where that cannot be done now, the default one takes what they would have."""
    try:
        with psycopg.connect(_conninfo(url), connect_timeout=_CONNECT_SECONDS) as connection:
            partitions.make_ahead(connection.execute)
    except psycopg.DatabaseError as error:
        _log.warning("no partitions made, run python -m service maintain", error=tell(error))


def connect(url: Url) -> Connection:
    """Open a connection on which nothing waits for longer than BUSY_SECONDS, and a commit is on disk when it is answered."""
    limit = round(BUSY_SECONDS * 1000)
    settings = {
        "statement_timeout": limit,
        "lock_timeout": limit,
        "idle_in_transaction_session_timeout": 2 * limit,
        "synchronous_commit": "on",
        "default_transaction_isolation": r"read\ committed",
    }
    return Connection.connect(
        _conninfo(url),
        autocommit=True,
        connect_timeout=_CONNECT_SECONDS,
        application_name="channel-choice",
        options=" ".join(f"-c {name}={value}" for name, value in settings.items()),
        keepalives_idle=10,
        keepalives_interval=5,
        keepalives_count=3,
        tcp_user_timeout=2 * limit,
    )


@cache
def _tables(name: str) -> frozenset[str]:
    """Return the tables that rows are inserted into and a statement has to do with."""
    words = set(re.findall(r"\w+", _statements()[name]))
    return frozenset(words & _columns().keys())


@cache
def _copy(name: str) -> tuple[str, tuple[str, ...]]:
    """Return the COPY that does what an insert does for many rows, and its columns."""
    (table,) = _tables(name)
    columns = _columns()[table]
    return f"COPY {table} ({columns}) FROM STDIN", tuple(columns.split(", "))


class PostgresCursor:
    """Runs statements by name; see Cursor.

    Inserts wait until a statement has to do with their table, and many of them go in one COPY: a row then costs microseconds instead of a
    round trip.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._cursor = connection.cursor()
        self._sql = _statements()
        self._waiting: dict[str, list[Mapping[str, Any]]] = {}
        self._waiting_tables: set[str] = set()
        self.written = 0
        """How many statements have written, or are to write, something."""

    def _execute(self, name: str, values: Mapping[str, Any]) -> psycopg.Cursor[tuple[Any, ...]]:
        if self._waiting_tables and not self._waiting_tables.isdisjoint(_tables(name)):
            self.send()
        return self._cursor.execute(self._sql[name], values)

    def send(self) -> None:
        """Send the inserts that wait."""
        waiting, self._waiting = self._waiting, {}
        self._waiting_tables.clear()
        few = [(name, row) for name, rows in waiting.items() if len(rows) < _FEW for row in rows]
        if few:
            with self._connection.pipeline():
                for name, row in few:
                    self._cursor.execute(self._sql[name], row)
        for name, rows in waiting.items():
            if len(rows) >= _FEW:
                statement, columns = _copy(name)
                with self._cursor.copy(statement) as copy:
                    for row in rows:
                        copy.write_row([row[column] for column in columns])

    def forget(self) -> None:
        """Forget the inserts that wait."""
        self._waiting.clear()
        self._waiting_tables.clear()

    def insert(self, name: str, values: Mapping[str, Any]) -> None:
        self.written += 1
        self._waiting.setdefault(name, []).append(values)
        self._waiting_tables |= _tables(name)

    def rows(self, name: str, values: Mapping[str, Any]) -> list[Any]:
        return self._execute(name, values).fetchall()

    def row(self, name: str, values: Mapping[str, Any]) -> Any:
        return self._execute(name, values).fetchone()

    def rows_of_each(self, name: str, values: Sequence[Mapping[str, Any]]) -> list[list[Any]]:
        if len(values) < _FEW:
            return [self.rows(name, value) for value in values]
        if not self._waiting_tables.isdisjoint(_tables(name)):
            self.send()
        self._cursor.executemany(self._sql[name], values, returning=True)
        found = [self._cursor.fetchall()]
        while self._cursor.nextset():
            found.append(self._cursor.fetchall())
        return found

    def run(self, name: str, values: Mapping[str, Any]) -> int:
        count = self._execute(name, values).rowcount
        self.written += count
        return count

    def run_many(self, name: str, values: Sequence[Mapping[str, Any]]) -> None:
        if values:
            self.written += 1
            self._cursor.executemany(self._sql[name], values)


class PostgresSession:
    """Writes groups of units, and connects again where the connection was lost; see Session.

    A careful group has a savepoint for each unit. Others have none, which saves two round trips for each: a unit that fails before it has
    written anything needs none, and one that fails later, which is rare, has its group run again carefully.
    """

    def __init__(self, url: Url) -> None:
        self._url = url
        self.broken = BROKEN
        self._open()

    def _open(self) -> None:
        self._connection = connect(self._url)
        self._is_careful = False

    def begin(self, locks: Iterable[int], *, is_careful: bool) -> None:
        if self._connection.closed:
            self._open()
        self._is_careful = is_careful
        self._cursor = PostgresCursor(self._connection)
        numbers = sorted(set(locks))
        with self._connection.pipeline():  # both in one round trip
            self._connection.execute("BEGIN")
            if numbers:
                self._connection.execute(_LOCK, [numbers])

    def run_unit(self, unit: Callable[[Cursor], T]) -> T:
        return self._run_in_savepoint(unit) if self._is_careful else self._run_alone(unit)

    def _run_alone(self, unit: Callable[[Cursor], T]) -> T:
        before = self._cursor.written
        try:
            return unit(self._cursor)
        except self.broken:
            raise
        except Exception as error:
            if self._cursor.written == before and not isinstance(error, psycopg.Error):
                raise
            raise Undone from error

    def _run_in_savepoint(self, unit: Callable[[Cursor], T]) -> T:
        self._connection.execute("SAVEPOINT unit")
        try:
            result = unit(self._cursor)
            self._cursor.send()
        except self.broken:
            raise
        except Exception:
            self._cursor.forget()
            self._connection.execute("ROLLBACK TO unit; RELEASE unit")
            raise
        self._connection.execute("RELEASE unit")
        return result

    @property
    def cursor(self) -> Cursor:
        return self._cursor

    def finish(self) -> None:
        try:
            self._cursor.send()
        except self.broken:
            raise
        except psycopg.Error as error:
            raise Undone from error

    def commit(self) -> None:
        self._connection.execute("COMMIT")

    def roll_back(self, error: Exception) -> None:
        """Undo the transaction; after anything but a failed unit or a lock, on a new connection, since the server may be another by now."""
        try:
            self._connection.execute("ROLLBACK")
        except psycopg.Error:
            self._connection.close()
        if isinstance(error, self.broken) and not isinstance(error, _LOCKED):
            self._connection.close()

    def is_worth_repeating(self, error: Exception) -> bool:
        """Tell whether it was a deadlock, or a connection that was lost while nothing was asked of it, as after a restart."""
        is_lost = self._connection.closed and not isinstance(error, Silent)
        return is_lost or isinstance(error, errors.DeadlockDetected | errors.SerializationFailure)

    def close(self) -> None:
        self._connection.close()


class Postgres:
    """A PostgreSQL database; threads that read share a bounded number of connections."""

    def __init__(self, url: Url, connections: int) -> None:
        self.broken: tuple[type[Exception], ...] = (psycopg.Error,)
        self.is_shared = True
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
                except psycopg.OperationalError as error:
                    if not held[0].closed or isinstance(error, Silent):
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

    def scrub(self) -> None:
        """Do nothing: no dump shows what was deleted, and vacuum takes it off the disk."""

    def close(self) -> None:
        self._forget()
