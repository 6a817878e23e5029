"""Training sees exactly what serving saw: the features in the log are those of which the service worked out its rows."""

import dataclasses
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from models.bundle import load_bundle
from models.context import FeatureValue, Verdict
from models.decide import Decision
from models.features import BUILT_IN, Action, Encoder, feature_values
from models.record import context_from_json, features_from_json, to_micros
from service.store.store import Store
from tests.service.served import MovedClock
from tests.training.examples import (
    DAY,
    HOUR,
    KEY,
    NOW,
    RULES,
    WINDOW,
    InProcess,
    ask,
    happened,
    in_process,
    logged,
    run_sql,
    write,
    write_fitted,
)
from training.dataset import Dataset, find_columns, read_dataset
from training.fit import fit
from training.grow import Hyperparameters
from training.journal import LoggedDecision, customer_hash, write_log
from training.simulate import simulate_log

FloatArray = NDArray[np.float64]
CALLS = 120


@dataclasses.dataclass(frozen=True, kw_only=True)
class Served:
    """Decisions as the service made them, in order of time, and the log that it left."""

    decisions: list[Decision]
    url: str


def features_of(number: int) -> dict[str, FeatureValue]:
    """Features of every type, some missing in some requests."""
    features: dict[str, FeatureValue] = {
        "visits": float(number % 7),
        "share": number / 3,
        "tier": ("gold", "silver", "Wien, Ö", "1.0")[number % 4],
        "is_new": number % 5 == 0,
        "tiny": 1e-300 * number,
    }
    if number % 3 == 0:
        del features["tier"]
    if number % 4 == 1:
        features["rare"] = 0.1 + 0.2
    return features


def use(service: InProcess) -> list[Decision]:
    """Let customers come back again and again, order, and be written to through what the policy draws."""
    made: list[Decision] = []
    for number in range(CALLS):
        service.clock.move(timedelta(hours=5, minutes=7, seconds=number, microseconds=number))
        request = ask(
            f"request-{number}",
            customer=f"customer-{number % 9}",
            kind=("cart", "news")[number % 2],
            features=features_of(number),
        )
        decision = service.decisions.choose(request).decision
        made.append(decision)
        if number % 4 == 0:
            moment = service.clock.now() + HOUR
            service.outcomes.report([happened(f"o{number}", "order", moment, decision_id=decision.context.decision_id)])
    service.clock.move(10 * DAY)
    service.decisions.choose(ask("closing", customer="nobody"))
    return made


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A service that learned its bundle from a simulated log, and then decided for a month."""
    folder = tmp_path_factory.mktemp("served")
    simulated = f"sqlite:///{folder / 'simulated.db'}"
    store = Store(simulated)
    identities, decisions = simulate_log(1500, RULES, KEY, 3, lambda _: None)
    write_log(store, decisions, identities)
    store.close()
    fitted = fit(read_dataset(simulated, WINDOW), Hyperparameters(trees=20), "simulated", lambda _: None)
    write_fitted(folder / "bundle", "test", fitted)
    with in_process(folder, bundle=str(folder / "bundle"), clock=MovedClock(NOW)) as service:
        made = use(service)
        yield Served(decisions=made, url=service.url)


@pytest.fixture(scope="module")
def read(served: Served) -> Dataset:
    return read_dataset(served.url, WINDOW)


def served_row(encoder: Encoder, decision: Decision) -> FloatArray:
    """The row that serving works out for the action it served, as it works out all of a decision's rows."""
    assert decision.distribution is not None
    actions = decision.distribution.table.actions
    matrix = encoder.encode_actions(decision.context, actions)
    row: FloatArray = matrix[actions.index(chosen(decision))]
    return row


def chosen(decision: Decision) -> Action:
    assert decision.choice.action is not None
    return decision.choice.action


def test_service_decided_what_training_should_see(served: Served) -> None:
    """The decisions compared below are of a bundle, through several channels and no send, after contacts and orders."""
    channels = {chosen(decision).channel for decision in served.decisions}

    assert channels == {"none", "push", "email", "sms"}
    assert {decision.choice.verdict for decision in served.decisions} == {Verdict.SEND, Verdict.DO_NOT_SEND}
    assert not any(decision.choice.degraded for decision in served.decisions)
    assert any(decision.context.customer.order_times for decision in served.decisions)
    assert any(len(decision.context.customer.contacts) > 3 for decision in served.decisions)


def test_rows_of_training_are_rows_of_serving(served: Served, read: Dataset) -> None:
    """Row by row and bit by bit, the matrix read from the log is the one that serving computed for the served action."""
    encoder = Encoder(read.columns)

    rows = np.array([served_row(encoder, decision) for decision in served.decisions])

    assert read.matrix.shape == rows.shape
    assert read.matrix.tobytes() == rows.tobytes()


