"""The whole loop on a log with nothing personal in it: the gate lets the first version pass, and tells that the second is no better."""

import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path

import numpy as np
import pytest

from models.features import NO_SEND
from service.gen.channelchoice.v1.decision_pb2 import Decision
from tests.training.outside import make_hillstrom, write_hillstrom
from training.evaluate_hillstrom import Verdict, judge, table
from training.logs import hillstrom

CUSTOMERS = 5000
BASKET = 50.0
CONVERSIONS = {"men's to everybody": 0.12, "women's to everybody": 0.06, "nothing to anybody": 0.02}


@dataclass(frozen=True, kw_only=True)
class Loop:
    """What one run printed: its lines, and the cells of the last table by policy."""

    lines: list[str]
    work: Path

    def row(self, policy: str) -> list[str]:
        rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in self.lines if line.startswith("|")]
        return next(row[1:] for row in reversed(rows) if row[0] == policy)

    def value(self, policy: str) -> tuple[float, float]:
        """Value and half of its interval."""
        value, half = self.row(policy)[0].split(" ± ")
        return float(value), float(half)


@pytest.fixture(scope="module")
def loop(mlflow_template: Path, tmp_path_factory: pytest.TempPathFactory, root: Path) -> Loop:
    """The loop on 5000 customers of whom nothing tells what they will do."""
    data = write_hillstrom(
        tmp_path_factory.mktemp("data"), make_hillstrom(CUSTOMERS, chances=tuple(CONVERSIONS.values()))
    )
    work = tmp_path_factory.mktemp("work")
    shutil.copy(mlflow_template, work / "mlflow.db")
    command = [sys.executable, "-m", "training", "evaluate-log", "--log", "hillstrom", "--data", str(data)]

    run = subprocess.run([*command, "--work", str(work)], cwd=root, capture_output=True, text=True)

    assert run.returncode == 0, run.stdout + run.stderr
    return Loop(lines=run.stdout.splitlines(), work=work)


def test_first_version_passes_the_gate(loop: Loop) -> None:
    """E-mails that bring orders pass against no send, judged by the half of the customers that was not trained on."""
    begin = next(i for i, line in enumerate(loop.lines) if line.startswith("candidate version 1"))
    checks = [line for line in loop.lines[begin + 1 :] if re.match(r"  (pass|FAIL)  ", line)][:7]
    judged = int(re.search(r"(\d+) judge", loop.lines[0])[1])  # type: ignore[index]  # the line is there

    assert all(line.startswith("  pass  ") for line in checks), checks
    assert f"decisions not trained on  {judged};" in checks[0]
    assert any(line.startswith("hillstrom@champion is version 1") for line in loop.lines)


def test_gate_says_that_there_is_nothing_personal(loop: Loop) -> None:
    """The version that knows customers is refused, since it is not surely better than the one that does not; the champion stays."""
    assert any("candidate version 2 of hillstrom, champion version 1" in line for line in loop.lines)
    assert any(line.startswith("  FAIL  net increment") for line in loop.lines)
    assert any("version 2 of hillstrom is not promoted: it fails net increment" in line for line in loop.lines)
    assert not any(line.startswith("hillstrom@champion is version 2") for line in loop.lines)


def test_policies_are_evaluated_and_replayed(loop: Loop) -> None:
    """Both versions and the rule cascade are judged and replayed beside what was logged, each as a run in MLflow."""
    heads = [
        next(i for i, line in enumerate(loop.lines) if line.startswith("| policy | net value") and last in line)
        for last in ("| sent |", "| net over the first |")
    ]
    judged, replayed = (
        [line.split("|")[1].strip() for line in takewhile(lambda line: line.startswith("|"), loop.lines[head + 2 :])]
        for head in heads
    )
    assert len(judged) == 3
    assert judged[-1] == "rule_cascade"
    assert replayed == ["logged", *judged]
    assert sum(line.startswith("run ") for line in loop.lines) == 2


def test_served_decisions_are_worth_what_was_planted(loop: Loop) -> None:
    """Plain policies come out at their planted value, and the service, which sends men's e-mail, is level with the best of them."""
    for policy, conversion in CONVERSIONS.items():
        value, half = loop.value(policy)
        assert value == pytest.approx(conversion * BASKET, abs=4 * half / 1.96)
    for label in ("the same for everybody", "personal"):
        value, _ = loop.value(f"service, {label}")
        assert value > loop.value("women's to everybody")[0]
        assert abs(float(loop.row(f"service, {label}")[2].split(" ± ")[0])) < 2.5


def decision_of(**shares: float) -> Decision:
    decision = Decision()
    for channel, propensity in shares.items():
        decision.actions.add(channel="" if channel == NO_SEND else channel, propensity=propensity)
    return decision


def test_judged_values_are_those_of_the_rows() -> None:
    """A policy for certain is worth the mean of the rows that did the same; a mixed one the weighted mean; each has its share of sends."""
    rows = make_hillstrom(900)
    channel = np.array([hillstrom.CHANNELS[row["segment"]] for row in rows])
    spend = np.array([row["spend"] for row in rows])
    mixed = [decision_of(mens_email=0.5, none=0.5)] * len(rows)

    found = {v.policy: v for v in judge(rows, {"mixed": mixed})}

    means = {name: float(spend[channel == name].mean()) for name in set(channel)}
    assert found["men's to everybody"].estimate.value == pytest.approx(means["mens_email"])
    assert found["nothing to anybody"].estimate.value == pytest.approx(means[NO_SEND])
    assert found["logging policy"].estimate.value == pytest.approx(float(spend.mean()))
    both = (channel == "mens_email") | (channel == NO_SEND)
    assert found["service, mixed"].estimate.value == pytest.approx(float(spend[both].mean()))
    assert found["service, mixed"].sent_share == pytest.approx(0.5)
    assert found["men's to everybody"].sent_share == 1.0
    assert found["nothing to anybody"].sent_share == 0.0


def test_table_has_differences_with_their_sign() -> None:
    """Every policy but the usual one has its difference from it, with a sign and an interval."""
    rows = make_hillstrom(900)
    verdicts: list[Verdict] = judge(rows, {"mixed": [decision_of(mens_email=1.0)] * len(rows)})

    lines = table(verdicts).splitlines()

    assert len(lines) == 2 + len(verdicts) == 7
    assert {line.count("|") for line in lines} == {6}
    usual = next(line for line in lines if line.startswith("| men's to everybody"))
    assert usual.split("|")[4].strip() == ""
    assert all(re.search(r"\| [+-]\d+\.\d\d ± \d+\.\d\d \|", line) for line in lines[2:] if line != usual)


def test_halves_are_halves() -> None:
    """About half of the customers judge, the same ones every time, whatever came of them."""
    rows = make_hillstrom(2000)

    later = [hillstrom.is_later(row) for row in rows]

    assert abs(np.mean(later) - 0.5) < 4 * 0.5 / np.sqrt(2000)
    assert later == [hillstrom.is_later({"customer_id": row["customer_id"]}) for row in rows]
