"""Tuning keeps to its time, never ends worse than it began, and does not see the later part of the log."""

from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
from mlflow.tracking import MlflowClient

from models.errors import LogUnusable
from tests.training.examples import world
from tests.training.judged_logs import write_random
from training.__main__ import main
from training.dataset import Dataset
from training.fit import split
from training.grow import Hyperparameters
from training.tune import tune

# MLflow 3.17 declares a relationship with a loader that SQLAlchemy 2.1 calls deprecated.
pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy:sqlalchemy.exc.SADeprecationWarning")

HYPER = Hyperparameters(trees=30, patience=10)


@pytest.fixture(scope="module")
def data() -> Dataset:
    return world(2000)


def ticking() -> Iterator[float]:
    """Count a second with each look."""
    number = 0.0
    while True:
        yield number
        number += 1.0


def test_the_time_holds_whole_trials(data: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    """No trial begins that would not end in time if it took as long as the longest; those given are tried even in no time."""
    taken, clock, told = iter([2.0, 2.0, 2.0, 3.0, 2.0, 2.0, 2.0]), [0.0], list[tuple[int, float]]()

    def losses(*_: object) -> dict[str, float]:
        clock[0] += next(taken)
        return {"one": 1.0 / clock[0], "click.loss": 0.5}

    monkeypatch.setattr("training.tune._losses", losses)
    some = tune(data, HYPER, 12.5, lambda *trial: told.append(trial), lambda: clock[0])
    taken = iter([2.0])
    none = tune(data, HYPER, 0.0, timer=lambda: clock[0])

    assert (some.trials, some.seconds) == (5, 11.0)
    assert some.objective == pytest.approx((2.0 / 11.0 + 1.0) / 2)
    assert [trials for trials, _ in told] == [1, 2, 3, 4, 5]
    assert [least for _, least in told] == sorted((least for _, least in told), reverse=True)
    assert (none.trials, none.objective, none.hyper) == (1, 1.0, HYPER)


def test_what_is_found_is_better_or_what_was_given(data: Dataset) -> None:
    """Hyperparameters that spoil the fit are left for better ones; only those of the trees change; the same again finds the same."""
    spoiled = replace(HYPER, leaves=64, min_rows_in_leaf=20, learning_rate=0.2, l2=0.1, row_share=0.4)

    one, same = (tune(data, spoiled, 40.0, timer=ticking().__next__) for _ in range(2))

    assert one == same
    assert one.objective < 1.0
    changed = {name for name, value in asdict(one.hyper).items() if value != getattr(spoiled, name)}
    assert changed <= {"leaves", "min_rows_in_leaf", "learning_rate", "l2", "row_share"}


def test_the_later_part_has_no_say(data: Dataset) -> None:
    """What happened in the later part of the log changes nothing of what is found."""
    is_later = split(data, HYPER)
    other = replace(data, response=np.where(is_later, 1 - data.response, data.response))

    assert tune(data, HYPER, 10.0, timer=ticking().__next__) == tune(other, HYPER, 10.0, timer=ticking().__next__)


def test_too_little_data_are_refused() -> None:
    """Where the earlier part cannot teach a model, it is said before anything is tried."""
    with pytest.raises(LogUnusable, match="are too few to learn from"):
        tune(world(220), HYPER, 1.0)


def test_command_tunes_and_keeps_what_it_found(
    log_url: str, tmp_path: Path, mlflow_uri: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """`train --tune-minutes` says how many trials there were and what they brought, and the run holds both and what was trained with."""
    monkeypatch.chdir(tmp_path)
    write_random(log_url, 800)

    command = ["train", "--log", log_url, "--mlflow", mlflow_uri, "--trees", "10", "--tune-minutes", "0.00001"]
    assert main(command) == 0

    assert "1 trials in " in capsys.readouterr().out
    client = MlflowClient(tracking_uri=mlflow_uri)
    experiment = client.get_experiment_by_name("channel-choice")
    assert experiment is not None
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.data.metrics["tune.trials"] == 1
    assert run.data.metrics["tune.objective"] == 1.0
    assert run.data.params["leaves"] == "8"
