"""No identity and no text of a message is ever stored or logged."""

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog

from service.bundles import Serving
from service.gen.channelchoice.v1.customer_pb2 import (
    CONSENT_STATE_GRANTED,
    IDENTITY_TYPE_APP,
    IDENTITY_TYPE_EMAIL,
    IDENTITY_TYPE_EXTERNAL,
    IDENTITY_TYPE_PHONE,
    Customer,
    CustomerRef,
    Identity,
)
from service.gen.channelchoice.v1.customer_service_pb2 import GetCustomerRequest, UpsertCustomersRequest
from service.gen.channelchoice.v1.outcome_pb2 import OUTCOME_TYPE_ORDER, OUTCOME_TYPE_UNSUBSCRIBE
from service.log import set_up_log
from service.rpc.parse import parse_choose
from tests.service.examples import NOW, choose_request, outcome
from tests.service.served import Served, refused, serve, settings_in

SECRETS = {
    "customer": "person-77c1a9",
    "email": "ivan.petrov-9a3f@example.org",
    "phone": "+79161234567",
    "app": "app-4be1d8",
    "external": "crm-0f77ee",
    "text": "Дорогой Иван Петрович, ваша корзина",
}


def everyone() -> CustomerRef:
    kinds = {
        "email": IDENTITY_TYPE_EMAIL,
        "phone": IDENTITY_TYPE_PHONE,
        "app": IDENTITY_TYPE_APP,
        "external": IDENTITY_TYPE_EXTERNAL,
    }
    identities = [Identity(type=kind, value=SECRETS[name]) for name, kind in kinds.items()]
    return CustomerRef(customer_id=SECRETS["customer"], identities=identities)


def use_everything(service: Served) -> None:
    """Let the service meet the person in every call that takes one, in good and in bad requests."""
    request = choose_request()
    request.customer.CopyFrom(everyone())
    request.message.content.text = SECRETS["text"]
    decision = service.decide(request)
    service.choose(request)
    request.message.priority = 7
    with refused():
        service.choose(request)
    request.channels[0].channel = "pigeon"
    with refused():
        service.choose(request)
    service.advance(decision.decision_id, 1)
    service.report(
        outcome("order", OUTCOME_TYPE_ORDER, customer=everyone()),
        outcome("stop", OUTCOME_TYPE_UNSUBSCRIBE, decision_id=decision.decision_id, customer=everyone()),
        outcome("bad", OUTCOME_TYPE_ORDER, step=99, customer=everyone()),
    )
    customer = Customer(customer=everyone())
    customer.consents.add(channel="sms", state=CONSENT_STATE_GRANTED, evidence="form 1")
    service.customers.UpsertCustomers(UpsertCustomersRequest(customers=[customer]))
    service.customers.GetCustomer(GetCustomerRequest(customer=everyone()))
    with refused():
        service.customers.GetCustomer(GetCustomerRequest(customer=CustomerRef(customer_id=SECRETS["customer"] + "0")))


@pytest.fixture
def log_set_up(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> Iterator[pytest.CaptureFixture[str]]:
    """The service's own log at its most talkative, captured."""
    set_up_log(settings_in(tmp_path, log_level="debug", log_format="json"))
    yield capfd
    structlog.reset_defaults()


def test_no_file_holds_an_identity_or_a_text(tmp_path: Path) -> None:
    """Neither database nor write-ahead log nor any other file of the service holds what callers said of a person."""
    with serve(tmp_path) as service:
        use_everything(service)
        while_serving = {path.name: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    afterwards = {path.name: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}

    assert {"store.db", "store.db-wal", "identity.key"} <= while_serving.keys()
    assert b"abandoned_cart" in while_serving["store.db-wal"] + while_serving["store.db"]
    for content in (*while_serving.values(), *afterwards.values()):
        for secret in SECRETS.values():
            assert secret.encode() not in content
            assert secret.encode("unicode_escape") not in content


def test_no_log_line_holds_an_identity_or_a_text(
    tmp_path: Path, log_set_up: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    """Good and bad calls, and calls that fail within, log nothing of a person."""
    with caplog.at_level(logging.DEBUG), serve(tmp_path) as service:
        use_everything(service)
        cannot_score: Any = object()
        service.app.bundles.serving = Serving(bundle=cannot_score, load_time=NOW)  # calls now fail
        request = choose_request("failing")
        request.customer.CopyFrom(everyone())
        request.message.content.text = SECRETS["text"]
        with refused() as refusal:
            service.choose(request)

    logged = "".join(log_set_up.readouterr()) + caplog.text
    assert "call failed" in logged
    for secret in SECRETS.values():
        assert secret not in logged + refusal[0].message


def test_stored_digests_need_the_key(tmp_path: Path) -> None:
    """Bodies, which hold identities, are kept as keyed digests: without the key nobody can try out phone numbers."""
    rows = []
    for name in ("one", "two"):
        folder = tmp_path / name
        folder.mkdir()
        with serve(folder) as service:
            use_everything(service)
            rows.append(
                (
                    service.rows("SELECT digest FROM outcomes ORDER BY event_id"),
                    service.rows("SELECT request_digest FROM decisions"),
                    service.rows("SELECT identity_hash FROM identities ORDER BY identity_hash"),
                )
            )

    for first, second in zip(*rows, strict=True):
        assert first
        assert not set(first) & set(second)


def test_the_representation_of_a_request_hides_its_person(tmp_path: Path) -> None:
    """A traceback or debugger that prints a checked request shows no identity."""
    request = choose_request()
    request.customer.CopyFrom(everyone())
    with serve(tmp_path) as service:
        parsed, _ = parse_choose(request, service.app.rules, NOW)

    assert not [secret for secret in SECRETS.values() if secret in repr(parsed)]
