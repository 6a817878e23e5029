"""Options that several commands share, and how their values are read."""

import argparse
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

DEFAULT_RULES = Path(__file__).parent.parent / "service" / "rules" / "default.toml"
MLFLOW = "sqlite:///mlflow.db"
LOG = "sqlite:///var/channel_choice.db"


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
