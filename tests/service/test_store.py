"""The store: group commit, migrations, and what happens when the database cannot be had."""

import contextlib
import sqlite3
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import create_engine

from models.errors import SettingsInvalid, StoreInvalid, StoreUnavailable
from service.store import engine, schema
from service.store.engine import HEAD, MIGRATIONS, open_engine
from service.store.store import PauseRow, Store, Unit
from service.store.writer import GroupWriter
from tests.service.examples import choose_request
from tests.service.served import Served, ask_database, refused, serve


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = Store(f"sqlite:///{tmp_path / 'store.db'}")
    yield opened
    opened.close()


def pause(name: str) -> PauseRow:
    return PauseRow(channel=name, pause_time=0, reason="test")


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the database's write lock, as another process might."""
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        yield
        connection.execute("ROLLBACK")


# --- migrations


def test_head_is_the_newest_migration() -> None:
    """The version that the store checks by itself is the last of the migrations folder."""
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))

    assert ScriptDirectory.from_config(config).get_heads() == [HEAD]


def test_migrations_make_exactly_the_schema(tmp_path: Path) -> None:
    """A database that was migrated has the tables, columns and indexes of schema.metadata, and no others."""
    opened = open_engine(f"sqlite:///{tmp_path / 'store.db'}")
    with opened.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        differences = compare_metadata(context, schema.metadata)
    opened.dispose()

    assert differences == []


def test_a_database_is_migrated_once(tmp_path: Path) -> None:
    """Opening again keeps what is stored."""
    url = f"sqlite:///{tmp_path / 'store.db'}"
    for name in ("push", "email"):
        opened = Store(url)
        opened.write(lambda unit, name=name: unit.insert_pause(pause(name)))  # type: ignore[misc]  # bound at once
        opened.close()

    assert ask_database(tmp_path / "store.db", "SELECT channel FROM pauses ORDER BY channel") == [("email",), ("push",)]


def test_a_database_of_the_first_schema_is_brought_up_to_date(tmp_path: Path) -> None:
    """A database of an earlier version gets what is new, and keeps what is stored."""
    path = tmp_path / "store.db"
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    older = create_engine(f"sqlite:///{path}")
    with older.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "0001")
        connection.execute(schema.pauses.insert().values(channel="push", pause_time=0, reason="test"))
    older.dispose()

    opened = Store(f"sqlite:///{path}")
    kept = opened.read(lambda reader: reader.list_pauses())
    opened.close()

    assert kept == [pause("push")]
    assert ask_database(path, "SELECT version_num FROM alembic_version") == [(HEAD,)]
    assert ask_database(path, "SELECT count(*) FROM reservations") == [(0,)]


def test_a_schema_of_a_newer_version_is_refused(tmp_path: Path) -> None:
    """Old code does not touch a database of newer code, and says to run that."""
    path = tmp_path / "store.db"
    Store(f"sqlite:///{path}").close()
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
        connection.commit()

    with pytest.raises(StoreInvalid, match=r"9999 is newer than this version's .*; run a newer version"):
        Store(f"sqlite:///{path}")

    assert ask_database(path, "SELECT version_num FROM alembic_version") == [("9999",)]


# --- databases that cannot be had


def test_a_file_that_is_no_database_is_refused_and_left_alone(tmp_path: Path) -> None:
    """Something else under the database's name is neither used nor changed."""
    path = tmp_path / "letter.txt"
    path.write_text("Dear database, " * 100)

    with pytest.raises(StoreInvalid, match="not a database; move the file away or mend database_url"):
        Store(f"sqlite:///{path}")

    assert path.read_text() == "Dear database, " * 100


def test_a_path_below_a_file_is_refused(tmp_path: Path) -> None:
    """A folder that cannot be made is named with the setting to mend."""
    (tmp_path / "file").write_text("")

    with pytest.raises(StoreInvalid, match=r"cannot make its folder: .*; mend database_url"):
        Store(f"sqlite:///{tmp_path}/file/store.db")


def test_a_path_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    """A folder where the database's file should be cannot be opened, and the message says what to check."""
    with pytest.raises(StoreInvalid, match="unable to open database file; check that the folder"):
        Store(f"sqlite:///{tmp_path}")


def test_a_missing_folder_is_made(tmp_path: Path) -> None:
    """A first start needs no folder to be made by hand."""
    Store(f"sqlite:///{tmp_path}/a/b/store.db").close()

    assert (tmp_path / "a/b/store.db").is_file()


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("nonsense", "write one such as sqlite:///"),
        ("postgresql://host/name", "runs on SQLite"),
        ("sqlite://", "name a file"),
        ("sqlite:///:memory:", "name a file"),
    ],
)
def test_a_url_of_another_kind_is_refused(url: str, problem: str) -> None:
    """What the store does not run on, or what would forget everything, is refused under database_url."""
    with pytest.raises(SettingsInvalid, match=problem) as error:
        Store(url)

    assert error.value.violations[0].field == "database_url"


