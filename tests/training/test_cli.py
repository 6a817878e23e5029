"""`python -m training`: what it offers, and how it refuses."""

import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tests.training.examples import NOW, logged, write
from training.__main__ import main
from training.options import moment

COMMANDS = ("import", "export", "simulate", "train", "evaluate", "promote", "rollback", "starter", "evaluate-log")


def refused(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """Run a command that is to be refused; return what it said on standard error."""
    try:
        code = main(arguments)
    except SystemExit as exit_asked:  # how argparse refuses
        code = int(str(exit_asked.code))
    told = capsys.readouterr()
    assert code == 2
    assert "Traceback" not in told.err
    return told.err


def test_help_lists_every_command(root: Path) -> None:
    """Help names all commands with what they do, and imports nothing heavy for it."""
    command = [sys.executable, "-X", "importtime", "-m", "training", "--help"]

    run = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True)

    for name in COMMANDS:
        assert f"\n    {name}" in run.stdout
    imported = {line.rpartition("|")[2].strip() for line in run.stderr.splitlines()}
    assert "models.rules" in imported
    assert imported.isdisjoint({"mlflow", "lightgbm", "pyarrow", "matplotlib", "grpc", "sqlalchemy"})


@pytest.mark.parametrize("command", COMMANDS)
def test_each_command_explains_itself(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Every command has help, with its defaults where it has any."""
    with pytest.raises(SystemExit) as asked:
        main([command, "--help"])

    assert asked.value.code == 0
    assert f"python -m training {command}" in capsys.readouterr().out


def test_refusal_is_an_exit_code_and_one_line(root: Path, tmp_path: Path) -> None:
    """A refused command ends with 2, says why in one line of standard error, and nothing on standard output."""
    command = [sys.executable, "-m", "training", "train", "--log", f"sqlite:///{tmp_path / 'absent.db'}"]

    run = subprocess.run(command, cwd=tmp_path, env={"PYTHONPATH": str(root)}, capture_output=True, text=True)

    assert (run.returncode, run.stdout) == (2, "")
    assert run.stderr == f"there is no decision log {tmp_path / 'absent.db'}; import or simulate one, or mend --log\n"


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ([], "COMMAND"),
        (["learn"], "invalid choice: 'learn'"),
        (["import", "--log", "other", "--data", "."], "invalid choice: 'other'"),
        (["import", "--log", "starbucks"], "--data"),
        (["import", "--log", "parquet", "--data", "absent"], "there is no absent/decisions.parquet"),
        (["import", "--log", "parquet", "--data", ".", "--rules", "absent.toml"], "absent.toml"),
        (["export", "--log", "sqlite:///absent.db", "--to", "out"], "there is no decision log absent.db"),
        (["export"], "--to"),
        (["import", "--log", "starbucks", "--data", "absent"], "there is no absent/starbucks_decisions.parquet"),
        (["train", "--until", "yesterday"], "--until"),
        (["train", "--as-of", "2026-13-01"], "--as-of"),
        (["train", "--window-hours", "0"], "--window-hours"),
        (["train", "--window-hours", "-3"], "--window-hours"),
        (["train", "--window-hours", "nan"], "--window-hours"),
        (["train", "--window-hours", "inf"], "--window-hours"),
        (["train", "--trees", "0"], "--trees"),
        (["train", "--leaves", "1"], "--leaves"),
        (["simulate", "--decisions", "-1"], "--decisions"),
        (["simulate", "--decisions", "many"], "--decisions"),
        (["simulate", "--seed", "-1"], "--seed"),
        (["simulate", "--world", "other"], "invalid choice: 'other'"),
        (["simulate", "--customers", "10"], "10 is not at least 100"),
        (["simulate", "--steps", "4"], "--steps"),
        (["simulate", "--scenario", "flood"], "--scenario: must be one of stationary, push_outage"),
        (["simulate", "--scenario", "cold_start"], "--scenario: must be one of stationary, push_outage"),
        (["simulate", "--rules", "mine.toml"], "--rules: the retailer has rules of its own"),
        (["simulate", "--world", "starter", "--truth", "t.parquet"], "--truth: only the retailer's truth is known"),
        (["simulate", "--truth", "absent/t.parquet"], "--truth: there is no folder absent"),
        (["evaluate-log", "--log", "starbucks", "--data", ".", "--social-price", "-1"], "--social-price"),
        (["evaluate-log", "--log", "starbucks", "--data", "."], "there is no starbucks_decisions.parquet"),
        (["promote", "--mlflow", "sqlite:///absent.db"], "there is no registry absent.db"),
        (["starter", "made", "--rules", "absent.toml"], "absent.toml"),
    ],
)
def test_mistakes_are_told(
    arguments: list[str], told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each mistake on the command line is told with what it is about, ends with 2 and makes no file."""
    monkeypatch.chdir(tmp_path)

    assert told in refused(arguments, capsys)

    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


@pytest.mark.parametrize("url", ["mysql://host/db", "nonsense", "sqlite://"])
@pytest.mark.parametrize(
    "option", ["train --log", "dataset --to frames --log", "simulate --to", "evaluate --no-mlflow --log"]
)
def test_other_databases_are_refused(option: str, url: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A log on what the store does not run on is refused by the option that named it."""
    told = refused([*option.split(), url], capsys)

    names = {"--database", "--log"} if option.startswith("evaluate") else {"--log", option.split()[-1]}
    assert any(name in told for name in names)
    assert "database_url" not in told


def test_log_that_cannot_teach_is_refused(log_url: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A log of one decision is refused with what is missing, before MLflow is touched."""
    write(log_url, [logged("a"), logged("b", moment=NOW.replace(month=12))])

    assert "1 decisions are too few to learn from" in refused(["train", "--log", log_url], capsys)


def test_file_that_is_no_log_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A file that is no database is refused by its name."""
    path = tmp_path / "notes.db"
    path.write_text("not a database at all, " * 50)

    assert "notes.db" in refused(["train", "--log", f"sqlite:///{path}"], capsys)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2026-11-01T00:00", datetime(2026, 11, 1, tzinfo=UTC)),
        ("2026-11-01", datetime(2026, 11, 1, tzinfo=UTC)),
        ("2026-11-01T03:00+03:00", datetime(2026, 11, 1, tzinfo=UTC)),
        ("2026-11-01T00:00Z", datetime(2026, 11, 1, tzinfo=UTC)),
    ],
)
def test_times_are_utc_unless_they_say_otherwise(text: str, expected: datetime) -> None:
    """A time without an offset is UTC, one with an offset is that moment."""
    assert moment(text) == expected


@pytest.mark.parametrize("world", ["retailer", "starter"])
def test_simulated_log_says_where_it_is(world: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A simulated log is written where asked, and repeating it writes nothing new."""
    url = f"sqlite:///{tmp_path / 'new' / 'log.db'}"
    command = ["simulate", "--world", world, "--to", url, "--decisions", "50"]

    codes = [main(command), main(command)]

    told = [line for line in capsys.readouterr().out.splitlines() if line.endswith(url)]
    assert codes == [0, 0]
    assert told == [f"50 decisions written to {url}", f"0 decisions written to {url}"]
