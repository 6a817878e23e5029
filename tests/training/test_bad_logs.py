"""Bad logs: each is refused with what it lacks, or trained on as far as it goes, with a note of what it cannot teach."""

import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest

from models.bundle import Bundle, load_bundle
from models.context import FeatureValue, Verdict
from models.decide import decide
from models.errors import LogUnusable
from models.features import NO_SEND, Action
from tests.training.examples import (
    CHANNELS,
    DAY,
    HOUR,
    NOW,
    RULES,
    UNIT,
    WINDOW,
    closing,
    context_at,
    logged,
    order,
    run_sql,
    write,
    write_fitted,
)
from training.__main__ import main
from training.dataset import check_learnable, read_dataset
from training.doubts import find_doubts
from training.evaluate import evaluate_policies
from training.fit import Fitted, fit
from training.grow import Hyperparameters
from training.journal import LoggedDecision, LoggedOutcome
from training.targets import make_target

HYPER = Hyperparameters(trees=20)
BASE, ADDED = 0.2, 0.5
"""P(order) of everybody without a send, and what a send adds for the young alone."""


def shop(
    count: int = 800,
    *,
    channels: Sequence[str] = (NO_SEND, "push", "sms"),
    propensity: float | None = None,
    is_known: Callable[[int], bool] = lambda number: True,
    is_ordering: bool = True,
) -> list[LoggedDecision]:
    """A log of decisions an hour apart, each for a customer of its own; the channel is drawn evenly."""
    rng = np.random.default_rng(11)
    found = []
    for number in range(count):
        moment = NOW + number * HOUR
        channel, young = channels[int(rng.integers(len(channels)))], bool(rng.integers(2))
        chance = BASE + ADDED * (young and channel != NO_SEND)
        outcomes = [order(moment + HOUR)] if is_ordering and rng.random() < chance else []
        features: dict[str, FeatureValue] = {"young": float(young), "noise": float(rng.normal())}
        if not is_known(number):
            del features["young"]
        found.append(
            logged(
                f"r{number}",
                moment=moment,
                channel=channel,
                customer=f"c{number}",
                propensity=propensity or 1 / len(channels),
                features=features,
                outcomes=outcomes,
            )
        )
    return [*found, closing(NOW + 60 * DAY)]


def trained(url: str, decisions: Sequence[LoggedDecision]) -> tuple[Fitted, list[str]]:
    """What was fitted on a log, and what was said of it."""
    write(url, decisions)
    data = read_dataset(url, WINDOW)
    said = find_doubts(data)
    return fit(data, HYPER, "test", said.append), said


def bundle_of(folder: Path, fitted: Fitted) -> Bundle:
    write_fitted(folder / "bundle", "test", fitted)
    return load_bundle(folder / "bundle")


def p_order(bundle: Bundle, channel: str, **features: FeatureValue) -> float:
    """The bundle's P(order) of a send now, or of no send."""
    action = Action(channel=channel, send_time=None if channel == NO_SEND else NOW)
    estimate = bundle.estimate(context_at(NOW, "asked", features=features), [Action(channel=NO_SEND), action], {})
    return float(estimate.p_response[1])


