"""The money table on a small world."""

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from training.world.__main__ import main
from training.world.bench import Run, Setting, run_bench
from training.world.contenders import CONTENDERS, HAND_WRITTEN, MABWISER, NEEDS_LOG, ORACLE, VOWPAL
from training.world.report import (
    RECOVERY_WINDOW,
    BySeed,
    NoPlace,
    by_seed,
    goals_of,
    measure_goals,
    recovery,
    to_json,
    to_markdown,
    write_between,
)
from training.world.scenarios import SCENARIOS, ScenarioName

SMALL = Setting(seeds=(0,), rows=tuple(CONTENDERS), log_decisions=1000, online_decisions=250, customers=500)


@pytest.fixture(scope="module")
def runs() -> BySeed:
    """Runs on one small world, counted for two."""
    found = run_bench(SMALL, 1, lambda _: None)
    return by_seed([*found, *(replace(run, seed=1) for run in found)])


def test_no_policy_beats_the_cascade_oracle(runs: BySeed) -> None:
    """Every policy's expected net value is below that of the best cascade, which is above the best single send."""
    for mine in runs.values():
        net = {name: run.net for name, run in mine.items()}
        assert max(net, key=net.__getitem__) == ORACLE
        assert net[ORACLE] > net["oracle-1"] > 0
        singles = ("sms-1", "engaged-hour", "engaged-daytime", "service-1", *VOWPAL, *MABWISER)
        assert all(net[name] < net["oracle-1"] for name in singles)
        assert 0 < net["told"] < net[ORACLE]


def test_the_table_has_every_policy_and_goal(runs: BySeed) -> None:
    """All policies are in the table with their spread over seeds, and below it every goal of the scenario with what was measured."""
    text = to_markdown(runs, "stationary")

    for mine in runs.values():
        assert list(mine) == list(CONTENDERS)
        assert all(f"| {run.policy} |" in text for run in mine.values())
    assert re.search(r"\| best cascade of 3 \(oracle\) \| 100\.0 ± 0\.0 \|", text)
    assert len(measure_goals(runs, "stationary")) == len(goals_of("stationary"))
    assert all(f"| {goal.text} | " in text for goal in goals_of("stationary"))


def test_the_ratio_is_to_the_best_of_a_group(runs: BySeed) -> None:
    """What the service is measured against is the best of the hand-written orders on each seed, whichever it is there."""
    goal = next(goal for goal in goals_of("stationary") if "hand-written" in goal.text)

    for mine in runs.values():
        best = max(mine[name].net for name in HAND_WRITTEN)
        assert goal.measure(mine) == pytest.approx(mine["service"].net / best if best > 0 else np.inf)


def test_free_policies_spend_nothing_and_sms_the_most(runs: BySeed) -> None:
    """The free cascade pays nothing; three SMS each pay more than anything else."""
    for mine in runs.values():
        spend = {name: run.spend for name, run in mine.items()}
        assert spend["free"] == 0
        assert max(spend, key=spend.__getitem__) == "sms-3"


def test_the_net_value_is_the_sum_over_messages(runs: BySeed) -> None:
    """What each message brought sums to the net value of the run."""
    for run in (run for mine in runs.values() for run in mine.values()):
        assert run.by_message.sum() == pytest.approx(run.net)


@pytest.mark.parametrize("scenario", SCENARIOS[1:])
def test_every_scenario_has_a_table(scenario: ScenarioName) -> None:
    """Each scenario runs to the end with its goals, and its oracle is the best; without a log, nobody learns from one."""
    rows = ("engaged-hour", "vw-squarecb", "vw-bag-clicks", "lin-ucb", "service", "no-correction")
    setting = Setting(scenario=scenario, seeds=(1,), rows=rows, log_decisions=800, online_decisions=330, customers=300)

    found = by_seed(run_bench(setting, 1, lambda _: None))

    mine = found[1]
    assert max(mine, key=lambda name: mine[name].net) == ORACLE
    assert set(mine) == {*rows, ORACLE} - (NEEDS_LOG if scenario == "cold_start" else set())
    assert ("starter bundle" in mine["service"].policy) == (scenario == "cold_start")
    assert len(measure_goals(found, scenario)) == len(goals_of(scenario))
    assert to_markdown(found, scenario).count("decisions to recover") == (scenario != "cold_start")


def test_a_goal_but_for_noise_is_reached_within_two_standard_errors() -> None:
    """Missing such a goal by less than two standard errors of the mean over seeds is reaching it, by more is not; others must be reached on average."""
    goal = next(goal for goal in goals_of("push_outage") if "but for noise" in goal.text)
    strict = replace(goal, is_within_noise=False)
    measured = np.array([0.97, 0.99, 1.01])

    assert goal.is_reached(measured)
    assert not goal.is_reached(measured - 0.02)
    assert not strict.is_reached(measured)
    assert strict.is_reached(measured + 0.01)


