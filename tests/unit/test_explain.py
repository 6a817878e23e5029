"""Why this decision: sentences for people."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.bundle import Bundle
from models.context import CascadeEnd, Context, Verdict
from models.decide import Choice, Decision, Distribution, Evaluation, best_cascades, decide, end_cascade, evaluate
from models.explain import explain
from models.rules import Holdout, Rules
from tests.unit.examples import CONTEXT, RUBLE, RULES, at, bundle_of, table_of, with_channels, with_message
from tests.unit.strategies import some_requests

AWAKE = replace(RULES, quiet_hours=None, timing=replace(RULES.timing, horizon_hours=1))
LONG = replace(RULES, quiet_hours=None, policy=replace(RULES.policy, name="greedy"))
BUNDLE = bundle_of({"push": 0.02, "email": 0.03, "sms": 0.06})


def decided(
    seed: int = 1, *, context: Context = CONTEXT, rules: Rules = AWAKE, bundle: Bundle | None = BUNDLE
) -> Decision:
    return decide(replace(context, seed=seed), rules, bundle)


def channel_of(decision: Decision) -> str:
    return "" if decision.choice.action is None else decision.choice.action.channel


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

    assert [sentence.split(":")[0] for sentence in sentences[2:5]] == ["sms", "email", "push"]
    assert sentences[2] == (
        "sms: adds 50.00 RUB of expected margin, costs 5.30, harm 0.00, net 44.70, "
        "with what may follow 44.70; probability 0.97 over its slots."
    )


def test_cost_of_exploring_is_told() -> None:
    """What exploring loses against the best action stands after the channels; a decision that explores nothing has no such sentence."""
    context = with_channels("push", "email", "sms")
    greedy = replace(AWAKE, policy=replace(AWAKE.policy, name="greedy"))

    told, silent = (explain(decided(context=context, rules=rules), "RUB") for rules in (AWAKE, greedy))

    sms, email, push = 44.7 - 0.05 * 50, 20, 10
    cost = 0.01 * (sms + (sms - push) + (sms - email))
    assert told[5] == f"Exploring is expected to cost {cost:.4f} RUB here, against the action that is valued most."
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


def test_free_channels_alone_are_told_beside_a_paid_send() -> None:
    """Where the served action has a price, the explanation says what the best cascade of free channels would earn."""
    context = with_channels("push", "email", "sms")
    paid, free = (
        next(d for d in (decided(seed, context=context) for seed in range(999)) if channel_of(d) == channel)
        for channel in ("sms", "email")
    )

    assert paid.choice.free_only_micros == pytest.approx(20 * RUBLE)
    assert "Free channels alone would earn 20.00 RUB." in explain(paid, "RUB")
    assert free.choice.free_only_micros == pytest.approx(20 * RUBLE)
    assert not any("Free channels" in sentence for sentence in explain(free, "RUB"))


def test_free_channels_alone_are_told_beside_a_planned_paid_step() -> None:
    """A free send with a paid step planned after it has the sentence too, and its plan is worth more than that."""
    decision = decided(context=with_channels("push", "sms"), rules=LONG)
    assert channel_of(decision) == "push"
    assert [step.channel for step in decision.choice.steps] == ["push", "sms"]

    sentences = explain(decision, "RUB")

    free_only = decision.choice.free_only_micros
    assert free_only < (decision.choice.steps[1].plan_micros or 0)
    assert f"Free channels alone would earn {free_only / 1e6:.2f} RUB." in sentences


def test_free_channels_alone_are_worth_at_least_no_send() -> None:
    """Where free channels lose money, or there are none, doing without paid ones is worth nothing, not less."""
    harmful = bundle_of({"push": 0.009, "sms": 0.06})

    for channels in (("push", "sms"), ("sms",)):
        assert decided(context=with_channels(*channels), bundle=harmful).choice.free_only_micros == 0


def test_free_channels_alone_are_a_cascade() -> None:
    """Where the horizon leaves room, free channels are counted with the steps that may follow."""
    decision = decided(context=with_channels("push", "email", "sms"), rules=LONG)

    assert decision.choice.free_only_micros > 20 * RUBLE


def test_free_only_value_is_that_of_a_caller_without_paid_channels() -> None:
    """Doing without paid channels is worth what the best plan is worth to a caller who has none."""
    with_sms = decided(context=with_channels("push", "email", "sms"), rules=LONG)
    without = decided(context=with_channels("push", "email"), rules=LONG)

    assert without.distribution is not None
    assert with_sms.choice.free_only_micros == pytest.approx(without.distribution.table.plan_micros.max())
    assert without.choice.free_only_micros == pytest.approx(without.distribution.table.plan_micros.max())


def test_some_sends_alone_are_worth_no_more_than_with_the_others() -> None:
    """Whichever sends are left, the free ones or any, none is worth more than with all; messages that live for weeks are no exception."""
    message = replace(CONTEXT.message, expire_time=CONTEXT.message.earliest_time + timedelta(days=20))
    rules = replace(LONG, timing=replace(LONG.timing, horizon_hours=9 * 24))
    context = replace(with_channels("push", "email", "sms"), message=message)
    found = evaluate(context, rules, BUNDLE)
    assert isinstance(found, Evaluation)
    table = found.planned
    values = best_cascades(context, rules, table).value
    random = np.random.default_rng(0)

    for _ in range(50):
        kept = table.listed.is_send & (random.random(len(table.actions)) < 0.3)
        assert np.all(best_cascades(context, rules, table, kept).value <= values[kept[table.listed.is_send]])


def test_planned_steps_are_told_with_time_price_and_worth() -> None:
    """Each planned step is told with its time, its price, and what the plan earns with it and without."""
    decision = decided(context=with_channels("push", "sms"), rules=LONG)
    first, second = decision.choice.steps
    assert first.plan_micros is not None
    assert second.plan_micros is not None

    sentences = explain(decision, "RUB")

    assert (
        f"If ignored, sms from {second.not_before:%Y-%m-%d %H:%M} UTC for 5.30 RUB: the plan is expected to earn "
        f"{second.plan_micros / 1e6:.2f} RUB with this step, {first.plan_micros / 1e6:.2f} without."
    ) in sentences
    assert second.plan_micros > first.plan_micros


def test_the_plan_up_to_its_last_step_is_what_the_policy_chose_by() -> None:
    """The worth told of the last planned step is the plan value of the served action."""
    decision = decided(context=with_channels("push", "email", "sms"), rules=LONG)
    assert decision.distribution is not None
    assert decision.choice.action is not None
    table = decision.distribution.table

    last = decision.choice.steps[-1].plan_micros

    assert last == pytest.approx(table.plan_micros[table.actions.index(decision.choice.action)])


def test_steps_of_the_rule_cascade_have_no_invented_worth() -> None:
    """Without a model planned steps are told with time and price alone."""
    sentences = explain(decided(context=with_channels("push", "sms"), rules=LONG, bundle=None), "RUB")

    assert "If ignored, sms from 2026-11-04 12:00 UTC for 5.30 RUB." in sentences
    assert not any("Free channels" in sentence or "Waiting" in sentence for sentence in sentences)


@pytest.mark.parametrize(
    ("served", "plans", "said"),
    [
        (2, (4.0, 7.0), "Waiting until then is worth 3.00 RUB more than push at its first slot, 2026-11-04 09:00 UTC."),
        (2, (7.0, 4.0), "Waiting until then is worth 3.00 RUB less than push at its first slot, 2026-11-04 09:00 UTC."),
        (1, (7.0, 4.0), "Waiting for its best later slot, 2026-11-04 10:00 UTC, would be worth 3.00 RUB less."),
        (1, (4.0, 7.0), "Waiting for its best later slot, 2026-11-04 10:00 UTC, would be worth 3.00 RUB more."),
    ],
)
def test_worth_of_waiting_is_told(served: int, plans: tuple[float, float], said: str) -> None:
    """The served slot is held against the channel's first one, and the first one against the best of the later."""
    table = table_of([0, *(plan * RUBLE for plan in plans)])
    decision = Decision(
        context=CONTEXT,
        choice=Choice(verdict=Verdict.SEND, action=table.actions[served]),
        distribution=Distribution(table=table, probabilities=np.full(3, 1 / 3)),
    )

    assert explain(decision, "RUB")[1] == said


def test_a_channel_with_one_slot_has_nothing_to_wait_for() -> None:
    """Where there is no other slot, nothing is said of waiting."""
    sentences = explain(decided(context=with_channels("push", "email", "sms")), "RUB")

    assert not any("Waiting" in sentence for sentence in sentences)


@given(request_and_rules=some_requests(), has_bundle=st.booleans(), seed=st.integers(0, 10**6))
def test_every_decision_is_explained(request_and_rules: tuple[Context, Rules], has_bundle: bool, seed: int) -> None:
    """Whatever was decided has sentences that end, and none of them holds a value that was not known."""
    context, rules = request_and_rules

    sentences = explain(decided(seed, context=context, rules=rules, bundle=BUNDLE if has_bundle else None), "RUB")

    assert sentences
    assert all(sentence.endswith(".") and sentence[0].strip() for sentence in sentences)
    assert not any(word in sentence for sentence in sentences for word in ("None", "nan", "inf "))
