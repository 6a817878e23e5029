"""Opening a database: connections, pragmas, and the schema brought up to date."""

from pathlib import Path
from typing import Any

from sqlalchemy import Engine, create_engine, event, inspect, text
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, DatabaseError, OperationalError

from models.errors import SettingsInvalid, StoreInvalid, Violation

MIGRATIONS = Path(__file__).parent / "migrations"
HEAD = "0003"
"""The newest migration; the store's tests hold it against the migrations folder."""
_BUSY_SECONDS = 5.0


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
    if parsed.get_backend_name() != "sqlite":
        raise _refuse(f"the store runs on SQLite, not on {parsed.get_backend_name()}; write sqlite:///path/to/file.db")
    if not parsed.database or parsed.database == ":memory:":
        raise _refuse("name a file, such as sqlite:///var/channel_choice.db, so that decisions are kept")
    return parsed


def _refuse(problem: str) -> SettingsInvalid:
    return SettingsInvalid([Violation(field="database_url", description=problem)], "settings")


def open_engine(url: str) -> Engine:
    """Open a database, make it where there is none, and bring its schema up to date.

    Raises
    ------
    StoreInvalid: it cannot be opened, is no database, is locked, or its schema is newer than this version.
    """
    parsed = parse_url(url)
    path = Path(str(parsed.database))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StoreInvalid(f"database {path}: cannot make its folder: {error}; mend database_url") from error
    engine = create_engine(parsed, connect_args={"timeout": _BUSY_SECONDS, "check_same_thread": False})
    event.listen(engine, "connect", _set_pragmas)
    try:
        _migrate(engine, path)
    except OperationalError as error:
        raise StoreInvalid(f"database {path}: {error.orig}; {_way_out(str(error.orig))}") from error
    except DatabaseError as error:
        raise StoreInvalid(f"database {path}: {error.orig}; move the file away or mend database_url") from error
    return engine


def _way_out(problem: str) -> str:
    if "locked" in problem:
        return "another process holds it; stop that process, or give this one a database of its own"
    return "check that the folder exists and can be written, or mend database_url"


def _set_pragmas(connection: Any, _record: Any) -> None:
    """Set what SQLite needs to survive kill and power loss (WAL, full synchronisation) and to be read while written."""
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("PRAGMA foreign_keys = ON")


def _migrate(engine: Engine, path: Path) -> None:
    with engine.connect() as connection:
        known = inspect(connection).has_table("alembic_version")
        current = connection.execute(text("SELECT version_num FROM alembic_version")).scalar() if known else None
    if current == HEAD:
        return
    if current is not None and not list((MIGRATIONS / "versions").glob(f"{current}_*.py")):
        raise StoreInvalid(
            f"database {path}: its schema {current} is newer than this version's {HEAD}; run a newer version"
        )
    from alembic import command  # only a database that is new or behind pays for the import
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "head")
