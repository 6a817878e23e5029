"""What adapters of outside logs share: a Parquet file that is checked, and cells that become features."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from models.context import FeatureValue
from models.errors import LogUnusable


def read_table(path: Path, log: str, columns: Sequence[str]) -> pa.Table:
    """Read a file of a log that must have these columns.

    Raises
    ------
    LogUnusable: it is missing, cannot be read, or lacks columns; it says which.
    """
    if not path.is_file():
        raise LogUnusable(f"there is no {path}; name the folder of the {log} log with --data")
    try:
        table = pq.read_table(path)
    except (OSError, ValueError) as error:
        raise LogUnusable(f"{path} is not a Parquet file that can be read: {error}") from error
    missing = [name for name in columns if name not in table.column_names]
    if missing:
        raise LogUnusable(f"{path} is not the file of the {log} log: it lacks the columns {', '.join(missing)}")
    return table


def known_features(cells: Mapping[str, Any]) -> dict[str, FeatureValue]:
    """Return the cells that hold something: text as it is, numbers as floats; empty and infinite ones are left out."""
    found: dict[str, FeatureValue] = {}
    for name, value in cells.items():
        if isinstance(value, str):
            found[name] = value
        elif value is not None and math.isfinite(value):
            found[name] = float(value)
    return found
