"""EraseCustomer: nothing of a person is left in the database, and everything else goes on."""

import contextlib
from pathlib import Path

import grpc
import psycopg
import pyarrow.parquet as pq
import pytest

from service.gen.channelchoice.v1.channel_choice_service_pb2 import ChooseChannelRequest
from service.gen.channelchoice.v1.customer_pb2 import Customer, CustomerRef
from service.gen.channelchoice.v1.customer_service_pb2 import EraseCustomerRequest, UpsertCustomersRequest
from service.gen.channelchoice.v1.decision_pb2 import Decision
from service.gen.channelchoice.v1.outcome_pb2 import (
    OUTCOME_TYPE_CLICKED,
    OUTCOME_TYPE_ORDER,
    OUTCOME_TYPE_SENT,
    OUTCOME_TYPE_UNSUBSCRIBE,
)
from tests.service.examples import DAY, HOUR, NOW, choose_request, identity, outcome
from tests.service.served import Served, refused, serve
from training.dataset import read_dataset
from training.export import export_log

pytestmark = pytest.mark.usefixtures("engine")
SECRET = "Zanzibar-Quux-4711"  # what a caller should not, but may, write into every text that is about the person


def erase(service: Served, ref: CustomerRef) -> int:
    return service.customers.EraseCustomer(EraseCustomerRequest(customer=ref)).erased_row_count


def asking(request_id: str, ref: CustomerRef) -> ChooseChannelRequest:
    request = choose_request(request_id)
    request.customer.CopyFrom(ref)
    return request


def live_with(service: Served, secret: str, name: str) -> Decision:
    """Let a person come in all ways in which one can, and return a decision of theirs."""
    ref = CustomerRef(customer_id=f"{secret}-id", identities=[identity(f"{secret}@example.org")], locale="ru-RU")
    ref.features["note"].text = secret
    service.customers.UpsertCustomers(UpsertCustomersRequest(customers=[Customer(customer=ref)]))
    request = asking(f"{secret}-{name}", ref)
    request.features["shelf"].text = secret
    decision = service.decide(request)
    service.report(
        *(
            outcome(f"{name}-{what}", kind, decision_id=decision.decision_id, occur_time=NOW + HOUR)
            for what, kind in (
                ("sent", OUTCOME_TYPE_SENT),
                ("clicked", OUTCOME_TYPE_CLICKED),
                ("order", OUTCOME_TYPE_ORDER),
                ("out", OUTCOME_TYPE_UNSUBSCRIBE),
            )
        ),
        outcome(f"{name}-later", OUTCOME_TYPE_ORDER, customer=ref, occur_time=NOW + 2 * HOUR),
    )
    return decision


def dump(database: str, folder: Path) -> bytes:
    """Return all that a copy of the database would hold: every byte of the files, or every row of every table."""
    if database.startswith("sqlite"):
        return b"".join(file.read_bytes() for file in sorted(folder.glob("store.db*")))
    found = []
    with contextlib.closing(psycopg.connect(database)) as connection:
        tables = connection.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'").fetchall()
        for (table,) in tables:
            with connection.cursor().copy(f'COPY (SELECT * FROM "{table}") TO STDOUT'.encode()) as copy:
                found += [bytes(part) for part in copy]
    return b"".join(found)


def traces(service: Served, folder: Path, wanted: list[bytes]) -> list[bytes]:
    """Return which of these a copy of the database holds, as text or in hexadecimal."""
    body = dump(service.database, folder)
    return [one for one in wanted if one in body or one.hex().encode() in body]


def test_nothing_of_the_person_is_left(tmp_path: Path) -> None:
    """Neither what was said of a person, nor their key, nor a hash of an identity of theirs is in the database after EraseCustomer, and all of it was there before."""
    with serve(tmp_path) as service:
        live_with(service, SECRET, "one")
        keys = [key.encode() for (key,) in service.rows("SELECT customer_key FROM customers")]
        hashes = [bytes(found) for (found,) in service.rows("SELECT identity_hash FROM identities")]
        wanted = [SECRET.encode(), *keys, *hashes]
        assert traces(service, tmp_path, wanted) == wanted
        assert len(hashes) == 2

        count = erase(service, CustomerRef(customer_id=f"{SECRET}-id"))

        assert traces(service, tmp_path, wanted) == []
        assert count >= 10


def test_others_stay_as_they_are(tmp_path: Path) -> None:
    """Rows of other people are the same, to the byte, after somebody was erased."""
    tables = ("decisions", "outcomes", "contacts", "customers", "identities", "requests")
    with serve(tmp_path) as service:
        live_with(service, "other", "two")

        def rows() -> list[list[object]]:
            return [service.rows(f"SELECT * FROM {table} ORDER BY 1, 2") for table in tables]  # names of ours

        before = rows()
        live_with(service, SECRET, "one")

        erase(service, CustomerRef(customer_id=f"{SECRET}-id"))

        after = rows()
        assert [[row for row in found if row in known] for found, known in zip(after, before, strict=True)] == before
        assert [len(found) - len(known) for found, known in zip(after, before, strict=True)] == [1, 5, 0, 0, 0, 0]