def test_a_database_locked_at_start_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A new database that another process holds says so, and what to do about it."""
    monkeypatch.setattr(engine, "_BUSY_SECONDS", 0.05)
    path = tmp_path / "store.db"
    sqlite3.connect(path).close()
    with locked(path), pytest.raises(StoreInvalid, match="database is locked; another process holds it"):
        Store(f"sqlite:///{path}")


def test_a_locked_database_makes_calls_unavailable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While another process holds the database a decision is UNAVAILABLE with RetryInfo; afterwards it is made."""
    monkeypatch.setattr(engine, "_BUSY_SECONDS", 0.05)
    with serve(tmp_path) as service:
        with locked(service.database), refused() as refusal:
            service.choose(choose_request())
        decided = service.choose(choose_request())

    assert refusal[0].code is grpc.StatusCode.UNAVAILABLE
    assert refusal[0].reason == "STORE_UNAVAILABLE"
    assert "locked" in refusal[0].message
    assert "try again" in refusal[0].message
    assert refusal[0].retry_seconds == 0.5
    assert not decided.replayed


def test_a_database_that_cannot_be_read_frees_its_locks(tmp_path: Path) -> None:
    """After calls failed in reading, the same customer is served as soon as the database is back."""
    with serve(tmp_path) as service:
        with contextlib.closing(sqlite3.connect(service.database)) as connection:
            connection.execute("ALTER TABLE identities RENAME TO hidden")
            with refused() as refusal:
                service.choose(choose_request())
            connection.execute("ALTER TABLE hidden RENAME TO identities")

        assert refusal[0].code is grpc.StatusCode.UNAVAILABLE
        assert service.decide(choose_request()).decision_id


# --- group commit


def test_a_failing_unit_does_not_undo_its_neighbours(store: Store) -> None:
    """Of units that share a commit, one that raises is undone alone and its caller gets what it raised."""
    is_open, is_begun = threading.Event(), threading.Event()

    def hold_back(_unit: Unit) -> None:
        is_begun.set()
        is_open.wait(10)

    def fail(unit: Unit) -> None:
        unit.insert_pause(pause("lost"))
        raise KeyError("of the unit")

    with ThreadPoolExecutor(4) as pool:
        first = pool.submit(store.write, hold_back)
        is_begun.wait(10)
        good = [pool.submit(store.write, lambda unit: unit.insert_pause(pause("push")))]
        bad = pool.submit(store.write, fail)
        good.append(pool.submit(store.write, lambda unit: unit.insert_pause(pause("email"))))
        is_open.set()
        for future in (first, *good):
            future.result(10)
        with pytest.raises(KeyError, match="of the unit"):
            bad.result(10)

    assert [row.channel for row in store.read(lambda reader: reader.list_pauses())] == ["email", "push"]


def test_a_unit_that_breaks_a_constraint_is_undone_alone(store: Store) -> None:
    """A refused row raises in its own unit; the writer goes on."""

    def twice(unit: Unit) -> None:
        for _ in range(2):
            unit.insert_identities("0" * 32, [b"same"])

    with pytest.raises(sqlite3.IntegrityError):
        store.write(twice)
    store.write(lambda unit: unit.insert_pause(pause("push")))

    assert store.read(lambda reader: reader.find_identities([b"same"])) == {}
    assert len(store.read(lambda reader: reader.list_pauses())) == 1


def test_close_commits_what_waits(tmp_path: Path) -> None:
    """Units that were handed in before the writer is closed are on disk when it is."""
    path = tmp_path / "store.db"
    Store(f"sqlite:///{path}").close()
    writer = GroupWriter(sqlite3.connect(path, check_same_thread=False, isolation_level=None))
    is_open, is_begun = threading.Event(), threading.Event()

    def hold_back(_cursor: sqlite3.Cursor) -> None:
        is_begun.set()
        is_open.wait(10)

    def insert(cursor: sqlite3.Cursor, number: int) -> None:
        cursor.execute("INSERT INTO pauses VALUES (?, 0, 'test')", (f"channel-{number}",))

    with ThreadPoolExecutor(12) as pool:
        pool.submit(writer.run, hold_back)
        is_begun.wait(10)
        waiting = [pool.submit(writer.run, lambda cursor, n=n: insert(cursor, n)) for n in range(10)]
        closing = pool.submit(writer.close)
        is_open.set()
        closing.result(10)
        answers = [future.exception(10) for future in waiting]

    kept = len(ask_database(path, "SELECT channel FROM pauses"))
    assert kept == answers.count(None)
    assert all(isinstance(answer, StoreUnavailable) for answer in answers if answer is not None)


def test_a_closed_store_takes_nothing_more(tmp_path: Path) -> None:
    """After close a write is refused and not lost in silence; closing again does nothing."""
    store = Store(f"sqlite:///{tmp_path / 'store.db'}")
    store.close()
    store.close()

    with pytest.raises(StoreUnavailable, match="closed"):
        store.write(lambda unit: unit.insert_pause(pause("push")))


def test_a_write_is_seen_by_every_reader_once_it_is_answered(store: Store) -> None:
    """Whoever reads after a write was answered sees it, from any thread."""

    def write_and_look(number: int) -> bool:
        store.write(lambda unit: unit.insert_pause(pause(f"channel-{number}")))
        return f"channel-{number}" in {row.channel for row in store.read(lambda reader: reader.list_pauses())}

    with ThreadPoolExecutor(16) as pool:
        assert all(pool.map(write_and_look, range(64)))


def test_every_connection_is_durable(service: Served, store: Store) -> None:
    """The database is in WAL mode, so that readers do not wait for writers."""
    assert service.rows("PRAGMA journal_mode") == [("wal",)]
    assert store.write(lambda unit: unit._cursor.execute("PRAGMA synchronous").fetchone()) == (2,)
