"""SQLAlchemy's engines: for migrations, maintenance, and questions of one's own. The server itself speaks to the drivers."""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, NullPool, create_engine, event, inspect, text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import DatabaseError, OperationalError

from models.errors import StoreInvalid
from service.store import sqlite
from service.store.database import MIGRATING, tell
from service.store.opening import cannot_be_opened, migrate
from service.store.url import Url, describe, is_postgres, parse_url

MIGRATIONS = Path(__file__).parent / "migrations"


def make_engine(url: Url, *, is_writing: bool = True) -> Engine:
    """Return an engine whose transactions hold everything that is done in them, the definition of tables included."""
    if is_postgres(url):
        return create_engine(
            make_url(url.text).set(drivername="postgresql+psycopg"),
            poolclass=NullPool,
            connect_args={"connect_timeout": 5},
        )
    engine = create_engine(make_url(url.text), poolclass=NullPool, creator=lambda: sqlite.connect(url))
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
            if engine.dialect.name == "postgresql":
                connection.execute(text("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY"))
            yield connection
    finally:
        engine.dispose()


def upgrade(url: Url, head: str) -> None:
    """Run the migrations that a database lacks, all in one transaction.

    Raises
    ------
    StoreInvalid: it cannot be opened, is no database, is locked, or its schema is not one that this version knows.
    """
    engine = make_engine(url)
    try:
        with engine.begin() as connection:
            if is_postgres(url):
                connection.execute(text(f"SELECT pg_advisory_xact_lock({MIGRATING})"))
            _upgrade(connection, describe(url), head)
    except (OperationalError, sqlite3.OperationalError) as error:
        raise cannot_be_opened(url, getattr(error, "orig", error)) from error
    except (DatabaseError, sqlite3.DatabaseError) as error:
        problem = tell(getattr(error, "orig", error))
        raise StoreInvalid(f"database {describe(url)}: {problem}; {_way_out(url)}") from error
    finally:
        engine.dispose()


def _way_out(url: Url) -> str:
    if is_postgres(url):
        return "give the user the right to make tables there, or mend database_url"
    return "move the file away or mend database_url"


def _upgrade(connection: Connection, name: str, head: str) -> None:
    known = inspect(connection).has_table("alembic_version")
    current: Any = connection.execute(text("SELECT version_num FROM alembic_version")).scalar() if known else None
    if current == head:
        return
    if current is not None and not list((MIGRATIONS / "versions").glob(f"{current}_*.py")):
        raise StoreInvalid(
            f"database {name}: its schema {current} is newer than this version's {head}; run a newer version"
        )
    from alembic import command  # only a database that is new or behind pays for the import
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    config.attributes["connection"] = connection
    command.upgrade(config, "head")
