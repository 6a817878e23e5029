"""Anybody's log from Parquet: what is imported is what the files say, with the history that serving would have seen, in any order and size."""

import random
from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from models.context import CustomerState
from models.record import context_from_json, features_from_json, from_micros, to_micros
from service.store.store import Store
from tests.service.served import MovedClock
from tests.training.examples import DAY, HOUR, KEY, NOW, UNIT, WINDOW, ask, happened, in_process, run_sql
from tests.training.parquet_log import Row, command, decision, outcome, write_file, write_log
from training.__main__ import main
from training.dataset import read_dataset
from training.logs import shards
from training.logs.schema import ACTIVITY, DECISIONS, OUTCOMES, TYPES

MINUTE = timedelta(minutes=1)


def load(folder: Path, url: str, *more: str) -> None:
    assert main(command(folder, url, *more)) == 0


def features(url: str, request_id: str, step: int = 1) -> dict[str, object]:
    """The features in the log of one decision."""
    ((text,),) = run_sql(url, "SELECT features FROM decisions WHERE request_id = ? AND step = ?", request_id, step)
    return dict(features_from_json(str(text)))


def test_required_columns_are_enough(tmp_path: Path, log_url: str) -> None:
    """A log of only the required columns is imported, with the rules' defaults for all else."""
    write_log(tmp_path, [decision("a"), decision("b", channel="none"), decision("c", channel="sms")])

    load(tmp_path, log_url)

    rows = run_sql(
        log_url,
        "SELECT channel, propensity, price_micros, order_margin_micros, trainable, context FROM decisions ORDER BY request_id",
    )
    assert [row[:5] for row in rows] == [
        ("push", 0.25, 0, 900 * UNIT, 1),
        ("none", 0.25, 0, 900 * UNIT, 1),
        ("sms", 0.25, 5_300_000, 900 * UNIT, 1),
    ]
    context = context_from_json(str(rows[0][5]))
    assert (context.customer.time_zone, context.customer.country) == ("Europe/Moscow", "RU")
    assert context.message.category == "marketing"
    assert context.message.expire_time == NOW + 48 * HOUR
    assert [option.channel for option in context.options] == ["push", "email", "sms"]


def test_optional_columns_are_kept(tmp_path: Path, log_url: str) -> None:
    """Everything that a row says is in the decision's context, its price and its features."""
    row = decision(
        "a",
        channel="sms",
        send_time=NOW + 2 * HOUR,
        category="service",
        topic="shoes",
        offer="ten",
        journey_stage="new",
        relevance_half_life_hours=6.0,
        earliest_time=NOW + HOUR,
        expire_time=NOW + DAY,
        length_characters=100,
        encoding="gsm7",
        has_image=True,
        time_zone="Asia/Tokyo",
        country="JP",
        prices=[("email", 0.01)],
        price=4.1,
        policy="random",
        trainable=False,
        x_visits=3,
        x_club="gold",
        x_is_new=True,
    )
    write_log(tmp_path, [row, decision("b")])

    load(tmp_path, log_url)

    ((text, price, policy, trainable),) = run_sql(
        log_url, "SELECT context, price_micros, policy, trainable FROM decisions WHERE request_id = 'a'"
    )
    context = context_from_json(str(text))
    message = context.message
    assert (message.category, message.topic, message.offer, message.journey_stage) == ("service", "shoes", "ten", "new")
    assert message.relevance_half_life_seconds == 6 * 3600
    assert (message.earliest_time, message.expire_time) == (NOW + HOUR, NOW + DAY)
    assert (message.content.size.segments, message.content.has_image) == (1, True)
    assert (context.customer.time_zone, context.customer.country) == ("Asia/Tokyo", "JP")
    assert context.option("email").price_override_micros == 10_000
    assert (price, policy, trainable) == (4_100_000, "random", 0)
    found = features(log_url, "a")
    assert (found["x.visits"], found["x.club"], found["x.is_new"]) == (3.0, "gold", True)
    assert (found["local_hour"], found["lag_hours"]) == (20.0, 2.0)
    assert "x.visits" not in features(log_url, "b")


