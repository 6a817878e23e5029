"""Opening a database: which engine it is, and its schema brought up to date."""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import structlog
from sqlalchemy import Connection, Engine, NullPool, create_engine, event, inspect, text
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, DatabaseError, OperationalError

from models.errors import SettingsInvalid, StoreInvalid, Violation
from service.store import partitions, sqlite
from service.store.database import Database, lock_key, tell

_log = structlog.get_logger(__name__)
MIGRATIONS = Path(__file__).parent / "migrations"
HEAD = "0007"
"""The newest migration; the store's tests hold it against the migrations folder."""
_MIGRATING = lock_key("table", "alembic_version")


def parse_url(url: str) -> URL:
    """Parse a database URL.

    Raises
    ------
    SettingsInvalid: it is not the URL of a database that the store runs on.
    """
    try:
        parsed = make_url(url)
    except ArgumentError as error:
        raise _refuse(f"{error}; write one such as sqlite:///var/channel_choice.db") from error
    if parsed.drivername in ("postgresql", "postgresql+psycopg"):
        if not parsed.database:
            raise _refuse("name a database, such as postgresql://user@host/channel_choice")
        return parsed
    if parsed.get_backend_name() != "sqlite":
        raise _refuse(
            f"the store runs on SQLite and PostgreSQL, not on {parsed.drivername}; "
            "write sqlite:///path/to/file.db or postgresql://user@host/database"
        )
    if not parsed.database or parsed.database == ":memory:":
        raise _refuse("name a file, such as sqlite:///var/channel_choice.db, so that decisions are kept")
    return parsed


def is_postgres(url: URL) -> bool:
    return url.get_backend_name() == "postgresql"


def folder_beside(url: str) -> Path:
    """Return the folder for files that go with a database: the file's own, or var where the database is a server's."""
    parsed = parse_url(url)
    return Path("var") if is_postgres(parsed) else Path(str(parsed.database)).parent


def describe(url: URL) -> str:
    """Return what a database is called in messages: without its password."""
    return url.render_as_string() if is_postgres(url) else str(url.database)


def _refuse(problem: str) -> SettingsInvalid:
    return SettingsInvalid([Violation(field="database_url", description=problem)], "settings")


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
    from service.store.postgres import Postgres  # a service on SQLite does not pay for the driver

    _make_partitions(parsed)
    return Postgres(parsed, connections)


def migrate(url: str) -> None:
    """Bring the schema of a database up to date, and make it where there is none; see open_database."""
    parsed = parse_url(url)
    name = describe(parsed)
    if not is_postgres(parsed):
        try:
            Path(str(parsed.database)).parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StoreInvalid(f"database {name}: cannot make its folder: {error}; mend database_url") from error
    engine = make_engine(parsed)
    try:
        with engine.begin() as connection:
            if is_postgres(parsed):
                connection.execute(text(f"SELECT pg_advisory_xact_lock({_MIGRATING})"))
            _upgrade(connection, name)
    except (OperationalError, sqlite3.OperationalError) as error:
        problem = tell(getattr(error, "orig", error))
        raise StoreInvalid(f"database {name}: {problem}; {_way_out(parsed, problem)}") from error
    except (DatabaseError, sqlite3.DatabaseError) as error:
        problem = tell(getattr(error, "orig", error))
        raise StoreInvalid(f"database {name}: {problem}; {_other_way_out(parsed)}") from error
    finally:
        engine.dispose()


def _make_partitions(url: URL) -> None:
    """Make the partitions of the next months; where that cannot be done now, the default one takes what they would have."""
    engine = make_engine(url)
    try:
        with engine.begin() as connection:
            partitions.make_ahead(connection)
    except DatabaseError as error:
        _log.warning("no partitions made, run python -m service maintain", error=tell(error.orig or error))
    finally:
        engine.dispose()


def make_engine(url: URL, *, is_writing: bool = True) -> Engine:
    """Return an engine whose transactions hold everything that is done in them, the definition of tables included."""
    if is_postgres(url):
        return create_engine(
            url.set(drivername="postgresql+psycopg"), poolclass=NullPool, connect_args={"connect_timeout": 5}
        )
    engine = create_engine(url, poolclass=NullPool, creator=lambda: sqlite.connect(url))
    # Begun by hand: sqlite3 by itself would commit each change of a table at once, and a migration could stop half way.
    begin = "BEGIN IMMEDIATE" if is_writing else "BEGIN"
    event.listen(engine, "begin", lambda connection: connection.exec_driver_sql(begin))
    return engine


@contextmanager
def asking(url: str) -> Iterator[Connection]:
    """Connect to a database for questions of one's own, all answered from one moment.

    Raises
    ------
    StoreInvalid: see open_database.
    """
    migrate(url)
    engine = make_engine(parse_url(url), is_writing=False)
    try:
        with engine.connect() as connection:
            if is_postgres(engine.url):
                connection.execute(text("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY"))
            yield connection
    finally:
        engine.dispose()


def _way_out(url: URL, problem: str) -> str:
    if is_postgres(url):
        return "check that the server runs, takes connections and lets this user in, or mend database_url"
    if "locked" in problem:
        return "another process holds it; stop that process, or give this one a database of its own"
    return "check that the folder exists and can be written, or mend database_url"


def _other_way_out(url: URL) -> str:
    if is_postgres(url):
        return "give the user the right to make tables there, or mend database_url"
    return "move the file away or mend database_url"


def _upgrade(connection: Connection, name: str) -> None:
    known = inspect(connection).has_table("alembic_version")
    current: Any = connection.execute(text("SELECT version_num FROM alembic_version")).scalar() if known else None
    if current == HEAD:
        return
    if current is not None and not list((MIGRATIONS / "versions").glob(f"{current}_*.py")):
        raise StoreInvalid(
            f"database {name}: its schema {current} is newer than this version's {HEAD}; run a newer version"
        )
    from alembic import command  # only a database that is new or behind pays for the import
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    config.attributes["connection"] = connection
    command.upgrade(config, "head")
