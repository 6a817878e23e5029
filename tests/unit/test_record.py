"""How a decision is written down and read back."""

from dataclasses import fields, replace
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from models.actions import ActionTable
from models.cascade import Step
from models.context import (
    CascadeEnd,
    ChannelOption,
    Constraints,
    Contact,
    Content,
    Context,
    CustomerState,
    DegradedCause,
    FeatureValue,
    Message,
    Mode,
    Reason,
    Verdict,
)
from models.decide import Choice, Decision, Degraded, Distribution, decide
from models.eligibility import Slot, Suppressed
from models.features import NO_SEND, Action, feature_values
from models.record import (
    choice_from_json,
    choice_to_json,
    context_from_json,
    context_to_json,
    features_from_json,
    features_to_json,
    from_micros,
    pack_actions,
    to_micros,
    unpack_actions,
)
from models.rules import Category, Rules
from models.sms import TextSize
from tests.unit.examples import CONTEXT, RULES, bundle_of
from tests.unit.strategies import some_requests

TEXT = st.text(max_size=8)
MICROS = st.integers(0, 2**63 - 1)
MOMENTS = st.datetimes(datetime(1970, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001 hypothesis wants naive bounds
SPANS = st.timedeltas(timedelta(0), timedelta(days=30))
FINITE = st.floats(allow_nan=False, allow_infinity=False)
FEATURES = st.dictionaries(
    TEXT, FINITE | TEXT | st.booleans() | st.sampled_from(["1.5", "true", "null", ""]), max_size=5
)
CATEGORIES: st.SearchStrategy[Category] = st.sampled_from(["marketing", "service", "transactional"])
CONTENTS = st.builds(
    Content,
    size=st.builds(
        TextSize,
        characters=st.integers(0, 10_000),
        encoding=st.sampled_from(["gsm7", "ucs2"]),
        segments=st.integers(1, 200),
    ),
    has_image=st.booleans(),
)
CONTEXTS = st.builds(
    Context,
    decision_id=TEXT,
    step=st.integers(1, 5),
    decide_time=MOMENTS,
    not_before=MOMENTS,
    customer=st.builds(
        CustomerState,
        key=TEXT,
        time_zone=TEXT,
        country=TEXT,
        locale=TEXT,
        contacts=st.lists(
            st.builds(
                Contact, decision_id=TEXT, channel=TEXT, topic=TEXT, category=CATEGORIES, start=MOMENTS, end=MOMENTS
            ),
            max_size=3,
        ).map(tuple),
        order_times=st.lists(MOMENTS, max_size=3).map(tuple),
    ),
    message=st.builds(
        Message,
        campaign=TEXT,
        kind=TEXT,
        category=CATEGORIES,
        order_margin_micros=MICROS,
        earliest_time=MOMENTS,
        expire_time=MOMENTS,
        content=CONTENTS,
        topic=TEXT,
        offer=TEXT,
        journey_stage=TEXT,
        relevance_half_life_seconds=st.none() | FINITE,
        priority=st.integers(0, 100),
    ),
    options=st.lists(
        st.builds(
            ChannelOption,
            channel=TEXT,
            is_reachable=st.booleans(),
            has_consent=st.booleans(),
            price_override_micros=st.none() | MICROS,
            content=st.none() | CONTENTS,
        ),
        max_size=3,
    ).map(tuple),
    seed=MICROS,
    constraints=st.builds(
        Constraints,
        allowed_channels=st.lists(TEXT, max_size=2).map(tuple),
        denied_channels=st.lists(TEXT, max_size=2).map(tuple),
        max_cost_micros=st.none() | MICROS,
        free_first=st.sampled_from([None, "by_value", "strict"]),
        max_steps=st.none() | st.integers(1, 5),
    ),
    features=FEATURES,
    tried=st.lists(TEXT, max_size=2).map(tuple),
    paused=st.lists(TEXT, max_size=2).map(tuple),
    mode=st.sampled_from(Mode),
)
ACTIONS = st.just(Action(channel=NO_SEND)) | st.builds(Action, channel=TEXT, send_time=MOMENTS)
CHOICES = st.builds(
    Choice,
    verdict=st.sampled_from(Verdict),
    action=st.none() | ACTIONS,
    slot=st.none() | st.builds(Slot, start=MOMENTS, end=MOMENTS),
    price_micros=MICROS,
    propensity=st.floats(0, 1),
    exploration_cost_micros=st.floats(0, 1e15),
    suppressed=st.lists(
        st.builds(
            Suppressed, channel=TEXT, reason=st.sampled_from(Reason), detail=TEXT, retry_time=st.none() | MOMENTS
        ),
        max_size=3,
    ).map(tuple),
    steps=st.lists(
        st.builds(Step, step=st.integers(1, 5), channel=TEXT, not_before=MOMENTS, wait=SPANS, price_micros=MICROS),
        max_size=3,
    ).map(tuple),
    cascade_end=st.none() | st.sampled_from(CascadeEnd),
    retry_time=st.none() | MOMENTS,
    policy=TEXT,
    bundle_version=TEXT,
    rules_name=TEXT,
    degraded=st.lists(st.builds(Degraded, cause=st.sampled_from(DegradedCause), detail=TEXT), max_size=2).map(tuple),
    trainable=st.booleans(),
)


def assert_equal(found: Distribution | None, expected: Distribution | None) -> None:
    """Assert that two distributions are equal to the bit."""
    if found is None or expected is None:
        assert found is expected
        return
    assert found.table.actions == expected.table.actions
    assert found.probabilities.tobytes() == expected.probabilities.tobytes()
    for name in (field.name for field in fields(ActionTable)):
        expected_column = getattr(expected.table, name)
        if isinstance(expected_column, np.ndarray):
            column = getattr(found.table, name)
            assert column.dtype == expected_column.dtype
            assert column.tobytes() == expected_column.tobytes()


@given(context=CONTEXTS)
def test_context_that_was_written_is_read_back_equal(context: Context) -> None:
    """A context is read back from JSON as it was written."""
    found = context_from_json(context_to_json(context))

    assert found == context
    assert {k: type(v) for k, v in found.features.items()} == {k: type(v) for k, v in context.features.items()}


@given(choice=CHOICES)
def test_choice_that_was_written_is_read_back_equal(choice: Choice) -> None:
    """A choice is read back from JSON as it was written, its defaults left out among it."""
    found = choice_from_json(choice_to_json(choice))

    assert found == choice
    assert repr(found.propensity) == repr(choice.propensity)


@given(features=FEATURES)
def test_features_that_were_written_are_read_back_equal(features: dict[str, FeatureValue]) -> None:
    """Features are read back with their values and types; text that looks like a number stays text."""
    context = replace(CONTEXT, features=features)
    decision = Decision(context=context, choice=Choice(verdict=Verdict.HOLDOUT))
    expected = feature_values(context, Action(channel=NO_SEND))

    found = features_from_json(features_to_json(decision))

    assert found == expected
    assert {k: type(v) for k, v in found.items()} == {k: type(v) for k, v in expected.items()}


def test_features_written_are_those_of_the_served_action() -> None:
    """The features in the log are of the action that was served."""
    decision = decide(CONTEXT, RULES, bundle_of({"push": 0.5}))
    assert decision.choice.action is not None

    found = features_from_json(features_to_json(decision))

    assert found == feature_values(CONTEXT, decision.choice.action)


@given(
    request_and_rules=some_requests(),
    seed=st.integers(0, 2**63 - 1),
    chances=st.fixed_dictionaries(dict.fromkeys(("none", *RULES.channels), st.floats(0.001, 0.999))),
    has_bundle=st.booleans(),
)
def test_decision_is_made_again_from_what_was_written(
    request_and_rules: tuple[Context, Rules], seed: int, chances: dict[str, float], has_bundle: bool
) -> None:
    """A decision read back is equal, and the context read back is decided the same to the bit."""
    context, rules = replace(request_and_rules[0], seed=seed), request_and_rules[1]
    bundle = bundle_of(chances) if has_bundle else None
    decision = decide(context, rules, bundle)

    again = decide(context_from_json(context_to_json(context)), rules, bundle)

    assert choice_from_json(choice_to_json(decision.choice)) == decision.choice
    assert_equal(unpack_actions(context, pack_actions(decision)), decision.distribution)
    assert choice_to_json(again.choice) == choice_to_json(decision.choice)
    assert pack_actions(again) == pack_actions(decision)
    assert features_to_json(again) == features_to_json(decision)


@given(data=st.data(), n=st.integers(1, 6))
def test_any_distribution_is_packed_and_unpacked_to_the_bit(data: st.DataObject, n: int) -> None:
    """Numbers of every size, the infinities and NaN among them, come out of the packed form as they went in."""
    any_float = st.floats(width=64)

    def column() -> NDArray[np.float64]:
        return np.array(data.draw(st.lists(any_float, min_size=n, max_size=n)))

    sends = data.draw(
        st.lists(st.tuples(st.sampled_from(list(RULES.channels)), MOMENTS), min_size=n - 1, max_size=n - 1)
    )
    table = ActionTable(
        actions=(Action(channel=NO_SEND), *(Action(channel=c, send_time=t) for c, t in sends)),
        is_paid=np.array(data.draw(st.lists(st.booleans(), min_size=n, max_size=n))),
        price_micros=column(),
        p_response=column(),
        p_unsubscribe=column(),
        uplift=column(),
        incremental_micros=column(),
        harm_micros=column(),
        net_micros=column(),
        plan_micros=column(),
        deviation_micros=column(),
        shadow_price=column(),
    )
    distribution = Distribution(table=table, probabilities=column())
    decision = Decision(context=CONTEXT, choice=Choice(verdict=Verdict.SEND), distribution=distribution)

    assert_equal(unpack_actions(CONTEXT, pack_actions(decision)), distribution)


def test_decision_without_a_distribution_has_no_packed_rows() -> None:
    """Where there was nothing to choose from, nothing is packed and nothing unpacked."""
    decision = Decision(context=CONTEXT, choice=Choice(verdict=Verdict.HOLDOUT))

    assert pack_actions(decision) is None
    assert unpack_actions(CONTEXT, None) is None


@given(moment=st.datetimes(timezones=st.timezones()))
def test_moment_is_kept_to_the_microsecond(moment: datetime) -> None:
    """A moment of any year and zone comes back from its microseconds as the same moment in UTC."""
    try:
        in_utc = moment.astimezone(UTC)
    except OverflowError:
        return

    assert from_micros(to_micros(moment)) == in_utc
    assert to_micros(in_utc) == to_micros(moment)


def test_moment_before_1970_is_negative() -> None:
    """Microseconds count down before 1970."""
    assert to_micros(datetime(1969, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC)) == -1
    assert from_micros(-1) == datetime(1969, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC)


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"verdict": "perhaps"}'])
def test_row_that_is_not_a_choice_is_refused(text: str) -> None:
    """Text that does not hold a choice is an error, not a choice of defaults."""
    with pytest.raises(ValueError, match="Choice"):
        choice_from_json(text)