def test_history_is_what_was_known_by_then(tmp_path: Path, log_url: str) -> None:
    """Contacts and orders of a decision are the customer's own earlier ones: of its own, of later ones and of others there are none."""
    decisions = [
        decision("first"),
        decision("other", moment=NOW + HOUR, customer_id="boris"),
        decision("second", moment=NOW + 2 * DAY, channel="email"),
        decision("none", moment=NOW + 3 * DAY, channel="none"),
        decision("last", moment=NOW + 8 * DAY),
    ]
    outcomes = [
        outcome("order", "first", NOW + DAY),
        {"type": "order", "customer_id": "anna", "occur_time": NOW + 4 * DAY},
        outcome("order", "last", NOW + 9 * DAY),
    ]
    write_log(tmp_path, decisions, outcomes)

    load(tmp_path, log_url)

    assert features(log_url, "first")["contacts_30d"] == 0
    second, last = features(log_url, "second"), features(log_url, "last")
    assert (second["contacts_7d"], second["hours_since_contact"], second["channel_contacts_30d"]) == (1, 48, 0)
    assert (second["orders_90d"], second["hours_since_order"]) == (1, 24)
    assert (last["contacts_7d"], last["contacts_30d"], last["channel_contacts_30d"]) == (1, 2, 1)
    assert (last["hours_since_contact"], last["orders_90d"], last["hours_since_order"]) == (6 * 24, 2, 4 * 24)


def test_outcomes_have_their_effect_once_they_are_known(tmp_path: Path, log_url: str) -> None:
    """A message that was not delivered is a contact until that is known, and an order that was reported late is none before."""
    decisions = [
        decision("first"),
        *(decision(f"{hours}h", moment=NOW + hours * HOUR, channel="none") for hours in (2, 6)),
    ]
    outcomes = [
        outcome("undelivered", "first", NOW + HOUR, receive_time=NOW + 4 * HOUR),
        outcome("order", "first", NOW + HOUR, receive_time=NOW + 5 * HOUR),
    ]
    write_log(tmp_path, decisions, outcomes)

    load(tmp_path, log_url)

    before, after = features(log_url, "2h"), features(log_url, "6h")
    assert (before["contacts_7d"], after["contacts_7d"]) == (1, 0)
    assert (before["orders_90d"], after["orders_90d"]) == (0, 1)
    assert run_sql(log_url, "SELECT is_open FROM contacts") == [(0,)]


def customer(url: str, request_id: str, step: int = 1) -> CustomerState:
    """What was known of the customer of one decision, as its context in the log says."""
    ((text,),) = run_sql(url, "SELECT context FROM decisions WHERE request_id = ? AND step = ?", request_id, step)
    return context_from_json(str(text)).customer


def test_contacts_tell_when_they_were_noticed_once_that_is_known(tmp_path: Path, log_url: str) -> None:
    """A contact carries its step, and the first time it was seen and clicked, from when each became known; what machines open says nothing."""
    decisions = [
        decision("first", decision_id="cascade-1"),
        decision("second", NOW + 3 * HOUR, channel="email", decision_id="cascade-1", step=2),
        *(decision(f"{hours}h", NOW + hours * HOUR, channel="none") for hours in (4, 6, 9)),
    ]
    outcomes = [
        outcome("opened", "first", NOW + HOUR, machine_generated=True),
        outcome("seen", "first", NOW + 2 * HOUR, receive_time=NOW + 5 * HOUR),
        outcome("clicked", "first", NOW + 7 * HOUR),
        outcome("opened", "second", NOW + 8 * HOUR, step=2),
    ]
    write_log(tmp_path, decisions, outcomes)

    load(tmp_path, log_url)

    def noticed(request_id: str) -> list[tuple[int, datetime | None, datetime | None]]:
        return [(c.step, c.seen_time, c.click_time) for c in customer(log_url, request_id).contacts]

    assert noticed("4h") == [(1, None, None), (2, None, None)]
    assert noticed("6h") == [(1, NOW + 2 * HOUR, None), (2, None, None)]
    assert noticed("9h") == [(1, NOW + 2 * HOUR, NOW + 7 * HOUR), (2, NOW + 8 * HOUR, None)]
    assert (features(log_url, "9h")["seen_60d"], features(log_url, "9h")["clicks_60d"]) == (2, 1)


