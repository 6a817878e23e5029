"""Logs that are longer than asked for: some customers with all their decisions, the same ones every time, and it is said."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from models.errors import LogUnusable
from tests.training.examples import WINDOW, person_of, write
from tests.training.judged_logs import random_decisions
from training.__main__ import main
from training.dataset import Sample, cut_sample, read_dataset
from training.doubts import find_doubts
from training.frames import read_frames, write_frames
from training.journal import LoggedDecision
from training.judged import read_log

# MLflow 3.17 declares a relationship with a loader that SQLAlchemy 2.1 calls deprecated.
pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy:sqlalchemy.exc.SADeprecationWarning")


def of_few(count: int) -> list[LoggedDecision]:
    """Random decisions, four of each customer."""
    found = []
    for number, decision in enumerate(random_decisions(count)):
        customer = replace(decision.context.customer, key=person_of(f"c-{number % (count // 4)}"))
        found.append(replace(decision, context=replace(decision.context, customer=customer)))
    return found


def test_customers_of_a_sample_are_whole(each_log_url: str) -> None:
    """A sample has at most as many decisions as asked for, all of those of its customers and none of others."""
    write(each_log_url, of_few(1200))
    everything = read_dataset(each_log_url, WINDOW, with_early=True)
    names, counts = np.unique(everything.with_early().customer, return_counts=True)

    found = read_dataset(each_log_url, WINDOW, with_early=True, most=700).with_early()

    mine, kept = np.unique(found.customer, return_counts=True)
    assert 600 < len(found) <= 700
    assert set(kept) == {4}
    assert dict(zip(mine, kept, strict=True)).items() <= dict(zip(names, counts, strict=True)).items()
    assert max(mine) < min(set(names) - set(mine))
    assert found.sample is not None
    assert (found.sample.decisions, found.sample.of) == (len(found), len(everything.with_early()))


def test_files_and_log_give_the_same_sample(each_log_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether the log or the files written of it are read, and in chunks of whatever length, the sample is the same to the bit."""
    write(each_log_url, random_decisions(600))
    write_frames(each_log_url, tmp_path / "frames", WINDOW)
    expected = read_dataset(each_log_url, WINDOW, with_early=True, most=300)
    monkeypatch.setattr("training.dataset._CHUNK", 50)
    monkeypatch.setattr("training.frames._READ", 50)

    found = read_frames(tmp_path / "frames", with_early=True, most=300)

    assert found.digest == expected.digest == read_dataset(each_log_url, WINDOW, with_early=True, most=300).digest
    assert found.sample == expected.sample


def test_log_that_is_short_enough_is_taken_whole(log_url: str, tmp_path: Path) -> None:
    """Exactly as many decisions as there are is no sample, and gives what no bound gives."""
    write(log_url, random_decisions(300))
    write_frames(log_url, tmp_path / "frames", WINDOW)
    everything = read_dataset(log_url, WINDOW, with_early=True)
    most = len(everything.with_early())

    for found in (
        read_dataset(log_url, WINDOW, with_early=True, most=most),
        read_frames(tmp_path / "frames", with_early=True, most=most),
    ):
        assert found.sample is None
        assert found.digest == everything.digest


def test_policies_are_judged_by_the_same_customers(log_url: str) -> None:
    """Contexts that policies are judged in are those of the decisions that were read, in their order."""
    write(log_url, random_decisions(600))

    log = read_log(log_url, WINDOW, most=300)

    decided = [round(logged.context.decide_time.timestamp() * 1e6) for logged in log.decisions()]
    assert decided == log.data.decide_time.tolist()
    assert [logged.propensity for logged in log.decisions()] == log.data.propensity.tolist()


def test_sample_is_said(log_url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A sample is a doubt about the data, `train` prints it, and the bundle keeps how many decisions the log had."""
    write(log_url, random_decisions(1500))
    data = read_dataset(log_url, WINDOW, with_early=True, most=1000)
    assert data.sample is not None
    assert find_doubts(data)[0] == data.sample.text

    command = ["train", "--log", log_url, "--most-decisions", "1000", "--trees", "5"]
    code = main([*command, "--mlflow", f"sqlite:///{tmp_path / 'mlflow.db'}"])

    told = capsys.readouterr()
    assert code == 0, told.err
    assert f"note: {data.sample.text}" in told.out
    assert f"of {data.sample.of:,} decisions are taken" in data.sample.text


@pytest.mark.parametrize(
    ("most", "expected"),
    [
        (9, Sample(before="d", decisions=8, of=10)),
        (8, Sample(before="d", decisions=8, of=10)),
        (7, Sample(before="c", decisions=5, of=10)),
        (10, None),
    ],
)
def test_as_many_customers_as_fit_are_taken(most: int, expected: Sample | None) -> None:
    """Customers are taken in the order of their keys until the next would be too many, though a later one might fit."""
    assert cut_sample([("a", 2), ("b", 3), ("c", 3), ("d", 2)], most) == expected


def test_too_small_a_sample_is_refused() -> None:
    """Where not even the first customers fit there is no sample, and the option to mend is named."""
    with pytest.raises(LogUnusable, match="--most-decisions 2 is too few"):
        cut_sample([("a", 3), ("b", 1)], 2)


def test_text_of_a_sample_has_its_share() -> None:
    """It is said how many decisions of how many are taken, and how to take more."""
    sample = Sample(before="4", decisions=250, of=1000)

    assert sample.text == (
        "250 of 1,000 decisions are taken, all those of 25% of the customers; --most-decisions takes more"
    )
