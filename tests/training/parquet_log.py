"""Small logs as Parquet files: valid ones, and ways to break them. NOW is that of the other examples; the rules are theirs."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from tests.training.examples import HOUR, NOW, RULES_TOML

Row = dict[str, Any]
UTC_TIME = pa.timestamp("us", tz="UTC")
TYPES: Mapping[str, pa.DataType] = {
    "decide_time": UTC_TIME,
    "occur_time": UTC_TIME,
    "receive_time": UTC_TIME,
    "send_time": UTC_TIME,
    "earliest_time": UTC_TIME,
    "expire_time": UTC_TIME,
    "eligible": pa.list_(pa.string()),
    "prices": pa.map_(pa.string(), pa.float64()),
    "step": pa.int32(),
}


def decision(request_id: str, moment: datetime = NOW, channel: str = "push", **others: object) -> Row:
    """A decision with all columns that are required; a send goes out at once."""
    return {
        "request_id": request_id,
        "customer_id": "anna",
        "decide_time": moment,
        "campaign": "autumn",
        "kind": "abandoned_cart",
        "order_margin": 900.0,
        "eligible": ["push", "email", "sms"],
        "channel": channel,
        "send_time": None if channel == "none" else moment,
        "propensity": 0.25,
        **others,
    }


def outcome(kind: str, request_id: str | None = None, moment: datetime = NOW + HOUR, **others: object) -> Row:
    return {"type": kind, "request_id": request_id, "occur_time": moment, **others}


def write_file(path: Path, rows: Sequence[Row], types: Mapping[str, pa.DataType] = TYPES) -> None:
    """Write rows as one Parquet file; a column that some rows lack is null there."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    columns = {name: pa.array([row.get(name) for row in rows], types.get(name)) for name in names}
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), path)


def write_log(
    folder: Path, decisions: Sequence[Row], outcomes: Sequence[Row] = (), activity: Sequence[Row] | None = None
) -> Path:
    """Write a log's files, and beside them its rules as rules.toml."""
    write_file(folder / "decisions.parquet", decisions)
    write_file(folder / "outcomes.parquet", outcomes or [outcome("seen", str(decisions[0]["request_id"]))])
    if activity is not None:
        write_file(folder / "activity.parquet", activity)
    (folder / "rules.toml").write_text(RULES_TOML)
    return folder


def command(folder: Path, url: str, *more: str) -> list[str]:
    """The command that imports such a folder."""
    return [
        "import",
        "--log",
        "parquet",
        "--data",
        str(folder),
        "--rules",
        str(folder / "rules.toml"),
        "--to",
        url,
        *more,
    ]