def test_active_hours_are_those_known_by_then(tmp_path: Path, log_url: str) -> None:
    """Visits, notices and orders make an hour active, each from when it became known, for 180 days; other outcomes and machines do not."""
    visits = [
        {"customer_id": "anna", "occur_time": NOW + offset} for offset in (-200 * DAY, -2 * DAY, -2 * DAY + MINUTE)
    ]
    decisions = [decision("first"), *(decision(f"{h}h", NOW + h * HOUR, channel="none") for h in (5, 9))]
    outcomes = [
        outcome("delivered", "first", NOW + HOUR),
        outcome("opened", "first", NOW + 2 * HOUR, machine_generated=True),
        outcome("seen", "first", NOW + 3 * HOUR, receive_time=NOW + 8 * HOUR),
        {"type": "order", "customer_id": "anna", "occur_time": NOW + 4 * HOUR},
    ]
    write_log(tmp_path, decisions, outcomes, visits)

    load(tmp_path, log_url)

    def active(request_id: str) -> list[float]:
        start = to_micros(NOW) // 3_600_000_000
        return [hour - start for hour in customer(log_url, request_id).active_hours]

    assert active("first") == [-48]
    assert active("5h") == [-48, 4]
    assert active("9h") == [-48, 3, 4]
    assert features(log_url, "9h")["active_hours_14d"] == 3


def test_import_knows_what_serving_would(tmp_path: Path) -> None:
    """Of a customer with a long history the last decision of the file knows exactly what the service, running on the same log, would at that moment."""
    rng = random.Random(4)
    decisions = [
        decision(f"r{n}", NOW + n * 31 * HOUR, channel=rng.choice(["push", "email", "none"])) for n in range(60)
    ]
    outcomes = [
        outcome(kind, f"r{n}", NOW + n * 31 * HOUR + timedelta(minutes=rng.randrange(1, 1800)))
        for n in range(60)
        for kind in rng.sample(
            ["seen", "opened", "clicked", "order", "sent", "undelivered", "not_sent", "delivered"], 3
        )
        if decisions[n]["channel"] != "none" or kind == "order"
    ]
    visits = [
        {"customer_id": "anna", "occur_time": NOW + timedelta(minutes=rng.randrange(60 * 31 * 60))} for _ in range(600)
    ]
    moment = NOW + 61 * 31 * HOUR
    imported = tmp_path / "imported"
    write_log(imported / "files", [*decisions, decision("last", moment)], outcomes, visits)
    write_log(tmp_path / "files", decisions, outcomes, visits)
    (tmp_path / "identity.key").write_text(KEY.hex())

    load(imported / "files", f"sqlite:///{imported / 'log.db'}")
    load(tmp_path / "files", f"sqlite:///{tmp_path / 'served.db'}")
    with in_process(tmp_path, clock=MovedClock(moment)) as service:
        served = service.decisions.choose(ask("now", customer="anna")).decision.context.customer

    known = customer(f"sqlite:///{imported / 'log.db'}", "last")
    assert len(served.contacts) > 10
    assert {c.decision_id: (c.start, c.step, c.seen_time, c.click_time) for c in known.contacts} == {
        c.decision_id: (c.start, c.step, c.seen_time, c.click_time) for c in served.contacts
    }
    assert known.order_times == served.order_times
    assert len(known.active_hours) == 96
    assert known.active_hours == served.active_hours


def test_sent_sets_when_the_contact_was(tmp_path: Path, log_url: str) -> None:
    """A send that really went out later counts from then on."""
    write_log(
        tmp_path,
        [decision("first"), decision("later", moment=NOW + 5 * HOUR, channel="none")],
        [outcome("sent", "first", NOW + 3 * HOUR)],
    )

    load(tmp_path, log_url)

    assert features(log_url, "later")["hours_since_contact"] == 2


