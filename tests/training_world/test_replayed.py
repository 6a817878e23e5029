"""A replay of a small log of the retailer, held against what the same policies do in the world itself."""

import pytest

from training.world.make_log import LogPlan
from training.world.replayed import Compared, compare, table


@pytest.fixture(scope="module")
def compared() -> dict[str, Compared]:
    """The log's own policy and the rule cascade, replayed and in truth."""
    found = compare(LogPlan(customers=700, decisions=2500, seed=2), ("logged", "rule_cascade"))
    return {one.policy: one for one in found}


def test_what_was_logged_cost_what_it_cost(compared: dict[str, Compared]) -> None:
    """The logging policy's cost is counted as it was, but for messages whose window is open."""
    logged = compared["logged"]

    assert logged.cost.value == pytest.approx(logged.true_cost, rel=0.05)
    assert logged.cost.low < logged.true_cost < logged.cost.high


def test_a_replay_spends_what_the_policy_truly_spends(compared: dict[str, Compared]) -> None:
    """Steps that were never logged are paid for about as often as in the world: orders, clicks and waits stop cascades alike."""
    replayed = compared["rule_cascade"]

    assert replayed.cost.value == pytest.approx(replayed.true_cost, rel=0.25)


def test_the_table_has_both(compared: dict[str, Compared]) -> None:
    """Each policy has a line with what was replayed, with its interval, and what is true."""
    lines = table(list(compared.values())).splitlines()

    assert [line.split(" | ")[0] for line in lines[2:]] == ["| logged", "| rule_cascade"]
    assert all(line.count("|") == 6 and " to " in line for line in lines[2:])
