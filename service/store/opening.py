"""Opening a database: which engine it is, and its schema brought up to date.

A database that is up to date is found so by its driver alone; only one that is not pays for SQLAlchemy and the migrations.
"""

import sqlite3
from pathlib import Path

from models.errors import StoreInvalid
from service.store import sqlite
from service.store.database import Database, tell
from service.store.url import Url, describe, is_postgres, parse_url

HEAD = "0007"
"""The newest migration; the store's tests hold it against the migrations folder."""


def open_database(url: str, connections: int) -> Database:
    """Open a database, make it where it is a file that is not there, and bring its schema up to date.

    Raises
    ------
    StoreInvalid: it cannot be opened, is no database, is locked, or its schema is newer than this version.
    """
    parsed = parse_url(url)
    migrate(url)
    if not is_postgres(parsed):
        return sqlite.Sqlite(parsed)
    from service.store.postgres import Postgres, make_partitions  # a service on SQLite does not pay for the driver

    make_partitions(parsed)
    return Postgres(parsed, connections)


def migrate(url: str) -> None:
    """Bring the schema of a database up to date, and make it where there is none; see open_database."""
    parsed = parse_url(url)
    if _find_version(parsed) != HEAD:
        from service.store.engine import upgrade

        upgrade(parsed, HEAD)


def _find_version(url: Url) -> str | None:
    """Return the migration that a database's schema is at; None where it has none, or what is wrong is for the migrations to tell."""
    if is_postgres(url):
        import psycopg

        from service.store.postgres import find_version

        try:
            return find_version(url)
        except psycopg.OperationalError as error:
            raise cannot_be_opened(url, error) from error
        except psycopg.Error:
            return None
    try:
        Path(str(url.database)).parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StoreInvalid(f"database {describe(url)}: cannot make its folder: {error}; mend database_url") from error
    try:
        return sqlite.find_version(url)
    except sqlite3.OperationalError as error:
        raise cannot_be_opened(url, error) from error
    except sqlite3.Error:
        return None


def cannot_be_opened(url: Url, error: Exception) -> StoreInvalid:
    """Return the refusal of a database that its driver cannot reach or must wait for too long."""
    problem = tell(error)
    if is_postgres(url):
        way_out = "check that the server runs, takes connections and lets this user in, or mend database_url"
    elif "locked" in problem:
        way_out = "another process holds it; stop that process, or give this one a database of its own"
    else:
        way_out = "check that the folder exists and can be written, or mend database_url"
    return StoreInvalid(f"database {describe(url)}: {problem}; {way_out}")
