"""`python -m service maintain`: partitions ahead, and what is older than it is to be kept."""

from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from models.errors import SettingsInvalid
from service.gen.channelchoice.v1.outcome_pb2 import OUTCOME_TYPE_ORDER, OUTCOME_TYPE_SENT
from service.maintenance import maintain_all
from service.store import partitions
from service.store.engine import make_engine
from service.store.url import parse_url
from tests.postgres import PostgresServer
from tests.service import served
from tests.service.examples import DAY, NOW, RULES, choose_request, outcome
from tests.service.served import Served, ask_database, refused, serve, settings_in

BUDGET = """
[[budgets]]
name = "month"
period = "month"
amount = "100"
"""


def make_ahead(url: str, now: datetime) -> list[str]:
    engine = make_engine(parse_url(url))
    with engine.begin() as connection:
        made = partitions.make_ahead(connection.exec_driver_sql, now)
    engine.dispose()
    return made


def partition_names(url: str) -> list[str]:
    question = "SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhparent = 'decisions'::regclass ORDER BY 1"
    return [row[0] for row in ask_database(url, question)]


def send_and_order(service: Served, name: str) -> str:
    """Decide an SMS, report it sent and an order after it, and return the decision's id."""
    decision = service.decide(choose_request(name, customer=name, channels=["sms"]))
    moment = service.clock.now()
    service.report(
        outcome(f"{name}-sent", OUTCOME_TYPE_SENT, decision_id=decision.decision_id, occur_time=moment),
        outcome(f"{name}-order", OUTCOME_TYPE_ORDER, decision_id=decision.decision_id, occur_time=moment),
    )
    return decision.decision_id


def count(url: str, table: str) -> int:
    return int(ask_database(url, f"SELECT count(*) FROM {table}")[0][0])


@pytest.mark.usefixtures("engine")
@pytest.mark.parametrize("is_partitioned", [True, False])
def test_what_is_older_than_it_is_kept_goes_with_all_that_follows_it(tmp_path: Path, is_partitioned: bool) -> None:
    """A decision of 200 days ago goes with request, contact and reservation; its order stays for a year, a new decision as it is."""
    with serve(tmp_path, RULES + BUDGET) as service:
        if is_partitioned and service.database.startswith("postgresql"):
            make_ahead(service.database, NOW)
        old = send_and_order(service, "old")
        service.clock.move(200 * DAY)
        new = send_and_order(service, "new")
        settings = settings_in(tmp_path, RULES + BUDGET, retention_days=100)
        said = maintain_all(settings, service.clock.now())
        left = {
            table: count(service.database, table) for table in ("decisions", "requests", "contacts", "reservations")
        }
        events = count(service.database, "outcomes")
        maintain_all(settings, service.clock.now() + 200 * DAY)
        later = count(service.database, "outcomes")
        with refused() as refusal:
            service.get(old)

    assert left == dict.fromkeys(("decisions", "requests", "contacts", "reservations"), 1)
    assert ask_database(service.database, "SELECT count(*) FROM decisions WHERE decision_id = ?", new) == [(0,)]
    assert (events, later) == (4, 2)
    assert "older than 100 days, deleted:" in said[-1]
    assert refusal[0].reason == "NOT_FOUND"


@pytest.mark.usefixtures("engine")
def test_nothing_is_deleted_unless_it_is_said_how_long_things_are_kept(tmp_path: Path) -> None:
    """Without retention_days maintenance keeps everything, however old."""
    with serve(tmp_path) as service:
        send_and_order(service, "old")
        said = maintain_all(settings_in(tmp_path), NOW + 4000 * DAY)
        left = count(service.database, "decisions"), count(service.database, "outcomes")

    assert left == (1, 2)
    assert said[-1] == "nothing deleted, since retention_days is not set"


@pytest.mark.usefixtures("engine")
def test_a_cascade_that_went_on_keeps_its_first_step(tmp_path: Path) -> None:
    """All steps of a decision are kept as long as the latest of them."""
    with serve(tmp_path) as service:
        if service.database.startswith("postgresql"):
            make_ahead(service.database, NOW)
        request = choose_request("long", channels=["push", "email"])
        request.message.expire_time.FromDatetime(NOW + 50 * DAY)
        decision = service.decide(request)
        service.clock.move(40 * DAY)
        service.advance(decision.decision_id, 1)
        settings = settings_in(tmp_path, retention_days=100)
        maintain_all(settings, NOW + 120 * DAY)
        before = count(service.database, "decisions")
        maintain_all(settings, NOW + 141 * DAY)
        after = count(service.database, "decisions")

    assert (before, after) == (2, 0)


