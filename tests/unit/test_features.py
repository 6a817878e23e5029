"""Features of contexts and actions, and how they become rows of a matrix."""

import math
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.context import Context, FeatureValue
from models.features import BUILT_IN, FEATURES, NO_SEND, Action, Column, Encoder, category_name, feature_values
from tests.unit.examples import CONTEXT, DAY, HOUR, NOW, contact, with_contacts

PUSH = Action(channel="push", send_time=NOW + 3 * HOUR)
NOTHING = Action(channel=NO_SEND)


def code(column: Column, value: FeatureValue | None) -> float:
    """Return how an encoder of that column alone encodes a value."""
    values = {} if value is None else {column.name: value}
    return float(Encoder((column,)).encode_values(values)[0])


def values_of(context: Context, action: Action = PUSH) -> dict[str, FeatureValue]:
    return feature_values(context, action)


def test_every_feature_is_worked_out_in_one_way() -> None:
    """Names are unique, and a feature is of the context, of the channel or of the time, of one of them alone."""
    assert len(BUILT_IN) == len(FEATURES)
    assert all(sum(way is not None for way in (f.of_context, f.of_channel, f.of_time)) == 1 for f in FEATURES)
    assert all(f.meaning for f in FEATURES)


def test_lifetime_of_a_later_step_is_that_of_the_message() -> None:
    """A message with six hours left at its third step is not one that lives for six hours; one asked for before its time lives from then on."""
    message = replace(CONTEXT.message, earliest_time=NOW, expire_time=NOW + 48 * HOUR)
    first = replace(CONTEXT, decide_time=NOW, message=message)
    third = replace(first, step=3, decide_time=NOW + 42 * HOUR, not_before=NOW + 42 * HOUR)
    ahead = replace(first, decide_time=NOW - 12 * HOUR)

    assert [values_of(context)["lifetime_hours"] for context in (first, third, ahead)] == [48.0, 48.0, 48.0]


def test_no_send_has_no_action_features_but_its_channel() -> None:
    """Of no send the features of a send are missing, and the channel says so."""
    sends = {f.name for f in FEATURES if f.of_context is None} - {"channel"}

    values = values_of(CONTEXT, NOTHING)

    assert values["channel"] == "none"
    assert not sends & set(values)
    assert values["message_kind"] == "abandoned_cart"


def test_hour_and_day_are_the_customers_own() -> None:
    """The send is placed on the customer's clock and calendar, minutes of an odd zone among them."""
    late = Action(channel="push", send_time=datetime(2026, 11, 4, 18, 30, tzinfo=UTC))
    nepal = replace(CONTEXT, customer=replace(CONTEXT.customer, time_zone="Asia/Kathmandu"))

    assert (values_of(CONTEXT, late)["local_hour"], values_of(CONTEXT, late)["local_weekday"]) == (21.5, 2.0)
    assert (values_of(nepal, late)["local_hour"], values_of(nepal, late)["local_weekday"]) == (0.25, 3.0)


def test_contacts_are_counted_in_their_windows() -> None:
    """A contact counts from its start until exactly the length of a window later."""
    ages = [timedelta(0), timedelta(hours=23), DAY, 7 * DAY - HOUR, 30 * DAY - HOUR, 30 * DAY]
    context = with_contacts(*(contact(NOW - age) for age in ages))

    values = values_of(context)

    assert (values["contacts_1d"], values["contacts_7d"], values["contacts_30d"]) == (2.0, 4.0, 5.0)
    assert values["hours_since_contact"] == 0.0


def test_contacts_still_to_come_are_not_counted_as_past() -> None:
    """A message that is scheduled but not sent at the decision is not a contact in the days before it."""
    values = values_of(with_contacts(contact(NOW + HOUR)))

    assert (values["contacts_1d"], values["channel_contacts_30d"]) == (0.0, 0.0)
    assert "hours_since_contact" not in values
    assert "hours_since_channel_contact" not in values


def test_contacts_of_the_channel_are_its_own() -> None:
    """Contacts through other channels count in the totals and not for the channel."""
    context = with_contacts(contact(NOW - 2 * HOUR, channel="push"), contact(NOW - HOUR, channel="email"))

    values = values_of(context)

    assert values["channel_contacts_30d"] == 1.0
    assert values["hours_since_channel_contact"] == 2.0
    assert values["hours_since_contact"] == 1.0


