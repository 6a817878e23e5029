"""SQLite: one file, for one process."""

import sqlite3
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from typing import Any, TypeVar

from service.store.database import BUSY_SECONDS, Cursor
from service.store.sql import read_statements
from service.store.url import Url

T = TypeVar("T")
BROKEN = (sqlite3.OperationalError,)


@cache
def _statements() -> dict[str, str]:
    return read_statements("sqlite")


def connect(url: Url) -> sqlite3.Connection:
    """Open a connection that survives kill and power loss (WAL, full synchronisation), can be read while written, and wipes what it deletes."""
    connection = sqlite3.connect(str(url.database), timeout=BUSY_SECONDS, check_same_thread=False, isolation_level=None)
    try:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA foreign_keys = ON")
        connection.execute("PRAGMA secure_delete = ON")
    except sqlite3.Error:
        connection.close()
        raise
    return connection


def find_version(url: Url) -> str | None:
    """Return the migration that a file's schema is at, None where it has none; asked as its only writer, which another process may not be."""
    connection = connect(url)
    try:
        connection.execute("BEGIN IMMEDIATE")
        known = connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'alembic_version'").fetchone()
        found = known and connection.execute("SELECT version_num FROM alembic_version").fetchone()
    finally:
        connection.close()
    return found[0] if found else None


class SqliteCursor:
    """Runs statements by name; see Cursor."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._cursor = connection.cursor()
        self._sql = _statements()

    def rows(self, name: str, values: Mapping[str, Any]) -> list[Any]:
        return self._cursor.execute(self._sql[name], values).fetchall()

    def row(self, name: str, values: Mapping[str, Any]) -> Any:
        return self._cursor.execute(self._sql[name], values).fetchone()

    def rows_of_each(self, name: str, values: Sequence[Mapping[str, Any]]) -> list[list[Any]]:
        return [self.rows(name, value) for value in values]

    def run(self, name: str, values: Mapping[str, Any]) -> int:
        return self._cursor.execute(self._sql[name], values).rowcount

    def insert(self, name: str, values: Mapping[str, Any]) -> None:
        self._cursor.execute(self._sql[name], values)

    def run_many(self, name: str, values: Sequence[Mapping[str, Any]]) -> None:
        self._cursor.executemany(self._sql[name], values)


class SqliteSession:
    """Writes groups of units, each in a savepoint; see Session."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._cursor = SqliteCursor(connection)
        self.broken: tuple[type[Exception], ...] = BROKEN

    def begin(self, locks: Iterable[int], *, is_careful: bool) -> None:
        """Begin as the only writer of the file, which every lock is part of; savepoints cost next to nothing here."""
        self._connection.execute("BEGIN IMMEDIATE")

    def run_unit(self, unit: Callable[[Cursor], T]) -> T:
        self._connection.execute("SAVEPOINT unit")
        try:
            result = unit(self._cursor)
        except self.broken:
            raise
        except Exception:
            self._connection.execute("ROLLBACK TO unit")
            self._connection.execute("RELEASE unit")
            raise
        self._connection.execute("RELEASE unit")
        return result

    @property
    def cursor(self) -> Cursor:
        return self._cursor

    def finish(self) -> None:
        """Do nothing: all was sent at once."""

    def commit(self) -> None:
        self._connection.execute("COMMIT")

    def roll_back(self, error: Exception) -> None:
        if self._connection.in_transaction:
            self._connection.execute("ROLLBACK")

    def is_worth_repeating(self, error: Exception) -> bool:
        return False

    def close(self) -> None:
        self._connection.close()


class Sqlite:
    """An SQLite file; threads that read at the same time have a connection each, and the one that was used last is taken first.

    Each connection keeps pages and prepared statements of its own: with few of them there are fewer copies, and these are in use.
    """

    def __init__(self, url: Url) -> None:
        self.broken: tuple[type[Exception], ...] = (sqlite3.Error,)
        self.is_shared = False
        self._url = url
        self._idle: list[SqliteCursor] = []
        self._connections: list[sqlite3.Connection] = []

    def reading(self, question: Callable[[Cursor], T]) -> T:
        try:
            cursor = self._idle.pop()
        except IndexError:
            cursor = self._open()
        try:
            return question(cursor)
        finally:
            self._idle.append(cursor)

    def _open(self) -> SqliteCursor:
        connection = connect(self._url)
        self._connections.append(connection)
        return SqliteCursor(connection)

    def session(self) -> SqliteSession:
        return SqliteSession(connect(self._url))

    def scrub(self) -> None:
        """Empty the write-ahead log, whose old pages hold what the file itself does not any more; a reader may put that off to the next time."""
        connection = connect(self._url)
        try:
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        finally:
            connection.close()

    def close(self) -> None:
        self._idle.clear()
        for connection in self._connections:
            connection.close()
        self._connections.clear()
