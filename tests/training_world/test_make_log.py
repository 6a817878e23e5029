"""`training simulate`: the retailer's log in the store, and its truth beside it."""

import contextlib
import sqlite3
from collections import Counter
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from models.eligibility import find_eligible
from models.record import from_micros
from service import customers
from service.store.store import Store
from tests.training_world.worlds import Nosy, small_world
from training.dataset import read_dataset
from training.simulate import WINDOW
from training.world.clock import to_time
from training.world.draws import Draws
from training.world.make_log import LogPlan, Made, make_log, plan_world, summary
from training.world.policies import Uniform
from training.world.run import CONTACT_MEMORY, World
from training.world.truth_table import TRUTH_SCHEMA, TruthRow, truth_row

PLAN = LogPlan(customers=300, decisions=300, steps=3)
KEY = bytes(range(32))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("log")


@pytest.fixture(scope="module")
def made(folder: Path) -> Made:
    return write(PLAN, folder / "log.db", folder / "truth.parquet")


@pytest.fixture(scope="module")
def truth(made: Made, folder: Path) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = pq.read_table(folder / "truth.parquet").to_pylist()
    return rows


@pytest.fixture(scope="module")
def world() -> World:
    return plan_world(PLAN)


def write(plan: LogPlan, path: Path, truth_path: Path | None = None) -> Made:
    store = Store(f"sqlite:///{path}")
    try:
        return make_log(plan, store, KEY, truth_path, lambda _: None)
    finally:
        store.close()


def query(path: Path, statement: str) -> list[tuple[object, ...]]:
    with contextlib.closing(sqlite3.connect(path)) as connection:
        return connection.execute(statement).fetchall()


def test_decisions_without_a_choice_are_not_learned_from(made: Made, world: World, folder: Path) -> None:
    """Where no channel was eligible nothing was chosen, and training leaves the decision out, as it does with the service's own."""
    result = world.run(Uniform(world.rules, PLAN.steps))
    nothing = {
        (s.context.decision_id, s.context.step)
        for s in result.steps
        if not find_eligible(s.context, world.rules).eligible
    }

    left_out = query(folder / "log.db", "SELECT decision_id, step FROM decisions WHERE NOT trainable")

    not_sent = {(o.decision_id, o.step) for o in result.outcomes if o.type == "not_sent"}
    assert nothing
    assert set(left_out) == nothing | not_sent


def test_the_log_is_that_of_a_run(made: Made, world: World, folder: Path) -> None:
    """What is in the store is what a run of the logging policy gives: actions, propensities, prices and outcomes."""
    result = world.run(Uniform(world.rules, PLAN.steps))

    stored = query(folder / "log.db", "SELECT decision_id, step, channel, propensity, price_micros FROM decisions")
    told = query(folder / "log.db", "SELECT type, count(*) FROM outcomes WHERE decision_id != '' GROUP BY type")

    expected = {
        (s.context.decision_id, s.context.step, s.reply.action.channel, s.reply.propensity, s.price_micros)
        for s in result.steps
    }
    assert set(stored) == expected
    assert dict(told) == Counter(o.type for o in result.outcomes) == made.outcomes  # type: ignore[arg-type]  # rows of two
    assert made.written == made.decisions == len(result.steps)
    assert made.spend == pytest.approx(result.realised.spend)
    assert made.net == pytest.approx(result.expected.net)


def test_visits_are_in_the_log_as_the_contexts_have_them(made: Made, world: World, folder: Path) -> None:
    """Every visit up to the last message follows no decision, so that who serves on the log or imports it knows when customers are active."""
    last = to_time(int(world.messages.arrive[-1]))

    ((stored, latest),) = query(
        folder / "log.db", "SELECT count(*), max(occur_time) FROM outcomes WHERE type = 'visit' AND decision_id = ''"
    )

    assert stored == int((world.visits.hours < world.messages.arrive[-1]).sum()) > 0
    assert from_micros(int(str(latest))) < last


def test_orders_without_a_click_are_counted(made: Made, world: World) -> None:
    """The summary tells orders, those that no click came before, sends by channel and the cost."""
    text = summary(made)

    assert 0 < made.organic_orders <= made.outcomes["order"]
    assert f"orders     {made.outcomes['order']}, {made.organic_orders} of them" in text
    assert all(f"{channel} {count}" in text for channel, count in made.sends.items())
    assert f"{made.spend:,.2f} RUB" in text


def test_the_log_can_be_trained_on(made: Made, folder: Path) -> None:
    """Every decision whose window is closed is read as training data."""
    data = read_dataset(f"sqlite:///{folder / 'log.db'}", WINDOW)

    assert 0.3 * made.decisions < len(data) <= made.decisions
    assert set(data.channel) <= set(made.sends)