def test_not_sent_leaves_training(tmp_path: Path, log_url: str) -> None:
    """A decision that was not carried out is kept, and not learned from."""
    write_log(tmp_path, [decision("a"), decision("b", moment=NOW + HOUR)], [outcome("not_sent", "a")])

    load(tmp_path, log_url)

    assert run_sql(log_url, "SELECT request_id, trainable FROM decisions ORDER BY 1") == [("a", 0), ("b", 1)]


def test_unsubscribing_withdraws_consent(tmp_path: Path) -> None:
    """A service on the imported log does not write to a customer who unsubscribed in it."""
    url = f"sqlite:///{tmp_path / 'served.db'}"
    (tmp_path / "identity.key").write_text(bytes(range(32)).hex())
    write_log(tmp_path / "log", [decision("a")], [outcome("unsubscribe", "a")])
    load(tmp_path / "log", url)

    with in_process(tmp_path, clock=MovedClock(NOW + DAY)) as service:
        context = service.decisions.choose(ask("now", channels=["push", "email"])).decision.context

    assert [(option.channel, option.has_consent) for option in context.options] == [("push", False), ("email", True)]
    assert len(context.customer.contacts) == 1


def test_cascades_are_steps_of_one_decision(tmp_path: Path, log_url: str) -> None:
    """Steps with one decision_id are one cascade: later steps know what was tried, and an outcome without a step is of the latest by then."""
    decisions = [
        decision("a", decision_id="c-1", step=1),
        decision("b", moment=NOW + 5 * HOUR, decision_id="c-1", step=2, channel="sms"),
    ]
    outcomes = [
        {"decision_id": "c-1", "type": "seen", "occur_time": NOW + HOUR},
        {"decision_id": "c-1", "type": "clicked", "occur_time": NOW + 6 * HOUR},
        {"decision_id": "c-1", "step": 1, "type": "opened", "occur_time": NOW + 7 * HOUR},
    ]
    write_log(tmp_path, decisions, outcomes)

    load(tmp_path, log_url)

    rows = run_sql(log_url, "SELECT decision_id, step, context FROM decisions ORDER BY step")
    assert [row[:2] for row in rows] == [("c-1", 1), ("c-1", 2)]
    assert context_from_json(str(rows[1][2])).tried == ("push",)
    found = run_sql(log_url, "SELECT type, step FROM outcomes ORDER BY occur_time")
    assert found == [("seen", 1), ("clicked", 2), ("opened", 1)]


def test_steps_may_share_a_request_id(tmp_path: Path, log_url: str) -> None:
    """Without a decision_id, the steps of one request_id are one cascade."""
    write_log(tmp_path, [decision("a", step=1), decision("a", moment=NOW + 5 * HOUR, step=2, channel="sms")])

    load(tmp_path, log_url)

    rows = run_sql(log_url, "SELECT decision_id, step FROM decisions ORDER BY step")
    assert [row[1] for row in rows] == [1, 2]
    assert len({row[0] for row in rows}) == 1


def test_activity_becomes_visits(tmp_path: Path, log_url: str) -> None:
    """Each visit is an outcome of its customer that follows no decision; two of one moment are two, and of strangers there may be some."""
    visits = [{"customer_id": name, "occur_time": NOW} for name in ("anna", "anna", "clara")]
    write_log(tmp_path, [decision("a")], activity=visits)

    load(tmp_path, log_url)
    load(tmp_path, log_url)

    assert (
        run_sql(log_url, "SELECT decision_id, type, occur_time FROM outcomes WHERE type = 'visit'")
        == [("", "visit", to_micros(NOW))] * 3
    )
    assert run_sql(log_url, "SELECT count(*) FROM customers") == [(2,)]