def test_a_retention_shorter_than_caps_look_back_is_refused(tmp_path: Path) -> None:
    """What caps still count is not deleted: the setting is refused by its name."""
    rules = RULES.replace("window_hours = 168", "window_hours = 2400")
    settings = settings_in(tmp_path, rules, retention_days=95)

    with pytest.raises(SettingsInvalid, match="retention_days: must be more than the 10"):
        maintain_all(settings, NOW)


# --- partitions of PostgreSQL


def test_partitions_are_made_ahead_and_once(postgres: PostgresServer) -> None:
    """There are partitions for this month and three more; what the default one had of them moves there."""
    url = postgres.make_migrated()
    moment = datetime.fromisoformat("2031-11-15T00:00:00+00:00")
    decision_id = f"{partitions.first_id(moment)}-7000-8000-000000000001"
    values = "'r', 'd', 'c', 1, 'c', 'live', 'send', 'push', 1, 0.5, 0, 0, 'p', '', 'r', true, '{}', '{}', '{}', NULL"
    ask = "SELECT tableoid::regclass::text FROM decisions"
    with served.connected(url) as run:
        run(f"INSERT INTO decisions VALUES ('{decision_id}', 1, {values})")
        before = run(ask).fetchall()
        made = make_ahead(url, moment)
        again = make_ahead(url, moment + timedelta(days=20))
        after = run(ask).fetchall()
    names = partition_names(url)
    postgres.drop(url)

    assert before == [("decisions_default",)]
    assert made == ["decisions_2031_11", "decisions_2031_12", "decisions_2032_01", "decisions_2032_02"]
    assert again == ["decisions_2032_03"]
    assert after == [("decisions_2031_11",)]
    assert set(made + again) < set(names)


def test_partitions_made_at_once_are_made_once(postgres: PostgresServer) -> None:
    """Several processes that make the same partitions at the same time make each once, and none fails."""
    url = postgres.make_migrated()
    moment = datetime.fromisoformat("2032-06-15T00:00:00+00:00")
    with ThreadPoolExecutor(4) as pool:
        made = list(pool.map(lambda _: make_ahead(url, moment), range(4)))
    postgres.drop(url)

    assert sorted(map(len, made)) == [0, 0, 0, 4]


def test_a_missing_partition_fails_no_decision(
    tmp_path: Path, postgres: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A decision of a month that nobody made a partition for is kept, found, replayed and advanced."""
    databases = served.PostgresDatabases(postgres)
    monkeypatch.setattr(served, "database_in", databases.url)
    with serve(tmp_path, clock=served.MovedClock(NOW + 3650 * DAY)) as service:
        request = choose_request(channels=["in_app"])
        first, again = service.choose(request), service.choose(request)
        (place,) = service.rows("SELECT tableoid::regclass::text FROM decisions")
    databases.drop()

    assert place == ("decisions_default",)
    assert (again.replayed, again.decision.decision_id) == (True, first.decision.decision_id)


def test_ids_are_in_the_partition_of_their_month(
    tmp_path: Path, postgres: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is decided in the first and the last millisecond of a month is in that month's partition."""
    databases = served.PostgresDatabases(postgres)
    monkeypatch.setattr(served, "database_in", databases.url)
    first = datetime.fromisoformat("2033-02-01T00:00:00+00:00")
    last = datetime.fromisoformat("2033-02-28T23:59:59.999999+00:00")
    make_ahead(databases.url(tmp_path), first)
    clock = served.MovedClock(first)
    with serve(tmp_path, clock=clock) as service:
        for number, moment in enumerate((first, last, last + timedelta(microseconds=1))):
            clock.moment = moment
            service.choose(choose_request(str(number), customer=str(number), channels=["in_app"]))
        places = service.rows("SELECT tableoid::regclass::text FROM decisions ORDER BY decide_time")
    databases.drop()

    assert places == [("decisions_2033_02",), ("decisions_2033_02",), ("decisions_2033_03",)]
