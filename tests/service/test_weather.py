"""PostgreSQL in bad weather: what callers are told while it is away, slow, full or read-only, and that all is well once it is back."""

import contextlib
import signal
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import psycopg
import pytest

from models.errors import StoreInvalid, StoreUnavailable
from service.gen.channelchoice.v1.decision_pb2 import VERDICT_SEND
from service.gen.channelchoice.v1.outcome_pb2 import OUTCOME_TYPE_SENT
from service.store import postgres as engine
from service.store import sqlite
from service.store.store import Store
from tests.postgres import PostgresServer, postgres_server
from tests.service import served
from tests.service.examples import choose_request, outcome
from tests.service.served import Refusal, Served, connected, refused, serve
from tests.service.test_process import run as run_process


@pytest.fixture
def server() -> Iterator[PostgresServer]:
    """A server that the test may stop, stall and break."""
    with postgres_server("fsync=off") as started:
        yield started


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let nothing wait for longer than a moment."""
    monkeypatch.setattr(engine, "BUSY_SECONDS", 0.3)


def request(name: str, **changes: Any) -> Any:
    return choose_request(name, customer=name, channels=["in_app"], **changes)


def assert_asks_to_try_again(refusal: Refusal) -> None:
    assert refusal.code is grpc.StatusCode.UNAVAILABLE
    assert refusal.reason == "STORE_UNAVAILABLE"
    assert refusal.retry_seconds == 0.5
    assert "try again" in refusal.message


def assert_recovers(service: Served, name: str) -> None:
    """The call that was refused is answered as it is, once, and so is one that was never made."""
    answer = service.choose(request(name))
    assert answer.decision.verdict == VERDICT_SEND
    assert service.choose(request(name)).decision.decision_id == answer.decision.decision_id
    assert service.rows("SELECT count(*) FROM decisions WHERE request_id = ?", name) == [(1,)]
    assert service.choose(request(f"{name}-new")).decision.verdict == VERDICT_SEND


# --- at the start


def test_a_server_that_is_down_stops_the_start(server: PostgresServer) -> None:
    """Where nothing listens the start is refused with what to check, and without the password."""
    url = server.make_database()
    server.stop()

    with pytest.raises(
        StoreInvalid, match=r"check that the server runs, takes connections and lets this user in"
    ) as error:
        Store(url.replace("postgres@", "postgres:hunter2@"))

    assert "hunter2" not in str(error.value)


def test_the_process_says_what_is_wrong_with_its_database(root: Path, tmp_path: Path, server: PostgresServer) -> None:
    """`python -m service` on a server that is down, or on a database that is not there, ends with 2 and no traceback."""
    url = server.url("absent")
    absent = run_process(root, tmp_path, "--database-url", url)
    server.stop()
    down = run_process(root, tmp_path, "--database-url", url)

    for result, problem in ((absent, 'database "absent" does not exist'), (down, "No such file or directory")):
        assert result.returncode == 2
        assert problem in result.stderr
        assert "mend database_url" in result.stderr
        assert "Traceback" not in result.stderr


def test_a_user_who_may_not_make_tables_is_refused(server: PostgresServer) -> None:
    """On an empty database a user without the right to make tables is told so."""
    url = server.make_database()
    with server.connected() as connection:
        connection.execute("CREATE ROLE shop LOGIN")

    with pytest.raises(StoreInvalid, match="permission denied for schema public; give the user the right"):
        Store(url.replace("postgres@", "shop@"))


def test_a_user_who_may_only_read_and_write_serves(server: PostgresServer, tmp_path: Path) -> None:
    """Once the tables are there rights on rows are enough; partitions are somebody else's work then."""
    url = server.make_migrated()
    with connected(url) as run:
        run("CREATE ROLE shop LOGIN")
        run("GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO shop")
    with serve(tmp_path, database_url=url.replace("postgres@", "shop@")) as service:
        decision = service.decide(request("a"))

    assert decision.verdict == VERDICT_SEND


# --- in flight