def test_orders_are_counted_until_the_decision() -> None:
    """Orders of the last 90 days count, neither older nor future ones."""
    times = (NOW - 90 * DAY, NOW - 89 * DAY, NOW - DAY, NOW + HOUR)
    context = replace(CONTEXT, customer=replace(CONTEXT.customer, order_times=times))

    assert values_of(context)["orders_90d"] == 2.0
    assert values_of(context)["hours_since_order"] == 24.0


def test_optional_texts_are_missing_where_empty() -> None:
    """A message without offer or journey stage has no such features."""
    assert not {"offer", "journey_stage"} & set(values_of(CONTEXT))
    with_offer = replace(CONTEXT, message=replace(CONTEXT.message, offer="20%"))
    assert values_of(with_offer)["offer"] == "20%"


def test_callers_features_come_under_their_prefix() -> None:
    """A caller's feature can neither hide nor replace one of ours."""
    context = replace(CONTEXT, features={"channel": "fax", "score": 0.5, "x.deep": True})

    values = values_of(context)

    assert values["channel"] == "push"
    assert (values["x.channel"], values["x.score"], values["x.x.deep"]) == ("fax", 0.5, True)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("gold", 0.0),
        ("7", 1.0),
        (7.0, 1.0),
        (True, 2.0),
        ("true", 2.0),
        ("1", math.nan),
        (1.0, math.nan),
        ("Gold", math.nan),
    ],
)
def test_category_is_encoded_by_its_spelling(value: FeatureValue, expected: float) -> None:
    """A category's code is its place in the column; one that training has not seen is missing."""
    column = Column(name="x.level", kind="category", categories=("gold", "7", "true"))

    assert code(column, value) == pytest.approx(expected, nan_ok=True)


@pytest.mark.parametrize(
    ("value", "expected"), [(1.5, 1.5), (True, 1.0), (False, 0.0), ("1.5", math.nan), ("", math.nan), (None, math.nan)]
)
def test_number_is_itself_and_text_is_missing(value: FeatureValue | None, expected: float) -> None:
    """A number is encoded as it is, a flag as 0 or 1; text where a number belongs is missing."""
    assert code(Column(name="x.n", kind="number"), value) == pytest.approx(expected, nan_ok=True)


def test_extreme_numbers_are_kept() -> None:
    """The greatest and the least numbers come out as they went in."""
    for number in (1.7976931348623157e308, -1.7976931348623157e308, 5e-324, math.inf, -math.inf):
        assert code(Column(name="x.n", kind="number"), number) == number


@given(one=st.floats(allow_nan=False), other=st.floats(allow_nan=False))
def test_different_numbers_are_different_categories(one: float, other: float) -> None:
    """Two numbers are spelled alike as categories only where they are equal, long ids among them."""
    assert (category_name(one) == category_name(other)) == (one == other and str(one) == str(other))


@given(number=st.integers(-(2**53), 2**53))
def test_whole_number_is_the_same_category_as_float_and_as_int(number: int) -> None:
    """A whole number is spelled without a fraction, whichever type it came in."""
    assert category_name(number) == category_name(float(number))


def test_long_ids_stay_apart() -> None:
    """Ids of seven digits that differ in the last one are two categories, spelled in full."""
    assert (category_name(1_000_001.0), category_name(1_000_002.0)) == ("1000001", "1000002")


def test_column_without_prefix_is_not_read_from_the_callers_features() -> None:
    """A column that names neither a feature of ours nor a caller's is missing, however rows are encoded."""
    context = replace(CONTEXT, features={"retired": 3.0})
    encoder = Encoder((Column(name="retired", kind="number"),))

    assert np.isnan(encoder.encode_actions(context, (PUSH,))).all()
    assert np.isnan(encoder.encode_values(values_of(context))).all()


def test_no_actions_and_no_columns_make_empty_matrices() -> None:
    """An encoder without columns, or without actions, makes a matrix of the right shape."""
    column = Column(name="step", kind="number")

    assert Encoder((column,)).encode_actions(CONTEXT, ()).shape == (0, 1)
    assert Encoder(()).encode_actions(CONTEXT, (PUSH, NOTHING)).shape == (2, 0)