def test_what_was_done_and_spent_is_still_counted(tmp_path: Path) -> None:
    """The decision and its outcomes keep channel, time and price, under a key that nothing leads to, and are not learned from."""
    with serve(tmp_path) as service:
        question = "SELECT decision_id, channel, send_time, price_micros, propensity, decide_time FROM decisions"
        live_with(service, SECRET, "one")
        before = service.rows(question)

        erase(service, CustomerRef(customer_id=f"{SECRET}-id"))

        assert service.rows(question) == before
        ((key, trainable),) = service.rows("SELECT customer_key, trainable FROM decisions")
        assert service.rows("SELECT DISTINCT customer_key FROM outcomes") == [(key,)]
        assert len(key) == 32
        assert not trainable


def test_calls_about_an_erased_decision(tmp_path: Path) -> None:
    """Reading or advancing it answers NOT_FOUND; an outcome is stored as any other, the same one again is a DUPLICATE, and nobody is made known by it."""
    with serve(tmp_path) as service:
        decision = live_with(service, SECRET, "one")
        erase(service, CustomerRef(customer_id=f"{SECRET}-id"))

        with refused() as read:
            service.get(decision.decision_id)
        with refused() as advanced:
            service.advance(decision.decision_id, 1)
        told = [
            outcome("one-clicked", OUTCOME_TYPE_CLICKED, decision_id=decision.decision_id, occur_time=NOW + HOUR),
            outcome("new", OUTCOME_TYPE_ORDER, decision_id=decision.decision_id, occur_time=NOW + 3 * HOUR),
            outcome("out", OUTCOME_TYPE_UNSUBSCRIBE, decision_id=decision.decision_id, occur_time=NOW + 3 * HOUR),
        ]
        statuses = service.statuses(*told)

        assert read[0].code is advanced[0].code is grpc.StatusCode.NOT_FOUND
        assert statuses == ["DUPLICATE", "ACCEPTED", "ACCEPTED"]
        assert service.rows("SELECT count(*) FROM customers") == [(0,)]


def test_who_comes_back_is_new(tmp_path: Path) -> None:
    """The same identity afterwards is a person without history; the same request is decided again."""
    with serve(tmp_path) as service:
        first = live_with(service, SECRET, "one")
        ref = CustomerRef(customer_id=f"{SECRET}-id")
        erase(service, ref)

        service.clock.move(HOUR)
        again = service.decide(asking(f"{SECRET}-one", ref))

        assert again.decision_id != first.decision_id
        assert service.rows("SELECT count(*) FROM contacts") == [(1,)]


def test_everyone_the_identities_lead_to_is_erased(tmp_path: Path) -> None:
    """Two profiles of one person, named together, are both gone."""
    with serve(tmp_path) as service:
        for name in ("a", "b"):
            service.decide(asking(name, CustomerRef(identities=[identity(f"{name}@example.org")])))

        erase(service, CustomerRef(identities=[identity("a@example.org"), identity("b@example.org")]))

        assert service.rows("SELECT count(*) FROM customers") == [(0,)]
        assert service.rows("SELECT count(*) FROM identities") == [(0,)]
        assert service.rows("SELECT count(DISTINCT customer_key) FROM decisions") == [(1,)]


def test_a_stranger_is_erased_without_a_trace(tmp_path: Path) -> None:
    """Erasing somebody who is not known, or a second time, is no error and makes nobody known."""
    with serve(tmp_path) as service:
        assert erase(service, CustomerRef(customer_id="nobody")) == 0
        assert service.rows("SELECT count(*) FROM identities") == [(0,)]


def test_a_log_with_erased_people_is_learned_from_and_exported(tmp_path: Path) -> None:
    """Training and export leave erased decisions and their outcomes out and read the others."""
    with serve(tmp_path) as service:
        live_with(service, SECRET, "one")
        live_with(service, "other", "two")
        erase(service, CustomerRef(customer_id=f"{SECRET}-id"))
        service.clock.move(10 * DAY)
        service.decide(choose_request("closing", customer="closing"))

        data = read_dataset(service.database, 3 * DAY)
        export_log(service.database, tmp_path / "out", lambda _: None)

    assert len(data) == 1
    exported = "".join(str(pq.read_table(file).to_pylist()) for file in (tmp_path / "out").rglob("*.parquet"))
    assert SECRET not in exported
    assert "one-order" not in exported
    assert "two-order" in exported
