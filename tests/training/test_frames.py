"""Training data as Parquet: what is read back is what the log gives, in bounded chunks, described and verified."""

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from mlflow.tracking import MlflowClient

from models.errors import LogUnusable
from models.features import BUILT_IN, NO_SEND
from tests.training.examples import DAY, HOUR, NOW, WINDOW, closing, logged, order, run_sql, write
from tests.training.judged_logs import random_decisions
from training.__main__ import main
from training.dataset import Dataset, read_dataset
from training.frames import DESCRIPTION, PREFIX, read_description, read_frames, write_frames
from training.journal import LoggedDecision

# MLflow 3.17 declares a relationship with a loader that SQLAlchemy 2.1 calls deprecated.
pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy:sqlalchemy.exc.SADeprecationWarning")


def mixed(count: int = 300) -> list[LoggedDecision]:
    """Decisions with features of every kind: numbers, texts, both, truth values, rare ones and missing ones; the last day's windows are open."""
    found = []
    for number, decision in enumerate(random_decisions(count)):
        features = {
            "visits": float(number % 5),
            "member": number % 2 == 0,
            "city": ("Москва", "Казань", "Тверь")[number % 3] if number % 50 else "once",
            "mixed": "a" if number % 7 == 0 else float(number % 2),
        }
        if number % 3 == 0:
            del features["visits"]
        found.append(replace(decision, context=replace(decision.context, features=features)))
    return found


def assert_same(found: Dataset, expected: Dataset) -> None:
    """Assert that two data sets are the same to the bit."""
    assert found.digest == expected.digest
    assert found.columns == expected.columns
    assert found.active_hours == expected.active_hours
    assert found.window_hours == expected.window_hours
    for name in ("matrix", "decide_time", "customer", "watched_hours", "value", "send_hours", "clicked_hours"):
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name))
    assert (found.early is None) == (expected.early is None)
    if found.early is not None and expected.early is not None:
        assert_same(found.early, expected.early)


@pytest.mark.parametrize(("chunk", "part"), [(7, 20), (100, 100_000), (100_000, 20)])
def test_what_is_read_back_is_what_the_log_gives(
    each_log_url: str, tmp_path: Path, chunk: int, part: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However it is cut into chunks and parts, the data set is that of the log to the bit, with and without open windows."""
    write(each_log_url, mixed())
    monkeypatch.setattr("training.frames._PART", part)
    monkeypatch.setattr("training.dataset._CHUNK", chunk)

    described = write_frames(each_log_url, tmp_path / "frames", WINDOW)

    both = read_dataset(each_log_url, WINDOW, with_early=True)
    assert both.early is not None
    assert_same(read_frames(tmp_path / "frames", with_early=True), both)
    assert_same(read_frames(tmp_path / "frames"), read_dataset(each_log_url, WINDOW))
    assert (described.decisions, described.closed) == (len(both) + len(both.early), len(both))
    assert (len(described.files) == 1) == (part > described.decisions or chunk > described.decisions)


def test_options_do_what_they_do_on_the_log(log_url: str, tmp_path: Path) -> None:
    """Leaving out features, and decisions from a time on, gives the same on files as on the log."""
    write(log_url, [*mixed(), closing(NOW + 400 * DAY)])
    until = NOW + 20 * DAY

    write_frames(log_url, tmp_path / "all", WINDOW)
    write_frames(log_url, tmp_path / "early", WINDOW, until)

    expected = read_dataset(log_url, WINDOW, until, ["x.city", "lag_hours"])
    assert_same(read_frames(tmp_path / "all", until, ["x.city", "lag_hours"]), expected)
    assert_same(read_frames(tmp_path / "early", exclude=["x.city", "lag_hours"]), expected)
    with pytest.raises(LogUnusable, match=r"no feature x\.colour to leave out"):
        read_frames(tmp_path / "all", exclude=["x.colour"])


def test_many_decisions_of_one_moment_are_all_there(
    log_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A campaign that decides more messages at one moment than a chunk holds loses none of them, and has none twice."""
    many = [
        logged(
            f"m-{i}", customer=f"c-{i}", channel=(NO_SEND, "push")[i % 2], outcomes=[order(NOW + HOUR)] * (i % 4 == 0)
        )
        for i in range(90)
    ]
    write(log_url, [*many, logged("later", moment=NOW + HOUR, customer="d"), closing()])
    monkeypatch.setattr("training.dataset._CHUNK", 20)

    described = write_frames(log_url, tmp_path / "frames", WINDOW)

    assert described.decisions == 91
    assert_same(read_frames(tmp_path / "frames"), read_dataset(log_url, WINDOW))


def test_every_column_says_what_it_is(log_url: str, tmp_path: Path) -> None:
    """The description names every column of the files with its type and meaning, and the files' own schema has the meanings too."""
    write(log_url, [*mixed(), closing(NOW + 400 * DAY)])

    described = write_frames(log_url, tmp_path / "frames", WINDOW)

    schema = pq.read_schema(tmp_path / "frames" / next(iter(described.files)))
    assert [column.name for column in described.columns] == schema.names
    assert [column.type for column in described.columns] == [str(field.type) for field in schema]
    meanings = {column.name: column.meaning for column in described.columns}
    assert all(meanings.values())
    assert {
        name: field.metadata[b"meaning"].decode() for name, field in zip(schema.names, schema, strict=True)
    } == meanings
    assert meanings[f"{PREFIX}contacts_7d"] == BUILT_IN["contacts_7d"].meaning
    assert meanings[f"{PREFIX}x.city"] == "feature that the caller sent as city"
    types = {column.name: column.type for column in described.columns}
    assert (types[f"{PREFIX}x.member"], types[f"{PREFIX}x.mixed"]) == ("double", "string")


def test_the_digest_is_that_of_the_content(log_url: str, tmp_path: Path) -> None:
    """The same log gives the same digest wherever it lies and is written to; one outcome more gives another."""
    write(log_url, [*mixed(), closing(NOW + 400 * DAY)])
    first, again = (write_frames(log_url, tmp_path / name, WINDOW) for name in ("one", "two"))
    run_sql(log_url, "UPDATE outcomes SET machine_generated = 1 WHERE type = 'clicked'")
    changed = write_frames(log_url, tmp_path / "three", WINDOW)

    assert first.digest == again.digest != changed.digest
    assert read_description(tmp_path / "one").digest == first.digest
    assert json.loads((tmp_path / "one" / DESCRIPTION).read_text())["digest"] == first.digest


def cut_a_part(folder: Path) -> None:
    path = next(folder.glob("*.parquet"))
    path.write_bytes(path.read_bytes()[:-100])


def lose_a_part(folder: Path) -> None:
    next(folder.glob("*.parquet")).unlink()


def raise_the_format(folder: Path) -> None:
    path = folder / DESCRIPTION
    path.write_text(json.dumps(json.loads(path.read_text()) | {"format": 9}))


def lose_the_description(folder: Path) -> None:
    (folder / DESCRIPTION).unlink()


def break_the_description(folder: Path) -> None:
    (folder / DESCRIPTION).write_text('{"format": 1}')


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (cut_a_part, r"sha256 of .*part-00000\.parquet is not that of dataset\.json"),
        (lose_a_part, r"part-00000\.parquet cannot be read"),
        (raise_the_format, "has format 9, this version reads 1"),
        (lose_the_description, r"there is no .*dataset\.json; write training data with"),
        (break_the_description, "does not describe training data: log: Field required"),
    ],
)
def test_damaged_files_are_refused(log_url: str, tmp_path: Path, damage: Callable[[Path], None], said: str) -> None:
    """What is missing, cut off or of another version is told by its file, with the way out."""
    write(log_url, [*mixed(60), closing(NOW + 400 * DAY)])
    write_frames(log_url, tmp_path / "frames", WINDOW)
    damage(tmp_path / "frames")

    with pytest.raises(LogUnusable, match=said):
        read_frames(tmp_path / "frames")


