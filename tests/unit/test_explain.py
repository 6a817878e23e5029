"""Why this decision: sentences for people."""

from dataclasses import replace
from datetime import UTC, datetime

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.bundle import Bundle
from models.context import CascadeEnd, Context, Verdict
from models.decide import Choice, Decision, Distribution, decide, end_cascade
from models.explain import explain, free_only_micros
from models.rules import Holdout, Rules
from tests.unit.examples import CONTEXT, RUBLE, RULES, at, bundle_of, table_of, with_channels, with_message
from tests.unit.strategies import some_requests

AWAKE = replace(RULES, quiet_hours=None, timing=replace(RULES.timing, horizon_hours=1))
BUNDLE = bundle_of({"push": 0.02, "email": 0.03, "sms": 0.06})


def decided(
    seed: int = 1, *, context: Context = CONTEXT, rules: Rules = AWAKE, bundle: Bundle | None = BUNDLE
) -> Decision:
    return decide(replace(context, seed=seed), rules, bundle)


def test_send_says_channel_time_probability_and_policy() -> None:
    """The first sentence is of the served action: channel, time, probability and the policy that drew it."""
    context = with_channels("push", "email", "sms")
    decisions = (decided(seed, context=context) for seed in range(99))
    decision = next(d for d in decisions if d.choice.action and d.choice.action.channel == "sms")

    first = explain(decision, "RUB")[0]

    assert first == "sms at 2026-11-04 09:00 UTC was drawn with probability 0.97 by greedy_floor."


def test_every_channel_is_told_with_its_money_best_first() -> None:
    """After the served action each channel is told with what it adds, costs and is worth, best first."""
    sentences = explain(decided(context=with_channels("push", "email", "sms")), "RUB")

    assert [sentence.split(":")[0] for sentence in sentences[1:4]] == ["sms", "email", "push"]
    assert sentences[1] == (
        "sms: adds 50.00 RUB of expected margin, costs 5.30, harm 0.00, net 44.70, "
        "with what may follow 44.70; probability 0.97 over its slots."
    )


def test_cost_of_exploring_is_told() -> None:
    """What exploring loses against the best action stands after the channels; a decision that explores nothing has no such sentence."""
    context = with_channels("push", "email", "sms")
    greedy = replace(AWAKE, policy=replace(AWAKE.policy, name="greedy"))

    told, silent = (explain(decided(context=context, rules=rules), "RUB") for rules in (AWAKE, greedy))

    sms, email, push = 0.95 * 44.7, 20, 10
    cost = 0.01 * (sms + (sms - push) + (sms - email))
    assert told[4] == f"Exploring is expected to cost {cost:.4f} RUB here, against the action that is valued most."
    assert not any("Exploring" in sentence for sentence in silent)


def test_suppressed_channel_is_told_with_its_reason_and_time() -> None:
    """A channel that was not eligible is told with why, and until when."""
    night = datetime(2026, 11, 4, 20, tzinfo=UTC)
    rules = replace(RULES, timing=replace(RULES.timing, horizon_hours=1))
    context = with_channels("push", "in_app", context=at(night))

    sentences = explain(decided(context=context, rules=rules), "RUB")

    assert sentences[-1] == "push not used: quiet hours 21:30-09:00 in Europe/Moscow, until 2026-11-05 06:00 UTC."


def test_deferral_says_until_when() -> None:
    """A deferral says before when nothing may be sent."""
    night = datetime(2026, 11, 4, 20, tzinfo=UTC)
    rules = replace(RULES, timing=replace(RULES.timing, horizon_hours=1))

    first = explain(decided(context=with_channels("push", context=at(night)), rules=rules), "RUB")[0]

    assert first == "Deferred: nothing may be sent before 2026-11-05 06:00 UTC."


def test_holdout_is_told_alone() -> None:
    """Of a held-out customer nothing but the holdout is told."""
    rules = replace(AWAKE, holdout=Holdout(share=1.0, salt="s"))

    assert explain(decided(rules=rules), "RUB") == (
        "Not sent: the customer is in the holdout, which gets no marketing.",
    )


@pytest.mark.parametrize("end", list(CascadeEnd))
def test_every_end_of_a_cascade_has_its_sentence(end: CascadeEnd) -> None:
    """Whatever ended a cascade is told in one sentence."""
    (sentence,) = explain(end_cascade(CONTEXT, RULES, end), "RUB")

    assert sentence.startswith("Not sent: ")
    assert sentence.endswith(".")


def test_no_channel_is_told() -> None:
    """Where nothing was eligible the first sentence says so."""
    assert explain(decided(context=replace(CONTEXT, options=())), "RUB") == (
        "Not sent: no channel is eligible before the message expires.",
    )


def test_no_send_that_was_drawn_is_told() -> None:
    """Where no send was drawn, that is what is told."""
    context = with_message(with_channels("push"), margin=0)
    decision = next(d for d in (decided(seed, context=context) for seed in range(200)) if d.choice.slot is None)

    assert explain(decision, "RUB")[0].startswith("No send was drawn with probability ")


def test_degraded_decision_says_what_was_missing_and_no_invented_money() -> None:
    """Without a model the sentences say so, and put no money on channels that nothing was known of."""
    sentences = explain(decided(bundle=None), "RUB")

    assert "Degraded: no bundle is loaded; the rule cascade decided." in sentences
    assert not any("expected margin" in sentence for sentence in sentences)


def test_shadow_price_is_told_where_a_budget_binds() -> None:
    """Where money of the budget is worth more than its face, the cost says how much more."""
    table = replace(table_of([0, 1], ["sms"]), shadow_price=np.array([0.0, 0.5]))
    probabilities = table.net_micros.copy()
    decision = Decision(
        context=CONTEXT,
        choice=Choice(verdict=Verdict.SEND, action=table.actions[1]),
        distribution=Distribution(table=table, probabilities=probabilities),
    )

    assert "costs 0.00 x 1.50" in explain(decision, "RUB")[1]


def test_best_free_plan_is_worth_at_least_no_send() -> None:
    """The value without paid channels is that of the best free action, and never below no send."""
    decision = decided(context=with_channels("push", "email", "sms"))

    assert free_only_micros(decision, AWAKE) == pytest.approx(20 * RUBLE)
    table = table_of([0, -5, 9], ["push", "sms"])
    losing = replace(decision, distribution=Distribution(table=table, probabilities=np.full(3, 1 / 3)))
    assert free_only_micros(losing, AWAKE) == 0


def test_best_free_plan_counts_the_steps_that_may_follow() -> None:
    """Where the horizon leaves room, a free cascade is worth more than its first send."""
    long = replace(RULES, quiet_hours=None)

    decision = decided(context=with_channels("push", "email", "sms"), rules=long)

    assert free_only_micros(decision, long) > 20 * RUBLE


@given(request_and_rules=some_requests(), has_bundle=st.booleans(), seed=st.integers(0, 10**6))
def test_every_decision_is_explained(request_and_rules: tuple[Context, Rules], has_bundle: bool, seed: int) -> None:
    """Whatever was decided has sentences that end, and none of them holds a value that was not known."""
    context, rules = request_and_rules

    sentences = explain(decided(seed, context=context, rules=rules, bundle=BUNDLE if has_bundle else None), "RUB")

    assert sentences
    assert all(sentence.endswith(".") and sentence[0].strip() for sentence in sentences)
    assert not any(word in sentence for sentence in sentences for word in ("None", "nan", "inf "))
