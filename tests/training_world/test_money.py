"""The money table on a small world."""

import pytest

from training.world.money import Row, markdown, money_table
from training.world.scenarios import SCENARIOS, ScenarioName


@pytest.fixture(scope="module")
def rows() -> list[Row]:
    return money_table(0, log_decisions=1000, online_decisions=250, customers=500)


def test_no_policy_beats_the_cascade_oracle(rows: list[Row]) -> None:
    """Every policy's expected net value is below that of the best cascade, which is above the best single send."""
    net = {row.policy: row.net for row in rows}

    assert rows[-1].share == 1
    assert max(net.values()) == rows[-1].net
    assert rows[-1].net > net["best single send (oracle)"] > 0
    singles = [
        row for row in rows if row.policy.endswith("to all") or "engaged" in row.policy or "1 step" in row.policy
    ]
    assert len(singles) == 4
    assert all(row.net < net["best single send (oracle)"] for row in singles)
    assert 0 < net["best cascade of 3 by told traits alone"] < rows[-1].net


def test_the_table_has_every_baseline(rows: list[Row]) -> None:
    """All of the policies asked for are in the table, and in its Markdown with spread over two seeds."""
    text = markdown([rows, rows])

    for name in ("up to 3 SMS each", "SMS to all", "push -> email -> sms", "in_app -> push -> email", "uniform random"):
        assert name in text
    for name in ("most engaged hour", "next daytime", "service decision core", "best cascade of 3 (oracle)"):
        assert name in text
    assert "±" in text


def test_free_policies_spend_nothing_and_sms_the_most(rows: list[Row]) -> None:
    """The free cascade pays nothing; three SMS each pay more than anything else."""
    spend = {row.policy: row.spend for row in rows}

    assert spend["in_app -> push -> email by hand"] == 0
    assert max(spend, key=spend.__getitem__) == "up to 3 SMS each"


@pytest.mark.parametrize("scenario", SCENARIOS[1:])
def test_every_scenario_has_a_table(scenario: ScenarioName) -> None:
    """Each scenario runs to the end, and its oracle is the best; a cold start has no log and no bundle."""
    found = money_table(1, log_decisions=800, online_decisions=60, scenario=scenario, customers=300, with_told=False)

    assert max(row.net for row in found) == found[-1].net
    names = [row.policy for row in found]
    assert ("service decision core, no bundle" in names) == (scenario == "cold_start")
    assert any("engaged" in name for name in names) == (scenario != "cold_start")