def test_no_identity_is_stored(tmp_path: Path, log_url: str) -> None:
    """Customers' ids are kept as keyed hashes only."""
    name = "anna-karenina-1877"
    write_log(
        tmp_path,
        [decision("a", customer_id=name)],
        [{"type": "order", "customer_id": name, "occur_time": NOW}],
        [{"customer_id": name, "occur_time": NOW}],
    )

    load(tmp_path, log_url)

    for table in ("decisions", "outcomes", "contacts", "customers", "identities"):
        assert all(name not in str(row) for row in run_sql(log_url, f"SELECT * FROM {table}"))


def test_repeating_an_import_writes_nothing(tmp_path: Path, log_url: str, capsys: pytest.CaptureFixture[str]) -> None:
    """What is there already is left as it is."""
    write_log(tmp_path, *shop(60))
    load(tmp_path, log_url)
    before = everything(log_url)

    load(tmp_path, log_url)

    assert everything(log_url) == before
    assert f"0 decisions written to {log_url}, 60 were there before" in capsys.readouterr().out


def test_new_outcomes_of_known_decisions_are_added(tmp_path: Path, log_url: str) -> None:
    """A later export of the same decisions brings what happened since."""
    write_log(tmp_path, [decision("a")], [outcome("seen", "a")])
    load(tmp_path, log_url)

    write_log(tmp_path, [decision("a")], [outcome("seen", "a"), outcome("undelivered", "a", NOW + 2 * HOUR)])
    load(tmp_path, log_url)

    assert run_sql(log_url, "SELECT type FROM outcomes ORDER BY occur_time") == [("seen",), ("undelivered",)]
    assert run_sql(log_url, "SELECT is_open FROM contacts") == [(0,)]