REFUSED: dict[str, tuple[Callable[[], list[LoggedDecision]], str]] = {
    "too small": (lambda: shop(150), "150 decisions are too few to learn from; at least 200 are needed"),
    "all labels zero": (
        lambda: shop(is_ordering=False),
        "0 of 800 decisions were followed by an order; at least 20 of each kind are needed; give orders as outcomes",
    ),
    "only no sends": (lambda: shop(channels=[NO_SEND]), "no decision of the log is a send; there is nothing to learn"),
    "no no sends": (
        lambda: shop(channels=["push", "sms"]),
        "no decision of the log is a no send; without them the effect of a send cannot be told",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_log_is_refused(case: str, log_url: str) -> None:
    """A log that cannot teach what a send adds is refused with what it lacks."""
    make, said = REFUSED[case]
    write(log_url, make())

    with pytest.raises(LogUnusable, match=said):
        fit(read_dataset(log_url, WINDOW), HYPER, "test", lambda _: None)


def test_sound_log_gives_no_note(log_url: str) -> None:
    """Nothing is said of a log as it should be."""
    write(log_url, shop())

    assert find_doubts(read_dataset(log_url, WINDOW)) == []


def test_log_without_exploration_is_said_to_be_one(log_url: str, tmp_path: Path) -> None:
    """Where nothing was left to chance, it is said what cannot be told; a bundle comes out, since a holdout may have been drawn."""
    fitted, said = trained(log_url, shop(propensity=1.0))

    assert any("every propensity is 1: nothing was left to chance" in line for line in said)
    bundle = bundle_of(tmp_path, fitted)
    assert 0 <= p_order(bundle, "push", young=1.0) <= 1


def test_log_that_is_mostly_certain_is_said_to_be_one(log_url: str) -> None:
    """Where little was left to chance, it is said how much."""
    write(log_url, [replace(d, propensity=1.0) if i % 4 else d for i, d in enumerate(shop())])

    assert find_doubts(read_dataset(log_url, WINDOW)) == [
        "75% of the decisions have propensity 1; what a send adds is learned from the others alone"
    ]


def test_log_of_one_channel_teaches_that_channel(log_url: str, tmp_path: Path) -> None:
    """With push and no send alone, what push adds for the young is found."""
    fitted, _ = trained(log_url, shop(channels=[NO_SEND, "push"]))

    bundle = bundle_of(tmp_path, fitted)

    gained = {
        young: p_order(bundle, "push", young=young) - p_order(bundle, NO_SEND, young=young) for young in (0.0, 1.0)
    }
    assert gained[1.0] > gained[0.0] + 0.1


def test_channels_that_the_log_never_saw_can_be_decided_on(log_url: str, tmp_path: Path) -> None:
    """Of a channel that is not in the log the bundle believes something that is a probability, and the service decides with it."""
    fitted, _ = trained(log_url, shop(channels=[NO_SEND, "push"]))

    bundle = bundle_of(tmp_path, fitted)

    assert 0 <= p_order(bundle, "sms", young=1.0) <= 1
    decision = decide(context_at(NOW, "asked", features={"young": 1.0}), RULES, bundle)
    assert decision.choice.verdict in (Verdict.SEND, Verdict.DO_NOT_SEND)
    assert decision.distribution is not None
    assert {a.channel for a in decision.distribution.table.actions} <= {NO_SEND, *CHANNELS}
    assert decision.distribution.probabilities.sum() == pytest.approx(1)


def test_rare_channels_are_named(log_url: str) -> None:
    """A channel that was hardly sent is named with how often it was."""
    decisions = shop(channels=[NO_SEND, "push"])
    rare = [logged(f"s{n}", moment=NOW + n * HOUR, channel="sms", customer=f"s{n}") for n in range(7)]
    write(log_url, [*decisions, *rare])

    assert find_doubts(read_dataset(log_url, WINDOW)) == [
        "sms was sent 7 times; with less than 100 it is hardly told from the other channels"
    ]


BROKEN = {
    "features that are no JSON": ("features = '{broken'", "features that cannot be read: Invalid JSON"),
    "features of a kind that there is not": ("""features = '{"x.a": [1]}'""", "features that cannot be read: x.a"),
    "a context without its customer": ("context = '{}'", "context that cannot be read: it lacks customer"),
    "a context that is no JSON": ("context = 'gone'", "context that cannot be read"),
}


@pytest.mark.parametrize("command", ["train", "dataset", "evaluate"])
@pytest.mark.parametrize("case", BROKEN)
def test_broken_rows_are_told_by_decision_and_column(
    case: str, command: str, log_url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A decision whose columns cannot be read is refused by its id and column, with what to do."""
    change, said = BROKEN[case]
    write(log_url, shop(300))
    run_sql(log_url, f"UPDATE decisions SET {change} WHERE request_id = 'r7'")

    more = ["--to", str(tmp_path / "out")] if command == "dataset" else ["--mlflow", "sqlite:///none.db"]
    assert main([command, "--log", log_url, *more]) == 2

    told = capsys.readouterr().err
    ((decision_id,),) = run_sql(log_url, "SELECT decision_id FROM decisions WHERE request_id = 'r7'")
    assert f"decision {decision_id} step 1 has a {said}" in told
    assert "of decisions, or take that decision out of the log" in told


def test_text_for_a_number_of_the_list_is_refused(log_url: str) -> None:
    """A feature of the list that became text in the log is refused by its name, and can be left out."""
    write(log_url, shop(300))
    changed = """features = json_set(features, '$.local_hour', 'noon')"""
    run_sql(log_url, f"UPDATE decisions SET {changed} WHERE rowid % 2 = 0")

    with pytest.raises(
        LogUnusable, match="feature local_hour is a number by the feature list, but text such as 'noon'"
    ):
        read_dataset(log_url, WINDOW)

    left = read_dataset(log_url, WINDOW, exclude=["local_hour"])
    assert "local_hour" not in [column.name for column in left.columns]


def test_feature_that_changed_its_type_is_named(log_url: str) -> None:
    """A callers' feature that is a number in some decisions and text in others is said to be taken as text."""
    decisions = [
        replace(one, context=replace(one.context, features={"size": float(n % 3) if n % 2 else "large"}))
        for n, one in enumerate(shop(600))
    ]
    write(log_url, decisions)

    assert find_doubts(read_dataset(log_url, WINDOW)) == [
        "x.size holds numbers such as 0 and texts such as large; all of it is taken as text, so that numbers have no order: send one type"
    ]


def test_channels_that_the_rules_do_not_have_are_named(log_url: str, tmp_path: Path) -> None:
    """A log with a channel that no rule names is judged, and it is said that no policy sends through that."""
    write(log_url, shop(1200, channels=(NO_SEND, "push", "pigeon")))
    target = make_target("rule_cascade", RULES, None)

    (found,) = [n for n in evaluate_policies(log_url, [target], RULES, WINDOW, folds=2).notes if "pigeon" in n]

    assert re.match(r"pigeon was logged \d+ times, but the rules .* have no such channel", found)
    assert found.endswith("name the rules of the log with --rules")


def test_feature_missing_for_half_teaches_from_the_other_half(log_url: str, tmp_path: Path) -> None:
    """Where a feature is known its effect is found; those without it get an answer between, and that it is missing is said."""
    fitted, said = trained(log_url, shop(1600, is_known=lambda number: number % 2 == 0))

    assert any("x.young is missing in 50% of the decisions" in line for line in said)
    bundle = bundle_of(tmp_path, fitted)
    old, unknown, young = (p_order(bundle, "push", noise=0.0, **f) for f in ({"young": 0.0}, {}, {"young": 1.0}))
    assert old < unknown < young


def test_log_without_engagement_trains_without_that_stage(log_url: str, tmp_path: Path) -> None:
    """A log in which no message was seen or clicked is said to lack a stage, and still gives a bundle."""
    fitted, said = trained(log_url, shop())

    assert "no funnel: 0 sends were seen or clicked, 200 are needed" in said
    assert 0 <= p_order(bundle_of(tmp_path, fitted), "push", young=1.0) <= 1


def test_log_too_small_for_a_stage_says_which_and_what_stands_for_it(log_url: str, tmp_path: Path) -> None:
    """Messages that were seen, hardly clicked and never refused: the stages that the log cannot teach are named with what stands for them, in what is
    printed and in the bundle's notes, and the bundle decides."""
    seen = [
        replace(d, outcomes=(*d.outcomes, LoggedOutcome(type="seen", occur_time=d.action.send_time + HOUR)))
        if d.action.send_time is not None and number % 2
        else d
        for number, d in enumerate(shop(1600))
    ]

    fitted, said = trained(log_url, seen)

    assert any(line.startswith("stage click: 0 clicks are too few, 10 are needed; being noticed") for line in said)
    assert any(line.startswith("stage unsubscribe: 0 events are too few") for line in said)
    if fitted.funnel is not None:
        assert set(fitted.funnel.notes) >= {"click", "unsubscribe"}
    decision = decide(context_at(NOW, "asked", features={"young": 1.0}), RULES, bundle_of(tmp_path, fitted))
    assert decision.choice.verdict in (Verdict.SEND, Verdict.DO_NOT_SEND)


SECOND = timedelta(seconds=1)


def happening(kind: str, after: timedelta, *, machine_generated: bool = False) -> LoggedOutcome:
    return LoggedOutcome(type=kind, occur_time=NOW + after, machine_generated=machine_generated)


CONTRADICTIONS: dict[str, tuple[list[LoggedOutcome], dict[str, float]]] = {
    "order before the send": ([happening("order", HOUR)], {"response": 1, "value": 900}),
    "order before the decision": ([happening("order", -SECOND)], {"response": 0, "value": 0}),
    "seen and clicked before the decision": (
        [happening("seen", -SECOND), happening("clicked", -SECOND)],
        {"seen": 0, "clicked": 0},
    ),
    "seen before the decision and again after it": (
        [happening("seen", -SECOND), happening("seen", 4 * HOUR)],
        {"seen": 1, "seen_hours": 1},
    ),
    "unsubscribed before the decision": ([happening("unsubscribe", -SECOND)], {"seen": 0, "unsubscribed": 0}),
    "delivered and undelivered": (
        [happening("delivered", HOUR), happening("undelivered", 2 * HOUR)],
        {"seen": 0, "response": 0},
    ),
    "undelivered and seen": ([happening("undelivered", HOUR), happening("seen", 2 * HOUR)], {"seen": 1}),
    "clicked and never seen": ([happening("clicked", HOUR)], {"seen": 1, "clicked": 1}),
    "seen after unsubscribing": (
        [happening("unsubscribe", HOUR), happening("seen", 2 * HOUR)],
        {"seen": 1, "unsubscribed": 1},
    ),
    "ordered after unsubscribing": (
        [happening("unsubscribe", HOUR), happening("order", 2 * HOUR)],
        {"response": 1, "unsubscribed": 1},
    ),
    "seen by a machine alone": ([happening("seen", HOUR, machine_generated=True)], {"seen": 0}),
}


@pytest.mark.parametrize("case", CONTRADICTIONS)
def test_contradictions_are_read_as_documented(case: str, log_url: str) -> None:
    """What contradicts itself is read as docs/importing.md says."""
    outcomes, expected = CONTRADICTIONS[case]
    decision = logged("a", outcomes=outcomes)
    sent_later = replace(decision, action=replace(decision.action, send_time=NOW + 3 * HOUR))
    write(log_url, [sent_later, closing()])

    data = read_dataset(log_url, WINDOW)

    assert {name: float(getattr(data, name)[0]) for name in expected} == expected


def test_not_sent_and_sent_is_not_learned_from(log_url: str) -> None:
    """Whatever else is said of it, what was not sent leaves training, and its customer's order counts for the decision before."""
    outcomes = [happening("not_sent", 2 * HOUR), happening("seen", 3 * HOUR), happening("order", 4 * HOUR)]
    write(log_url, [logged("before"), logged("a", moment=NOW + HOUR, outcomes=outcomes), closing()])

    data = read_dataset(log_url, WINDOW)

    assert data.response.tolist() == [1.0]
    assert data.value.tolist() == [900 * UNIT / 1e6]


def test_engagement_with_no_send_is_no_sends(log_url: str) -> None:
    """Unsubscribing from what was not sent is in no channel's rate."""
    decisions = shop()
    gone = [
        replace(d, outcomes=(*d.outcomes, LoggedOutcome(type="unsubscribe", occur_time=d.context.decide_time + HOUR)))
        if d.action.channel == NO_SEND
        else d
        for d in decisions
    ]
    fitted, _ = trained(log_url, gone)

    assert fitted.description.unsubscribe_rates == {}


def test_what_can_be_learned_from_is_checked_first(log_url: str) -> None:
    """A sound log passes the check that refuses the others."""
    write(log_url, shop())

    check_learnable(read_dataset(log_url, WINDOW))