def test_another_plan_is_another_log() -> None:
    """Plans that differ in anything give ids of their own, so that logs do not mix."""
    others = [
        replace(PLAN, seed=1),
        replace(PLAN, customers=301),
        replace(PLAN, decisions=301),
        replace(PLAN, steps=2),
        replace(PLAN, scenario="push_outage"),
    ]

    assert len({plan.name for plan in (PLAN, *others)}) == 6
    assert replace(PLAN).name == PLAN.name


def test_every_decision_has_a_truth(made: Made, truth: list[dict[str, Any]], folder: Path) -> None:
    """One row for each decision of the log, under the documented columns."""
    stored = query(folder / "log.db", "SELECT decision_id, step FROM decisions")

    assert {(row["decision_id"], row["step"]) for row in truth} == set(stored)
    assert len(truth) == len(stored)
    schema = pq.read_schema(folder / "truth.parquet")
    assert schema.names == [f.name for f in fields(TruthRow)] == TRUTH_SCHEMA.names
    assert all(schema.field(name).metadata[b"meaning"] for name in schema.names)


def test_nothing_is_better_than_the_best(truth: list[dict[str, Any]]) -> None:
    """No logged action that the rules allow is worth more than the best single send, nor that more than the best cascade."""
    for row in truth:
        assert row["net"] <= row["single_net"] + 1e-9
        assert row["single_net"] <= row["cascade_net"] + 1e-9
        assert row["net"] == pytest.approx(row["caused_margin"] - row["spend"] - row["harm"])
        if row["channel"] == "none":
            assert row["net"] == row["seen"] == row["delivered"] == 0
        else:
            assert 1 >= row["delivered"] >= row["seen"] >= row["clicked"] >= 0
            assert row["seen"] >= row["clicked"] + row["unsubscribed"]
    assert any(row["step"] == 3 and row["cascade_net"] > 0 for row in truth)


def test_stage_chances_are_those_of_runs() -> None:
    """Over a run of later steps too, stages happen as often as their chances say: within 4.5 standard deviations."""
    world = small_world(count=1500, customers=800)
    result = world.run(Uniform(world.rules, steps=3))
    rows = [truth_row(world, step) for step in result.steps]
    sent = {(o.decision_id, o.step) for o in result.outcomes if o.type == "sent"}
    happened = Counter(str(o.type) for o in result.outcomes if (o.decision_id, o.step) in sent)
    cancelled = {
        (s.context.decision_id, s.context.step) for s in result.steps if s.reply.action.send_time is not None
    } - sent

    for stage, name in (("seen", "seen"), ("clicked", "clicked"), ("unsubscribe", "unsubscribed")):
        chances = np.array([getattr(row, name) for row in rows])
        spread = 4.5 * np.sqrt((chances * (1 - chances)).sum())
        assert abs(happened[stage] - chances.sum()) < spread, stage
    assert cancelled  # their chances count as well, since what cancelled them lay ahead


def test_orders_anyway_are_those_of_the_world() -> None:
    """Of messages without any send, as many are ordered as lie ahead at their arrival: within 4.5 standard deviations."""
    world = small_world(count=1500, customers=800)
    result = world.run(Uniform(world.rules))

    first = [truth_row(world, step).ordered_anyway for step in result.steps[:800]]

    chances = np.array(first)
    organic = sum(world.organic_hour(world.truth.case(index)) is not None for index in range(800))
    assert abs(organic - chances.sum()) < 4.5 * np.sqrt((chances * (1 - chances)).sum())


def test_streamed_messages_are_those_of_a_run() -> None:
    """A world played message by message tells of each what a run of it tells, and ends each once."""
    world = small_world(count=300)

    ended = list(world.play(Nosy()))
    result = world.run(Nosy())

    assert sorted(e.index for e in ended) == list(range(300))
    for one in ended:
        name = world.decision_id(one.index)
        assert one.steps == tuple(s for s in result.steps if s.context.decision_id == name)
        assert one.outcomes == tuple(o for o in result.outcomes if o.decision_id == name)


def test_draws_are_those_of_one_call() -> None:
    """Draws made in blocks, in any order, are those of one call over all messages, and so is what comes after."""
    rng = np.random.default_rng([3, 4])
    whole, after = rng.random((9000, 6, 5)), rng.random(10)

    draws = Draws([3, 4], 9000, (6, 5))

    for index in (8999, 0, 4096, 4095, 5000):
        assert np.array_equal(draws.of(index), whole[index])
    assert np.array_equal(draws.rest().random(10), after)


def test_the_world_remembers_contacts_as_long_as_the_service() -> None:
    """Contacts in the log's contexts reach back as far as those of the service."""
    assert customers._CONTACT_MEMORY == CONTACT_MEMORY