@pytest.mark.parametrize(
    ("statement", "until", "said"),
    [
        ("DELETE FROM decisions", None, "is empty; import or simulate one|no trainable decision"),
        ("UPDATE decisions SET trainable = 0", None, "no trainable decision of .* has its window"),
        ("UPDATE decisions SET propensity = 1.5 WHERE rowid = 7", None, r"has propensity 1\.5, which is not in"),
        ("SELECT 1", NOW - DAY, "no trainable decision of .* has its window"),
    ],
)
def test_logs_that_teach_nothing_are_refused(
    log_url: str, tmp_path: Path, statement: str, until: datetime | None, said: str
) -> None:
    """A log that training would refuse is refused, and leaves no description that could be taken for data."""
    write(log_url, [*mixed(60), closing(NOW + 400 * DAY)])
    run_sql(log_url, statement)

    with pytest.raises(LogUnusable, match=said):
        write_frames(log_url, tmp_path / "frames", WINDOW, until)

    assert not (tmp_path / "frames" / DESCRIPTION).exists()


def test_a_folder_that_is_not_empty_is_left_alone(log_url: str, tmp_path: Path) -> None:
    """Files that are there are not written over."""
    write(log_url, [*mixed(60), closing(NOW + 400 * DAY)])

    with pytest.raises(LogUnusable, match="is not empty; name another folder with --to"):
        write_frames(log_url, tmp_path, WINDOW)


def test_commands_write_and_train(
    log_url: str, tmp_path: Path, mlflow_uri: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """`dataset` writes what `train --data` learns from; the run has the digest that training on the log has, and the bundle the same bytes, wherever the log lies."""
    monkeypatch.chdir(tmp_path)
    write(log_url, [*mixed(600), closing(NOW + 400 * DAY)])

    assert main(["dataset", "--log", log_url, "--to", "frames"]) == 0
    assert "600 decisions, 600 of them with a closed window, in 1 files" in capsys.readouterr().out
    moved = tmp_path / "moved" / "log.db"
    moved.parent.mkdir()
    run_sql(log_url, f"VACUUM INTO '{moved}'")
    for source in (["--data", "frames"], ["--log", f"sqlite:///{moved}"]):
        assert main(["train", *source, "--mlflow", mlflow_uri, "--trees", "5"]) == 0

    client = MlflowClient(tracking_uri=mlflow_uri)
    experiment = client.get_experiment_by_name("channel-choice")
    assert experiment is not None
    on_log, on_files = client.search_runs([experiment.experiment_id])
    assert on_files.data.tags["data.digest"] == read_dataset(log_url, WINDOW, with_early=True).digest
    assert on_files.data.params["window_hours"] == "72.0"
    assert on_files.data.tags["bundle.version"] == on_log.data.tags["bundle.version"]
    assert on_log.data.params["log"] == str(moved)


@pytest.mark.parametrize("option", [["--log", "sqlite:///x.db"], ["--window-hours", "24"], ["--as-of", "2026-01-01"]])
def test_what_was_settled_when_data_were_written_is_not_asked_again(
    option: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """With --data, options that the data were written by are refused by their names."""
    assert main(["train", "--data", "frames", *option]) == 2
    assert f"{option[0]}: was settled when --data was written" in capsys.readouterr().err
