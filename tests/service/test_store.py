"""The store: group commit, migrations, and what happens when the database cannot be had."""

import contextlib
import sqlite3
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import psycopg
import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory

from models.errors import SettingsInvalid, StoreInvalid, StoreUnavailable
from service.store import schema, sqlite
from service.store.database import Cursor
from service.store.engine import MIGRATIONS, asking, make_engine
from service.store.opening import HEAD
from service.store.store import ContactRow, PauseRow, Store, Unit
from service.store.url import parse_url
from service.store.writer import GroupWriter
from tests.postgres import PostgresServer
from tests.service import served
from tests.service.examples import choose_request
from tests.service.served import ask_database, connected, refused, serve, sqlite_in


@pytest.fixture(params=["sqlite", "postgresql"])
def empty(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The URL of a database without any table, of each engine."""
    if request.param == "sqlite":
        yield sqlite_in(tmp_path)
    else:
        server: PostgresServer = request.getfixturevalue("postgres")
        url = server.make_database()
        yield url
        server.drop(url)


@pytest.fixture
def url(engine: str, tmp_path: Path) -> str:
    """The URL of a database of each engine."""
    return served.database_in(tmp_path)


@pytest.fixture
def store(url: str) -> Iterator[Store]:
    opened = Store(url)
    yield opened
    opened.close()


def migrated_to(url: str, revision: str) -> None:
    """Give a database the schema of an earlier version, with a decision, an outcome and a customer in it."""
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    older = make_engine(parse_url(url))
    with older.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, revision)
        for statement in OF_ANY_VERSION:
            connection.exec_driver_sql(statement)
    older.dispose()


OF_ANY_VERSION = (
    "INSERT INTO pauses VALUES ('push', 0, 'test')",
    "INSERT INTO customers (customer_key, profile, create_time, update_time) VALUES ('c1', '{}', 1, 2)",
    "INSERT INTO identities VALUES ('h1', 'c1')",
    "INSERT INTO decisions VALUES ('019a4ee5-0000-7000-8000-000000000001', 1, 'r1', 'd1', 'c1', 1762246800000000, 'spring', 'live',"
    " 'send', 'push', 1762246800000000, 0.5, 0, 900000000, 'greedy', '', 'rules', '1', '{}', '{}', '{}', NULL)",
    "INSERT INTO outcomes VALUES ('e1', 'd1', '019a4ee5-0000-7000-8000-000000000001', 1, 'c1', 'sent', 1, 2, 'accepted', NULL, NULL, '0',"
    " NULL, NULL)",
)
"""Rows as every version of the schema takes them."""


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


def is_partition(thing: Any, name: str | None, kind: str, *_: Any) -> bool:
    table = name if kind == "table" else thing.table.name
    return str(table).startswith("decisions_")


def test_migrations_make_exactly_the_schema(empty: str) -> None:
    """A database that was migrated has the tables, columns and indexes of schema.metadata, and no others but partitions."""
    with asking(empty) as connection:
        options = {"compare_type": True, "include_object": lambda *known: not is_partition(*known)}
        differences = compare_metadata(MigrationContext.configure(connection, opts=options), schema.metadata)

    assert differences == []


def test_a_database_is_migrated_once(empty: str) -> None:
    """Opening again keeps what is stored."""
    url = empty
    for name in ("push", "email"):
        opened = Store(url)
        opened.write(lambda unit, name=name: unit.insert_pause(pause(name)))  # type: ignore[misc]  # bound at once
        opened.close()

    assert ask_database(url, "SELECT channel FROM pauses ORDER BY channel") == [("email",), ("push",)]


@pytest.mark.parametrize("revision", ["0001", "0002", "0003"])
def test_a_database_of_any_version_is_brought_up_to_date(empty: str, revision: str) -> None:
    """A database of an earlier version gets what is new, and everything in it is found as before."""
    migrated_to(empty, revision)

    opened = Store(empty)
    pauses = opened.read(lambda reader: reader.list_pauses())
    by_request = opened.read(lambda reader: reader.find_request("r1"))
    by_step = opened.read(lambda reader: reader.find_step("019a4ee5-0000-7000-8000-000000000001", 1))
    outcomes = opened.read(lambda reader: reader.list_outcomes("019a4ee5-0000-7000-8000-000000000001"))
    customer = opened.read(lambda reader: reader.find_customer("c1"))
    opened.close()

    assert pauses == [pause("push")]
    assert by_request is not None
    assert by_request == by_step
    assert (by_request.customer_key, by_request.trainable, by_request.actions) == ("c1", True, None)
    assert [row.event_id for row in outcomes] == ["e1"]
    assert customer is not None
    assert (customer.create_time, customer.version) == (1, 0)
    assert ask_database(empty, "SELECT version_num FROM alembic_version") == [(HEAD,)]
    assert ask_database(empty, "SELECT count(*) FROM reservations") == [(0,)]


def test_a_migration_that_fails_changes_nothing(empty: str) -> None:
    """Where a step of a migration cannot be made the database is as it was before, and the start is refused."""
    migrated_to(empty, "0003")
    with connected(empty) as run:
        run("CREATE TABLE requests (something INTEGER)")

    with pytest.raises(StoreInvalid, match="already exists"):
        Store(empty)

    assert ask_database(empty, "SELECT version_num FROM alembic_version") == [("0003",)]
    with connected(empty) as run:
        run("DROP TABLE requests")
    Store(empty).close()
    assert ask_database(empty, "SELECT version FROM customers") == [(0,)]


def test_processes_that_start_at_once_migrate_once(empty: str) -> None:
    """Of several that open an empty database at the same time one makes its tables, and all can use them."""
    with ThreadPoolExecutor(4) as pool:
        opened = list(pool.map(lambda _: Store(empty), range(4)))
    for number, one in enumerate(opened):
        one.write(lambda unit, number=number: unit.insert_pause(pause(str(number))))  # type: ignore[misc]  # bound at once
    found = opened[0].read(lambda reader: reader.list_pauses())
    for one in opened:
        one.close()

    assert [row.channel for row in found] == ["0", "1", "2", "3"]


def test_a_schema_of_a_newer_version_is_refused(empty: str) -> None:
    """Old code does not touch a database of newer code, and says to run that."""
    Store(empty).close()
    with connected(empty) as run:
        run("UPDATE alembic_version SET version_num = '9999'")

    with pytest.raises(StoreInvalid, match=r"9999 is newer than this version's .*; run a newer version"):
        Store(empty)

    assert ask_database(empty, "SELECT version_num FROM alembic_version") == [("9999",)]


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
        ("mysql://host/name", "runs on SQLite and PostgreSQL"),
        ("postgresql+asyncpg://host/name", "runs on SQLite and PostgreSQL"),
        ("postgresql://host", "name a database"),
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
    monkeypatch.setattr(sqlite, "BUSY_SECONDS", 0.05)
    path = tmp_path / "store.db"
    sqlite3.connect(path).close()
    with locked(path), pytest.raises(StoreInvalid, match="database is locked; another process holds it"):
        Store(f"sqlite:///{path}")


def test_a_locked_database_makes_calls_unavailable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While another process holds the database a decision is UNAVAILABLE with RetryInfo; afterwards it is made."""
    monkeypatch.setattr(sqlite, "BUSY_SECONDS", 0.05)
    with serve(tmp_path) as service:
        with locked(tmp_path / "store.db"), refused() as refusal:
            service.choose(choose_request())
        decided = service.choose(choose_request())

    assert refusal[0].code is grpc.StatusCode.UNAVAILABLE
    assert refusal[0].reason == "STORE_UNAVAILABLE"
    assert "locked" in refusal[0].message
    assert "try again" in refusal[0].message
    assert refusal[0].retry_seconds == 0.5
    assert not decided.replayed


@pytest.mark.usefixtures("engine")
def test_a_database_that_cannot_be_read_frees_its_locks(tmp_path: Path) -> None:
    """After calls failed in reading, the same customer is served as soon as the database is back."""
    with serve(tmp_path) as service:
        with connected(service.database) as run:
            run("ALTER TABLE identities RENAME TO hidden")
            with refused() as refusal:
                service.choose(choose_request())
            run("ALTER TABLE hidden RENAME TO identities")

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

    contact = ContactRow(
        decision_id="d",
        step=1,
        customer_key="c",
        channel="push",
        topic="",
        category="marketing",
        start_time=0,
        end_time=0,
        is_open=True,
    )

    def twice(unit: Unit) -> None:
        for _ in range(2):
            unit.insert_contact(contact)

    with pytest.raises((sqlite3.IntegrityError, psycopg.IntegrityError)):
        store.write(twice)
    store.write(lambda unit: unit.insert_pause(pause("push")))

    assert store.read(lambda reader: reader.find_contact("d", 1)) is None
    assert len(store.read(lambda reader: reader.list_pauses())) == 1


def test_close_commits_what_waits(tmp_path: Path) -> None:
    """Units that were handed in before the writer is closed are on disk when it is."""
    path = tmp_path / "store.db"
    Store(f"sqlite:///{path}").close()
    writer = GroupWriter(sqlite.Sqlite(parse_url(sqlite_in(tmp_path))).session())
    is_open, is_begun = threading.Event(), threading.Event()

    def hold_back(_cursor: Cursor) -> None:
        is_begun.set()
        is_open.wait(10)

    def insert(cursor: Cursor, number: int) -> None:
        cursor.run("insert_pause", {"channel": f"channel-{number}", "pause_time": 0, "reason": "test"})

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


def test_a_closed_store_takes_nothing_more(url: str) -> None:
    """After close a write is refused and not lost in silence; closing again does nothing."""
    store = Store(url)
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


def test_readers_that_take_turns_share_a_connection(tmp_path: Path) -> None:
    """An SQLite file has as many connections as threads read it at the same moment, not as threads have ever read it."""
    Store(sqlite_in(tmp_path)).close()
    database = sqlite.Sqlite(parse_url(sqlite_in(tmp_path)))
    opened: list[Cursor] = []

    def read_one_after_another(_: int) -> None:
        with ThreadPoolExecutor(1) as pool:
            pool.submit(database.reading, opened.append).result(10)

    def read_within(cursor: Cursor) -> None:
        opened.append(cursor)
        database.reading(opened.append)

    for number in range(4):
        read_one_after_another(number)
    database.reading(read_within)
    database.close()

    assert len(set(map(id, opened[:5]))) == 1
    assert opened[5] is not opened[4]


def test_every_connection_is_durable(tmp_path: Path) -> None:
    """SQLite is in WAL mode, so that readers do not wait for writers, and synchronises fully."""
    connection = sqlite.connect(parse_url(sqlite_in(tmp_path)))
    mode, level = (connection.execute(f"PRAGMA {name}").fetchone() for name in ("journal_mode", "synchronous"))
    connection.close()

    assert (mode, level) == (("wal",), (2,))


def test_units_written_together_share_what_they_can_and_fail_alone(store: Store) -> None:
    """Of several units one that raises is undone alone, and what it raised stands in its place."""

    def fail(unit: Unit) -> None:
        unit.insert_pause(pause("lost"))
        raise KeyError("of the unit")

    done = store.write_each(
        [
            (lambda unit: unit.insert_pause(pause("push")), ()),
            (fail, ()),
            (lambda unit: unit.insert_pause(pause("email")), ()),
        ]
    )

    assert [type(result) for result in done] == [type(None), KeyError, type(None)]
    assert [row.channel for row in store.read(lambda reader: reader.list_pauses())] == ["email", "push"]
