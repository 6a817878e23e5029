"""Where the value of single sends is lost."""

from dataclasses import replace

import numpy as np
import pytest

from tests.training_world.beliefs import Trained
from training.world.oracle import best_plan, enumerate_plans, find_candidates
from training.world.stages import STAGES, Choices, find_choices, measure
from training.world.told import told_population


@pytest.fixture(scope="module")
def choices(trained: Trained) -> list[Choices]:
    world = trained.world
    told = replace(world.truth, people=told_population(world.people))
    found = [find_choices(world, trained.bundle, told, index) for index in range(0, len(world.messages), 10)]
    return [one for one in found if one is not None]


def test_the_best_send_is_worth_what_the_oracle_says(trained: Trained, choices: list[Choices]) -> None:
    """The product of the true stages is the exact value of a send: its best is that of all single plans."""
    world, best = trained.world, []
    for index in range(0, len(world.messages), 10):
        context = world.context(index)
        candidates = find_candidates(context, world.rules, is_whole_life=False)
        if len(candidates):
            plans = enumerate_plans(world.truth, world.truth.case(index), candidates, 1)
            best.append(best_plan(plans, candidates, context, world.rules).net())

    np.testing.assert_allclose([one.best() for one in choices], best, atol=1e-6)


def test_who_believes_the_truth_loses_nothing(choices: list[Choices]) -> None:
    """With all stages true everything is earned, with those of the bundle less, and true orders are worth more than believed ones."""
    shares = measure([replace(one, believed=one.true) for one in choices])
    believed = measure(choices)

    assert all(shares[f"{stage} true"] == pytest.approx(100) for stage in STAGES)
    assert 0 < believed["as believed"] < 100
    assert believed["order true"] > believed["as believed"]
