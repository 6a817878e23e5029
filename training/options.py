"""Options that several commands share, and how their values are read."""

import argparse
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

DEFAULT_RULES = Path(__file__).parent.parent / "service" / "rules" / "default.toml"
MLFLOW = "sqlite:///mlflow.db"
LOG = "sqlite:///var/channel_choice.db"
WINDOW_HOURS = 72
MOST_DECISIONS = 1_000_000
Command = Callable[[str, Callable[[argparse.Namespace], None], str], argparse.ArgumentParser]
"""Adds a command by its name, what it runs and what it is."""


def moment(text: str) -> datetime:
    """Read a time; one without an offset is UTC."""
    found = datetime.fromisoformat(text)
    return found.replace(tzinfo=UTC) if found.tzinfo is None else found


def number(kind: type[int] | type[float], least: float, *, is_included: bool = True) -> Callable[[str], float]:
    """Return what reads a finite number that is at least so much, or more than that."""

    def read(text: str) -> float:
        value = kind(text)
        if not (least <= value < float("inf")) or (value == least and not is_included):
            raise argparse.ArgumentTypeError(f"{text} is not {'at least' if is_included else 'more than'} {least:g}")
        return value

    read.__name__ = kind.__name__
    return read


def share(most: float) -> Callable[[str], float]:
    """Return what reads a number from 0 to the most."""

    def read(text: str) -> float:
        value = float(text)
        if not 0 <= value <= most:
            raise argparse.ArgumentTypeError(f"{text} is not between 0 and {most:g}")
        return value

    read.__name__ = "share"
    return read


def add_registry(parser: argparse.ArgumentParser) -> None:
    """Add where runs and versions are kept."""
    parser.add_argument(
        "--mlflow", default=MLFLOW, metavar="URI", help=f"tracking store and registry (default: {MLFLOW})"
    )
    parser.add_argument("--experiment", default="channel-choice", help="MLflow experiment (default: channel-choice)")
    parser.add_argument(
        "--name", default="channel-choice", help="name of the registered model (default: channel-choice)"
    )


def add_window(parser: argparse.ArgumentParser, default: float | None = WINDOW_HOURS, usual: str = "72") -> None:
    """Add how long after a decision orders count."""
    parser.add_argument(
        "--window-hours",
        type=number(float, 0, is_included=False),
        default=default,
        help=f"an order counts within this after a decision (default: {usual})",
    )


def add_as_of(parser: argparse.ArgumentParser) -> None:
    """Add until when the log is complete."""
    parser.add_argument(
        "--as-of", type=moment, help="UTC time until which the log is complete (default: its newest entry)"
    )


def add_most_decisions(parser: argparse.ArgumentParser) -> None:
    """Add how much of a log is taken."""
    parser.add_argument(
        "--most-decisions",
        type=number(int, 200),
        default=MOST_DECISIONS,
        metavar="N",
        help=f"of a longer log, take some of the customers with all their decisions, N at most, and say so (default: {MOST_DECISIONS:,})",
    )


def add_engine(parser: argparse.ArgumentParser) -> None:
    """Add where trees are grown and plans are made."""
    parser.add_argument(
        "--engine", choices=["local", "dask"], default="local", help="this machine, or a Dask cluster (default: local)"
    )
    parser.add_argument("--cluster", metavar="ADDRESS", help="with dask: the scheduler, such as tcp://10.0.0.5:8786")