def test_processes_change_nothing() -> None:
    """Two processes find what one finds, in the same order."""
    setting = Setting(seeds=(0, 1), rows=("free",), log_decisions=100, online_decisions=60, customers=200)
    told: list[str] = []

    here = run_bench(setting, 1, lambda _: None)
    spread = run_bench(setting, 2, told.append)

    assert [(run.seed, run.name, run.net) for run in spread] == [(run.seed, run.name, run.net) for run in here]
    assert sum("of 4: seed" in text for text in told) == 4


def test_recovery_is_when_the_window_reaches_the_new_steady_state() -> None:
    """A policy that earns nothing for 100 decisions after the change is back once 95 % of a window lie after them."""
    best = np.ones(3000)
    own = np.where((np.arange(3000) >= 1000) & (np.arange(3000) < 1100), 0.0, 0.8)

    assert recovery(own, best, 1000) == 100 + 0.95 * RECOVERY_WINDOW
    assert recovery(0.8 * best, best, 1000) == RECOVERY_WINDOW
    assert recovery(own, best, 1000, window=100) == 195


def test_recovery_is_none_where_there_is_no_steady_state() -> None:
    """A policy that loses money in the last third, or a change too near to the end, has no recovery."""
    best = np.ones(3000)

    assert recovery(-best, best, 1000) is None
    assert recovery(best, best, 2900) is None


def test_recovery_does_not_see_which_messages_come() -> None:
    """Where all messages are worth half as much for a while, and the policy earns its usual share of them, nothing was lost."""
    best = np.where((np.arange(3000) >= 1000) & (np.arange(3000) < 1500), 0.5, 1.0)

    assert recovery(0.6 * best, best, 1000) == RECOVERY_WINDOW


def test_a_table_is_put_between_its_comments(tmp_path: Path) -> None:
    """Only what stands between the scenario's comments changes, as often as it is written."""
    document = tmp_path / "money.md"
    document.write_text(
        "before\n<!-- bench-money cold_start: begin -->\nold\n<!-- bench-money cold_start: end -->\nafter\n"
    )

    write_between(document, "cold_start", "one")
    write_between(document, "cold_start", "two")

    assert document.read_text() == (
        "before\n<!-- bench-money cold_start: begin -->\n\ntwo\n\n<!-- bench-money cold_start: end -->\nafter\n"
    )


def test_a_table_without_a_place_gets_one_at_the_end(tmp_path: Path) -> None:
    """A scenario that the document does not have yet gets a section of its own; half a place is refused."""
    document = tmp_path / "money.md"
    document.write_text("before\n")

    write_between(document, "cold_start", "one")
    write_between(document, "cold_start", "two")

    assert document.read_text() == (
        "before\n\n## Cold start\n\n<!-- bench-money cold_start: begin -->\n\ntwo\n\n<!-- bench-money cold_start: end -->\n"
    )
    document.write_text("<!-- bench-money cold_start: end -->\n")
    with pytest.raises(NoPlace, match="bench-money cold_start: begin"):
        write_between(document, "cold_start", "three")


def test_the_command_writes_markdown_and_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The command prints the table and its own call, and keeps both forms in a folder."""
    sizes = ["--log-decisions", "100", "--online-decisions", "60", "--customers", "200", "--processes", "1"]

    code = main(["--seeds", "1", "--rows", "free,vw-bag", *sizes, "--to", str(tmp_path)])

    assert code == 0
    printed = capsys.readouterr()
    text = (tmp_path / "stationary.md").read_text()
    assert text.strip() in printed.out
    assert "--rows free,vw-bag" in text
    assert "Vowpal Wabbit bag" in text
    assert "2 of 3" in printed.err
    assert '"name": "vw-bag"' in (tmp_path / "stationary.json").read_text()


def test_an_unknown_row_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    """A policy that does not exist ends the command with those that do."""
    assert main(["--rows", "free,best"]) == 2

    printed = capsys.readouterr().err
    assert "'best'" in printed
    assert "oracle-3" in printed


@pytest.mark.parametrize("option", ["--seeds", "--processes", "--online-decisions"])
def test_a_count_of_zero_is_refused(option: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Counts below one are refused by name."""
    with pytest.raises(SystemExit):
        main([option, "0"])

    assert option in capsys.readouterr().err


def test_json_has_every_figure(runs: BySeed) -> None:
    """The JSON carries each run's share, and each goal with its figure on every seed."""
    text = to_json(runs, "stationary", {"command": "x"})

    run: Run = runs[0]["free"]
    assert f'"share": {run.net / runs[0][ORACLE].net}' in text
    assert text.count('"aim"') == len(goals_of("stationary"))