@pytest.mark.parametrize("end", [PostgresServer.stop, PostgresServer.kill], ids=["stopped", "killed"])
def test_a_server_that_goes_away_in_flight(server: PostgresServer, tmp_path: Path, end: Callable[..., None]) -> None:
    """While it is away every call is told to try again; the first call after it is back is answered."""
    with serve(tmp_path, database_url=server.make_migrated()) as service:
        first = service.decide(request("before"))
        end(server)
        with refused() as choosing:
            service.choose(request("during"))
        with refused() as reporting:
            service.report(outcome("e", OUTCOME_TYPE_SENT, decision_id=first.decision_id))
        with refused() as getting:
            service.get(first.decision_id)
        server.start()

        assert_recovers(service, "during")
        assert service.statuses(outcome("e", OUTCOME_TYPE_SENT, decision_id=first.decision_id)) == ["ACCEPTED"]
        assert service.get(first.decision_id).steps[0].decision_id == first.decision_id
    for refusal in (choosing, reporting, getting):
        assert_asks_to_try_again(refusal[0])


def test_a_restart_between_calls_is_not_noticed(server: PostgresServer, tmp_path: Path) -> None:
    """Connections that a restart ended are made again within the call that finds them so."""
    with serve(tmp_path, database_url=server.make_migrated()) as service:
        for number in range(3):
            assert service.decide(request(str(number))).verdict == VERDICT_SEND
            server.stop()
            server.start()
        assert service.decide(request("last")).verdict == VERDICT_SEND


@pytest.mark.usefixtures("hasty")
@pytest.mark.parametrize("table", ["decisions", "identities"])
def test_a_table_that_is_locked(server: PostgresServer, tmp_path: Path, table: str) -> None:
    """While somebody holds a table calls are told to try again within the limit, and hold nobody else up afterwards."""
    with serve(tmp_path, database_url=server.make_migrated()) as service:
        with connected(service.database) as run:
            run("BEGIN")
            run(f"LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE")
            with refused() as refusal:
                service.choose(request("during"))
            run("ROLLBACK")
        assert_recovers(service, "during")
    assert_asks_to_try_again(refusal[0])
    assert "timeout" in refusal[0].message


@pytest.mark.usefixtures("hasty")
def test_a_server_that_stands_still(server: PostgresServer, tmp_path: Path) -> None:
    """A server that keeps its connections but answers nothing is given up on; when it goes on, so does the service."""
    with serve(tmp_path, database_url=server.make_migrated()) as service:
        service.decide(request("before"))
        with stalled(server), refused() as refusal:
            service.choose(request("during"))
        assert_recovers(service, "during")
    assert_asks_to_try_again(refusal[0])


@contextlib.contextmanager
def stalled(server: PostgresServer) -> Iterator[None]:
    """Stop every process of the server in its tracks."""
    server.signal_all(signal.SIGSTOP)
    try:
        yield
    finally:
        server.signal_all(signal.SIGCONT)


def test_no_connection_left(server: PostgresServer, tmp_path: Path) -> None:
    """Where the server takes no more connections calls are told to try again; with one free they are answered."""
    url = server.make_migrated()
    with connected(url) as run:
        run("CREATE ROLE shop LOGIN CONNECTION LIMIT 2")
        run("GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO shop")
    limited = url.replace("postgres@", "shop@")

    def end_all() -> None:
        """End the role's connections, and wait until they do not count any more."""
        with connected(url) as run:
            run("SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity WHERE usename = 'shop'")

    with serve(tmp_path, database_url=limited) as service:
        end_all()
        with connected(limited), connected(limited), refused() as refusal:
            service.choose(request("during"))
        end_all()
        answer = service.choose(request("during"))
    assert_asks_to_try_again(refusal[0])
    assert "too many connections" in refusal[0].message
    assert answer.decision.verdict == VERDICT_SEND


@pytest.mark.usefixtures("hasty")
def test_more_readers_than_connections(server: PostgresServer, tmp_path: Path) -> None:
    """Reads wait for one of the service's own connections, and are told which setting to raise where none comes free."""
    store = Store(server.make_migrated(), connections=1)
    try:
        with pytest.raises(StoreUnavailable, match="all 1 connections to the database are in use; try again, or raise"):
            store.read(lambda _: store.read(lambda reader: reader.list_pauses()))
        assert store.read(lambda reader: reader.list_pauses()) == []
    finally:
        store.close()


def test_a_read_only_server(server: PostgresServer, tmp_path: Path) -> None:
    """What only reads is answered, what writes is told to try again; nothing is sent from a decision that cannot be kept."""
    with serve(tmp_path, database_url=server.make_migrated()) as service:
        first = service.decide(request("before"))
        set_read_only(server, service.database, "on")
        with refused() as refusal:
            service.choose(request("during"))
        found = service.get(first.decision_id).steps[0]
        replay = service.choose(request("before"))
        set_read_only(server, service.database, "off")
        assert_recovers(service, "during")
    assert_asks_to_try_again(refusal[0])
    assert "read-only" in refusal[0].message
    assert (found.decision_id, replay.replayed) == (first.decision_id, True)


