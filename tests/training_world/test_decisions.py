"""Decisions with a trained bundle keep what common sense says of money: on contexts of the world, with whatever price, budget and policy."""

from dataclasses import replace

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from models.budget import BudgetState
from models.context import Context
from models.decide import Evaluation, decide, evaluate, make_seed, serve
from models.record import context_from_json, context_to_json
from models.rules import PolicyName, Rules
from tests.training_world.beliefs import ASKED, Trained
from training.world.people import CHANNELS

RUBLE = 1_000_000
POLICIES: tuple[PolicyName, ...] = (
    "greedy_floor",
    "inverse_gap",
    "thompson",
    "epsilon_greedy",
    "greedy",
    "rule_cascade",
)
PAID = ("viber", "sms", "whatsapp")
some = settings(
    deadline=None,
    derandomize=True,
    database=None,
    max_examples=150,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
WHICH = st.integers(0, ASKED - 1)
PRICES = st.tuples(st.integers(0, 60 * RUBLE), st.integers(0, 60 * RUBLE))


def context_of(trained: Trained, which: int) -> Context:
    """A message of the world's to one of its customers, all of whose channels can be reached."""
    context = trained.world.context(which)
    return replace(
        context, options=tuple(replace(option, is_reachable=True, has_consent=True) for option in context.options)
    )


def priced(context: Context, channel: str, micros: int) -> Context:
    options = tuple(
        replace(option, price_override_micros=micros) if option.channel == channel else option
        for option in context.options
    )
    return replace(context, options=options)


def under(rules: Rules, name: PolicyName) -> Rules:
    return replace(rules, policy=replace(rules.policy, name=name))


def best(context: Context, rules: Rules, trained: Trained) -> float:
    """What the best plan is worth, no send being worth nothing."""
    found = evaluate(context, rules, trained.bundle)
    if not isinstance(found, Evaluation):
        return 0.0
    return max(0.0, float(found.distribution.table.plan_micros.max()))


def share(context: Context, rules: Rules, trained: Trained, channel: str) -> float:
    found = evaluate(context, rules, trained.bundle)
    if not isinstance(found, Evaluation):
        return 0.0
    table, probabilities = found.distribution.table, found.distribution.probabilities
    return float(sum(p for a, p in zip(table.actions, probabilities, strict=True) if a.channel == channel))


@some
@given(which=WHICH, channel=st.sampled_from(CHANNELS), prices=PRICES, policy=st.sampled_from(POLICIES))
def test_raising_a_price_never_raises_that_channels_share(
    trained: Trained, which: int, channel: str, prices: tuple[int, int], policy: PolicyName
) -> None:
    """Whatever follows in its cascade or in others', and however much is explored, a dearer channel is sent through no more often."""
    context, rules = context_of(trained, which), under(trained.world.rules, policy)

    cheap, dear = (share(priced(context, channel, p), rules, trained, channel) for p in sorted(prices))

    assert dear <= cheap + 1e-9


@some
@given(which=WHICH, gone=st.sampled_from(CHANNELS))
def test_removing_a_channel_never_raises_the_value(trained: Trained, which: int, gone: str) -> None:
    """Fewer possibilities are never worth more: all cascades of up to three sends are weighed."""
    context, rules = context_of(trained, which), trained.world.rules
    fewer = replace(context, options=tuple(option for option in context.options if option.channel != gone))

    assert best(fewer, rules, trained) <= (1 + 1e-9) * best(context, rules, trained)


@some
@given(
    which=WHICH,
    channel=st.sampled_from(["*", *PAID]),
    left=st.tuples(st.integers(0, 12 * RUBLE), st.integers(0, 12 * RUBLE)),
    shadow=st.tuples(st.floats(0, 20), st.floats(0, 20)),
)
def test_more_budget_never_lowers_the_value(
    trained: Trained, which: int, channel: str, left: tuple[int, int], shadow: tuple[float, float]
) -> None:
    """With more money left, at no higher a shadow price, the best plan is worth no less."""
    context, rules = context_of(trained, which), trained.world.rules

    def with_budget(money: int, price: float) -> Context:
        state = BudgetState(name="b", channel=channel, cap_micros=10**9, left_micros=money, shadow_price=price)
        return replace(context, budgets=(state,))

    little = best(with_budget(min(left), max(shadow)), rules, trained)
    much = best(with_budget(max(left), min(shadow)), rules, trained)

    assert little <= much + 1e-3


@some
@given(which=WHICH, policy=st.sampled_from(POLICIES), has_bundle=st.booleans(), step=st.integers(1, 3))
def test_without_margin_nothing_is_paid_for(
    trained: Trained, which: int, policy: PolicyName, step: int, *, has_bundle: bool
) -> None:
    """A marketing message whose order earns nothing is never sent, nor planned, through a channel that costs anything."""
    context, rules = context_of(trained, which), under(trained.world.rules, policy)
    context = replace(context, step=step, message=replace(context.message, order_margin_micros=0))

    found = evaluate(context, rules, trained.bundle if has_bundle else None)

    if isinstance(found, Evaluation):
        table, probabilities = found.distribution.table, found.distribution.probabilities
        assert not probabilities[table.price_micros > 0].any()
        assert all(planned.price_micros == 0 for planned in serve(found, rules).choice.steps)


@some
@given(which=WHICH, policy=st.sampled_from(POLICIES), request=st.text(max_size=8))
def test_the_same_request_is_decided_the_same(trained: Trained, which: int, policy: PolicyName, request: str) -> None:
    """From its log row a request is decided again bit for bit: the same draw of the same distribution, with the same plan."""
    context = replace(context_of(trained, which), seed=make_seed(request, 1))
    rules = under(trained.world.rules, policy)

    first = decide(context, rules, trained.bundle)
    again = decide(context_from_json(context_to_json(context)), rules, trained.bundle)

    assert again.choice == first.choice
    if first.distribution is not None and again.distribution is not None:
        assert again.distribution.table.actions == first.distribution.table.actions
        np.testing.assert_array_equal(again.distribution.probabilities, first.distribution.probabilities)
