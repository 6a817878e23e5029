"""Rows of a log that nobody can read: told by their decision and column, in the place of what a parser says."""

from pydantic import ValidationError

from models.context import Context
from models.errors import LogUnusable
from models.record import context_from_json

UNREADABLE = (ValueError, KeyError, TypeError, IndexError, AttributeError)
"""What parsers raise of a text that is not what it should be."""


def unreadable(decision_id: object, step: object, column: str, error: Exception) -> LogUnusable:
    """Return the refusal of a decision whose column cannot be read."""
    return LogUnusable(
        f"decision {decision_id} step {step} has a {column} that cannot be read: {_reason(error)}; "
        f"mend the column {column} of decisions, or take that decision out of the log"
    )


def read_context(decision_id: object, step: object, text: str) -> Context:
    """Read the context of a decision.

    Raises
    ------
    LogUnusable: it cannot be read.
    """
    try:
        return context_from_json(text)
    except UNREADABLE as error:
        raise unreadable(decision_id, step, "context", error) from error


def _reason(error: Exception) -> str:
    match error:
        case ValidationError():
            first = error.errors(include_url=False)[0]
            place = ".".join(str(part) for part in first["loc"])
            return f"{place}: {first['msg']}" if place else first["msg"]
        case KeyError():
            return f"it lacks {error.args[0]}"
        case _:
            return str(error)
