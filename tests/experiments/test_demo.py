"""The demonstration in small: simulated retailer, real server, two variants over gRPC, report, truth."""

from pathlib import Path

import pytest

from models.rules import read_rules
from training.__main__ import main
from training.experiments.analysis import analyse
from training.experiments.demo import CONTROL, TREATED, Demo, against_truth, run_demo
from training.experiments.people import read_people


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Demo:
    """A demonstration of some hundred messages."""
    folder = tmp_path_factory.mktemp("demo") / "here"
    return run_demo(folder, log_decisions=1000, decisions=500, customers=300, window_days=1, seed=1)


def test_the_report_counts_whom_the_simulator_saw(demo: Demo) -> None:
    """Customers by variant are those that the answers named; each variant decided as its rules say, and spend is near the simulator's own."""
    rules = read_rules(demo.rules_file)
    people = read_people(demo.database_url, rules.experiments[0], rules)
    analysis = analyse(people)

    assert analysis.counted == demo.truth.customers
    assert set(people.policies[CONTROL]) <= {"rule_cascade", "none_eligible"}
    assert "rule_cascade" not in people.policies[TREATED]
    assert set(people.policies[TREATED]) >= {"inverse_gap"}
    spend = analysis.treatments[0].comparisons["spend"]
    assert spend.always_low <= demo.truth.difference("spend") <= spend.always_high
    assert len(against_truth(analysis, demo.truth)) == 3


def test_the_learned_policy_spends_less_in_truth(demo: Demo) -> None:
    """By the simulator's own expectation the cascade by hand spends more for each customer."""
    assert demo.truth.difference("spend") < 0


def test_a_folder_that_is_there_is_left_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The command refuses to write over what may be of use, and says the way out."""
    assert main(["demo", "--folder", str(tmp_path)]) == 2
    assert "name another with --folder" in capsys.readouterr().err