def set_read_only(server: PostgresServer, url: str, value: str) -> None:
    """Make a database read-only, or not, for all connections from now on, as a failover would."""
    name = url.partition("?")[0].rpartition("/")[2]
    with server.connected() as connection:
        connection.execute(f"ALTER DATABASE {name} SET default_transaction_read_only = {value}")
        connection.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", [name])


def test_a_full_disk(tmp_path: Path) -> None:
    """Where a file cannot grow calls are told to try again, and nothing of them is kept; with room again they are answered."""
    with (
        postgres_server("fsync=off", "autovacuum=off", file_bytes=20 << 20) as small,
        serve(tmp_path, database_url=small.make_migrated()) as service,
    ):
        service.decide(request("before"))
        with connected(service.database) as run:
            run("CREATE TEMPORARY SEQUENCE n")  # ids in order, so that the table is full before its index
            fill(
                run,
                "SELECT 'a' || lpad(nextval('n')::text, 20, '0'), 1, repeat('f', 36) FROM generate_series(1, 20000)",
            )
            fill(run, "SELECT 'b' || nextval('n'), 1, 'f'")
        with refused() as refusal:
            service.choose(request("during"))
        kept = service.rows("SELECT count(*) FROM decisions"), service.rows("SELECT count(*) FROM contacts")
        with connected(service.database) as run:
            run("DELETE FROM requests WHERE decision_id LIKE 'f%'")
            run("VACUUM FULL requests")
        assert_recovers(service, "during")
    assert_asks_to_try_again(refusal[0])
    assert "File too large" in refusal[0].message
    assert kept == ([(1,)], [(1,)])


def fill(run: Callable[..., Any], rows: str) -> None:
    """Add rows to a table until its file cannot grow any more."""
    for _ in range(10_000):
        try:
            run(f"INSERT INTO requests {rows} ON CONFLICT DO NOTHING")
        except psycopg.Error as error:
            if "File too large" in str(error):
                return
            raise
    raise AssertionError("the file grew beyond its limit")


def test_a_full_sqlite_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same with a file of SQLite: refused with the reason, nothing kept of it, answered once there is room."""
    with serve(tmp_path) as service:
        service.decide(request("before"))
    pages = service.rows("PRAGMA page_count")[0][0]
    opened, connect = [], sqlite.connect

    def limited(url: Any) -> Any:
        opened.append(connect(url))
        opened[-1].execute(f"PRAGMA max_page_count = {pages}")
        return opened[-1]

    monkeypatch.setattr(sqlite, "connect", limited)
    with serve(tmp_path) as service:
        with refused() as refusal:
            for number in range(50):
                service.choose(request(f"during-{number}"))
        asked = refusal[0].message
        for connection in opened:
            with contextlib.suppress(sqlite3.ProgrammingError):
                connection.execute("PRAGMA max_page_count = 100000")
        assert service.decide(request("after")).verdict == VERDICT_SEND
        (decisions,) = service.rows("SELECT count(*) FROM decisions")
        (contacts,) = service.rows("SELECT count(*) FROM contacts")
    assert_asks_to_try_again(refusal[0])
    assert "database or disk is full" in asked
    assert decisions == contacts


@pytest.mark.usefixtures("engine")
def test_a_column_that_a_newer_version_added_is_no_matter(tmp_path: Path) -> None:
    """A service that runs goes on while a newer version has added to the tables; started again it asks for the newer version."""
    with serve(tmp_path) as service:
        before = service.decide(request("before"))
        with connected(service.database) as run:
            for table in ("decisions", "outcomes", "customers", "contacts", "requests"):
                run(f"ALTER TABLE {table} ADD COLUMN later INTEGER")
            run("UPDATE alembic_version SET version_num = '9999'")
        after = [service.decide(request(f"after-{number}")) for number in range(8)]
        reported = service.statuses(outcome("e", OUTCOME_TYPE_SENT, decision_id=before.decision_id))
        replay = service.choose(request("before"))

    assert {decision.verdict for decision in after} == {VERDICT_SEND}
    assert reported == ["ACCEPTED"]
    assert replay.replayed
    with pytest.raises(StoreInvalid, match="run a newer version"):
        Store(served.database_in(tmp_path))