def test_an_import_that_broke_off_goes_on(tmp_path: Path, log_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a break between two shards, the same command writes the rest, and all is as if it had not broken."""
    whole = f"sqlite:///{tmp_path / 'whole.db'}"
    (tmp_path / "identity.key").write_text(bytes(range(32)).hex())
    write_log(tmp_path, *shop(80))
    monkeypatch.setattr(shards, "_SHARD", 20)
    load(tmp_path, whole)
    write, calls = Store.write, []

    def break_off(store: Store, unit: object) -> object:
        calls.append(1)
        if len(calls) == 5:
            raise KeyboardInterrupt
        return write(store, unit)  # type: ignore[arg-type]  # the unit of the caller

    with monkeypatch.context() as patched:
        patched.setattr(Store, "write", break_off)
        with pytest.raises(KeyboardInterrupt):
            main(command(tmp_path, log_url))
    written = len(run_sql(log_url, "SELECT 1 FROM decisions"))
    assert 0 < written < 80

    load(tmp_path, log_url)

    assert everything(log_url) == everything(whole)


def shop(count: int) -> tuple[list[Row], list[Row], list[Row]]:
    """A log of several customers in order of time, with every kind of column, some nulls among them."""
    rng = random.Random(7)
    decisions, outcomes, activity = [], [], []
    for number in range(count):
        moment = NOW + number * 97 * MINUTE
        channel = rng.choice(["push", "email", "sms", "none"])
        customer = f"customer-{rng.randrange(9)}"
        step = 1
        decisions.append(
            decision(
                f"r{number}",
                moment,
                channel,
                customer_id=customer,
                step=step,
                x_visits=None if number % 3 == 0 else number / 7,
                x_club=None if number % 4 == 0 else rng.choice(["gold", "blue"]),
                journey_stage=rng.choice(["new", "active", None]),
            )
        )
        if channel != "none" and rng.random() < 0.5:
            kind = rng.choice(["seen", "clicked", "undelivered", "sent"])
            outcomes.append(outcome(kind, f"r{number}", moment + HOUR))
        if rng.random() < 0.3:
            outcomes.append(outcome("order", f"r{number}", moment + 5 * HOUR, value=number + 0.1))
        if rng.random() < 0.2:
            outcomes.append(outcome("order", None, moment + HOUR, customer_id=customer))
        activity.append({"customer_id": customer, "occur_time": moment - HOUR})
    return decisions, outcomes, activity


def everything(url: str) -> dict[str, list[tuple[object, ...]]]:
    """All rows of a log's tables, whatever order they were written in."""
    tables = ("decisions", "outcomes", "contacts", "customers", "identities")
    return {table: sorted(run_sql(url, f"SELECT * FROM {table}"), key=repr) for table in tables}


def shuffled(rows: Sequence[Row]) -> list[Row]:
    mixed = list(rows)
    random.Random(3).shuffle(mixed)
    return mixed


def test_files_need_no_order(tmp_path: Path) -> None:
    """Rows in any order, in small shards and batches, in one file or in parts, give the same log, whatever the types of text and numbers."""
    (tmp_path / "identity.key").write_text(bytes(range(32)).hex())
    parts = shop(200)
    plain, mixed, split = (f"sqlite:///{tmp_path / name}.db" for name in ("plain", "mixed", "split"))
    load(write_log(tmp_path / "plain", *parts), plain)
    load(write_log(tmp_path / "mixed", *map(shuffled, parts)), mixed)
    folder = write_log(tmp_path / "split", *parts)
    for schema, rows in zip((DECISIONS, OUTCOMES, ACTIVITY), parts, strict=True):
        (folder / schema.file).unlink()
        for number in range(3):
            write_file(folder / schema.file / f"part-{number}.parquet", rows[number::3])
    load(folder, split)

    assert everything(plain) == everything(mixed) == everything(split)


def test_shards_and_batches_change_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A log that does not fit into one batch or shard is imported as one that does."""
    (tmp_path / "identity.key").write_text(bytes(range(32)).hex())
    folder = write_log(tmp_path / "log", *shop(200))
    whole, pieces = (f"sqlite:///{tmp_path / name}.db" for name in ("whole", "pieces"))
    load(folder, whole)
    monkeypatch.setattr(shards, "_SHARD", 20)
    monkeypatch.setattr(shards, "_BATCH", 7)
    load(folder, pieces)

    assert everything(whole) == everything(pieces)


def test_check_writes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """--check tells what is there and leaves no file, in the target's folder neither."""
    folder = write_log(tmp_path / "log", *shop(30))
    url = f"sqlite:///{tmp_path / 'new' / 'log.db'}"

    load(folder, url, "--check")

    assert not (tmp_path / "new").exists()
    assert "30 decisions of 9 customers" in capsys.readouterr().out


def test_odd_outcomes_are_told_and_kept(tmp_path: Path, log_url: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Outcomes before their decision, and of messages that were not sent, are no reason to refuse a log; they are counted."""
    decisions = [decision("a"), decision("b", channel="none")]
    write_log(tmp_path, decisions, [outcome("order", "a", NOW - HOUR), outcome("seen", "b"), outcome("order", "b")])

    load(tmp_path, log_url)

    told = capsys.readouterr().out
    assert "note: 1 outcomes are earlier than the decision that they follow" in told
    assert "note: 1 outcomes are of messages that were not sent" in told
    assert run_sql(log_url, "SELECT count(*) FROM outcomes") == [(3,)]


def test_every_column_is_documented(root: Path) -> None:
    """docs/importing.md names every column with its type and default, as the code has them."""
    text = (root / "docs" / "importing.md").read_text()

    for schema in (DECISIONS, OUTCOMES, ACTIVITY):
        assert f"`{schema.file}`" in text
        for field in schema.fields:
            name = f"**`{field.name}`**" if field.is_required else f"`{field.name}`"
            assert f"| {name} | {TYPES[field.kind]} | {field.meaning} |" in text


def export(url: str, folder: Path) -> None:
    assert main(["export", "--log", url, "--to", str(folder)]) == 0


def test_exported_log_is_the_same_data_set(tmp_path: Path) -> None:
    """A simulated log that is exported and imported again has the same training data, to the bit."""
    first, again = (f"sqlite:///{tmp_path / name / 'log.db'}" for name in ("first", "again"))
    assert main(["simulate", "--to", first, "--decisions", "3000", "--seed", "5"]) == 0

    export(first, tmp_path / "out")
    assert main(["import", "--log", "parquet", "--data", str(tmp_path / "out"), "--to", again]) == 0

    assert read_dataset(again, WINDOW).digest == read_dataset(first, WINDOW).digest
    assert len(read_dataset(again, WINDOW)) > 2000


def test_exported_log_of_the_service_is_the_same_data_set(tmp_path: Path) -> None:
    """So has a log that the service kept, with outcomes that came late, texts, numbers and truth values."""
    again = f"sqlite:///{tmp_path / 'again' / 'log.db'}"
    with in_process(tmp_path, clock=MovedClock(NOW)) as service:
        for number in range(60):
            service.clock.move(timedelta(hours=3, minutes=7, microseconds=number))
            values: dict[str, float | str | bool] = {
                "visits": number / 3,
                "is_new": number % 5 == 0,
                "tier": ("gold", "1.0", "Wien, Ö")[number % 3],
                "a.b": float(number % 4),
            }
            request = ask(f"r{number}", customer=f"c{number % 5}", features=values, channels=["push", "email"])
            answer = service.decisions.choose(request).decision.context.decision_id
            kind = ("undelivered", "order", "sent", "not_sent", "seen", "unsubscribe", "clicked")[number % 7]
            moment = service.clock.now() + HOUR
            if number % 2:
                service.clock.move(5 * HOUR)
            service.outcomes.report([happened(f"e{number}", kind, moment, decision_id=answer)])
            service.outcomes.report([happened(f"v{number}", "visit", moment, customer=f"c{number % 5}")])
            service.outcomes.report([happened(f"o{number}", "order", moment, customer=f"c{number % 4}")])
        service.clock.move(10 * DAY)
        service.decisions.choose(ask("closing", customer="nobody"))
        first = service.url
    folder = write_log(tmp_path / "out", [decision("unused")])
    for file in ("decisions.parquet", "outcomes.parquet"):
        (folder / file).unlink()

    export(first, folder)
    load(folder, again)

    assert read_dataset(again, WINDOW).digest == read_dataset(first, WINDOW).digest
    assert run_sql(again, "SELECT count(*) FROM outcomes WHERE type = 'visit'") == [(60,)]
    assert pq.read_table(folder / "activity.parquet").num_rows == 60


def test_export_names_no_identity(tmp_path: Path) -> None:
    """What is exported names customers by the store's keys."""
    with in_process(tmp_path, clock=MovedClock(NOW)) as service:
        service.decisions.choose(ask("r", customer="anna-karenina-1877"))
        url = service.url

    export(url, tmp_path / "out")

    table = pq.read_table(tmp_path / "out" / "decisions.parquet")
    ((key,),) = run_sql(url, "SELECT customer_key FROM decisions")
    assert table["customer_id"].to_pylist() == [key]
    assert "anna-karenina" not in str(table.to_pylist())


def test_export_does_not_overwrite(tmp_path: Path, log_url: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A folder that holds a log already is refused with what is in it, as are logs that are missing or empty."""
    folder = write_log(tmp_path / "log", [decision("a")])
    load(folder, log_url)
    empty = f"sqlite:///{tmp_path / 'empty.db'}"
    Store(empty).close()

    assert main(["export", "--log", log_url, "--to", str(folder)]) == 2
    assert "decisions.parquet, outcomes.parquet already; name another folder with --to" in capsys.readouterr().err
    assert main(["export", "--log", "sqlite:///absent.db", "--to", str(tmp_path / "out")]) == 2
    assert "there is no decision log absent.db" in capsys.readouterr().err
    assert main(["export", "--log", empty, "--to", str(tmp_path / "out")]) == 2
    assert "has no live decision" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_times_are_exact(tmp_path: Path, log_url: str) -> None:
    """A time keeps its microseconds, whatever its unit and zone."""
    moment = NOW + timedelta(microseconds=123_457)
    write_log(tmp_path, [decision("a", moment)])

    load(tmp_path, log_url)

    ((micros,),) = run_sql(log_url, "SELECT decide_time FROM decisions")
    assert from_micros(int(str(micros))) == moment