# --- properties ---------------------------------------------------------------------------------------------------------------

NAMES = ("score", "level", "flag", "x.deep", "channel", "retired")
VALUES = st.floats() | st.text(max_size=5) | st.booleans() | st.sampled_from(["gold", "silver"])


@st.composite
def some_contexts(draw: st.DrawFn) -> Context:
    offsets = st.integers(-100 * 24 * 60, 24 * 60)
    contacts = [
        contact(NOW + timedelta(minutes=m), channel=c)
        for m, c in draw(st.lists(st.tuples(offsets, st.sampled_from(["push", "sms"])), max_size=5))
    ]
    orders = tuple(NOW + timedelta(minutes=m) for m in draw(st.lists(offsets, max_size=3)))
    customer = replace(
        CONTEXT.customer,
        contacts=tuple(contacts),
        order_times=orders,
        time_zone=draw(st.sampled_from(["Europe/Moscow", "Asia/Kathmandu", "America/Sao_Paulo"])),
    )
    message = replace(
        CONTEXT.message,
        offer=draw(st.sampled_from(["", "20%"])),
        journey_stage=draw(st.sampled_from(["", "new"])),
        order_margin_micros=draw(st.integers(0, 10**15)),
    )
    features = draw(st.dictionaries(st.sampled_from(NAMES), VALUES))
    return replace(CONTEXT, customer=customer, message=message, features=features, step=draw(st.integers(1, 5)))


def some_columns() -> st.SearchStrategy[tuple[Column, ...]]:
    names = st.sampled_from([*BUILT_IN, *(f"x.{name}" for name in NAMES), *NAMES, "unknown"])
    categories = st.lists(st.sampled_from(["push", "none", "gold", "true", "1", "0", "nan", "new"]), unique=True)
    one = st.builds(
        lambda name, kind, found: Column(name=name, kind=kind, categories=tuple(found)),
        names,
        st.sampled_from(["number", "category"]),
        categories,
    )
    return st.lists(one, max_size=12).map(tuple)


def some_actions() -> st.SearchStrategy[list[Action]]:
    send = st.builds(
        lambda channel, minutes: Action(channel=channel, send_time=NOW + timedelta(minutes=minutes)),
        st.sampled_from(["push", "sms", "fax"]),
        st.integers(0, 3_000),
    )
    return st.lists(st.just(NOTHING) | send, max_size=6)


@given(context=some_contexts(), columns=some_columns(), actions=some_actions())
def test_actions_are_encoded_as_their_values_are(
    context: Context, columns: tuple[Column, ...], actions: list[Action]
) -> None:
    """Serving encodes all actions at once exactly as training encodes each from the log's features."""
    encoder = Encoder(columns)

    matrix = encoder.encode_actions(context, actions)

    rows = [encoder.encode_values(feature_values(context, action)) for action in actions]
    assert matrix.shape == (len(actions), len(columns))
    for row, expected in zip(matrix, rows, strict=True):
        assert row.tobytes() == expected.tobytes()


@given(contexts=st.lists(some_contexts(), min_size=1, max_size=4), columns=some_columns(), actions=some_actions())
def test_customers_are_encoded_together_as_each_alone(
    contexts: list[Context], columns: tuple[Column, ...], actions: list[Action]
) -> None:
    """Whether they live in one zone or in several, the same actions get for each customer what they would get alone."""
    encoder = Encoder(columns)

    matrices = encoder.encode_each(contexts, actions)

    assert len(matrices) == len(contexts)
    for matrix, context in zip(matrices, contexts, strict=True):
        assert matrix.tobytes() == encoder.encode_actions(context, actions).tobytes()


@given(context=some_contexts(), actions=some_actions())
def test_features_have_the_kind_that_is_declared(context: Context, actions: list[Action]) -> None:
    """A built-in number is a finite number and a category is text."""
    for action in actions:
        for name, value in feature_values(context, action).items():
            if name in BUILT_IN:
                number = BUILT_IN[name].kind == "number"
                assert isinstance(value, float) and math.isfinite(value) if number else isinstance(value, str)