def test_every_kind_of_feature_is_compared(read: Dataset) -> None:
    """The rows compared have built-in features of context and action, and the callers' numbers, texts and truth values."""
    names = {column.name for column in read.columns}

    assert {"channel", "local_hour", "lag_hours", "channel_contacts_30d", "hours_since_channel_contact"} <= names
    assert {"contacts_7d", "hours_since_contact", "orders_90d", "hours_since_order", "message_kind"} <= names
    assert {"x.visits", "x.share", "x.tier", "x.is_new", "x.rare", "x.tiny"} <= names
    share_missing = np.isnan(read.matrix).mean(axis=0)
    assert ((share_missing > 0) & (share_missing < 1)).sum() >= 4


def test_served_propensity_and_price_are_the_logged_ones(served: Served, read: Dataset) -> None:
    """Propensity, price, channel and time in the data are those that were answered."""
    assert read.propensity.tolist() == [decision.choice.propensity for decision in served.decisions]
    assert read.channel.tolist() == [chosen(decision).channel for decision in served.decisions]
    assert read.price.tolist() == [decision.choice.price_micros / 1e6 for decision in served.decisions]
    assert read.decide_time.tolist() == [to_micros(decision.context.decide_time) for decision in served.decisions]


def test_served_probability_comes_out_of_the_log_again(served: Served) -> None:
    """Of the context in the log, the bundle gives every action the P(order) that it gave when it decided, to the bit."""
    rows = run_sql(served.url, "SELECT context FROM decisions WHERE request_id != 'closing' ORDER BY decide_time")
    bundle = load_bundle(Path(served.url.removeprefix("sqlite:///")).parent / "bundle")

    for (context,), decision in zip(rows, served.decisions, strict=True):
        assert decision.distribution is not None
        table = decision.distribution.table

        again = bundle.estimate(context_from_json(str(context)), table.actions, {})

        assert again.p_response.tobytes() == table.p_response.tobytes()


def test_logged_context_gives_the_logged_features(served: Served) -> None:
    """The features in the log follow from the context in it, so that neither can be wrong alone."""
    rows = run_sql(served.url, "SELECT context, features, channel, send_time FROM decisions")

    for context_json, features, channel, send_time in rows:
        context = context_from_json(str(context_json))
        moment = None
        if isinstance(send_time, int):
            moment = NOW + timedelta(microseconds=send_time - to_micros(NOW))
        values = feature_values(context, Action(channel=str(channel), send_time=moment))
        assert values == features_from_json(str(features))


def test_no_feature_looks_into_the_future(served: Served) -> None:
    """An order or a contact after the decision changes none of its features, so that training cannot learn from it."""
    for decision in served.decisions[20:40]:
        context = decision.context
        later = tuple(context.decide_time + hours * HOUR for hours in (1, 30))
        contacts = tuple(dataclasses.replace(c, start=later[0], end=later[0]) for c in context.customer.contacts[:1])
        customer = dataclasses.replace(
            context.customer,
            order_times=(*context.customer.order_times, *later),
            contacts=(*context.customer.contacts, *contacts),
        )
        changed = dataclasses.replace(context, customer=customer)
        assert feature_values(changed, chosen(decision)) == feature_values(context, chosen(decision))


def imported() -> list[LoggedDecision]:
    return [
        logged(f"i{n}", moment=NOW + n * HOUR, channel=("push", "none", "sms")[n % 3], features=features_of(n))
        for n in range(30)
    ]


def test_imported_rows_are_those_that_serving_would_compute(log_url: str) -> None:
    """A log from outside holds the features that the service would have worked out in the same context."""
    write(log_url, [*imported(), logged("closing", moment=NOW + 30 * DAY)])

    data = read_dataset(log_url, WINDOW)

    encoder = Encoder(data.columns)
    rows = [encoder.encode_actions(d.context, [d.action])[0] for d in imported()]
    assert data.matrix.tobytes() == np.array(rows).tobytes()


def test_columns_encode_the_same_both_ways() -> None:
    """Whatever the columns, encoding the values of an action and encoding the action itself agree."""
    decisions = imported()
    values = [feature_values(d.context, d.action) for d in decisions]
    columns = find_columns(values)
    encoder = Encoder(columns)

    assert set(BUILT_IN) & {column.name for column in columns}
    for decision, row in zip(decisions, values, strict=True):
        both = encoder.encode_values(row), encoder.encode_actions(decision.context, [decision.action])[0]
        assert both[0].tobytes() == both[1].tobytes()


def test_identities_of_the_journal_are_those_of_the_service(tmp_path: Path) -> None:
    """A customer of an imported log is the same person to the service, with the history that was imported."""
    url = f"sqlite:///{tmp_path / 'served.db'}"
    store = Store(url)
    write_log(store, [logged("past", customer="anna")], [customer_hash(KEY, "anna")])
    store.close()

    with in_process(tmp_path, clock=MovedClock(NOW + DAY)) as service:
        context = service.decisions.choose(ask("now", customer="anna")).decision.context

    assert [contact.channel for contact in context.customer.contacts] == ["push"]
    assert feature_values(context, Action(channel="none"))["hours_since_contact"] == 24.0
