"""The Hillstrom log: a real e-mail test of a retailer in 2008, one third each of men's e-mail, women's e-mail and none.

The two e-mails are imported as two channels, since which e-mail was sent is what was randomised. The log has no dates: all decisions
are put at START, a purchase a day later.
"""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from models.context import ChannelOption, Content, Context, CustomerState, Message
from models.decide import make_seed
from models.errors import LogUnusable
from models.features import NO_SEND, Action
from models.sms import measure_length
from service.store.rows import new_decision_id
from training.journal import LoggedDecision, LoggedOutcome, customer_hash, customer_key
from training.logs.parquet import known_features, read_table

START = datetime(2008, 3, 20, 12, tzinfo=UTC)
FEATURES = ("recency", "history_segment", "history", "mens", "womens", "zip_code", "newbie", "channel")
CHANNELS = {"Mens E-Mail": "mens_email", "Womens E-Mail": "womens_email", "No E-Mail": NO_SEND}
_FILE = "hillstrom_email_rct.parquet"
_COLUMNS = ("customer_id", "segment", "visit", "conversion", "spend", "propensity", *FEATURES)


def rules_path() -> Path:
    """Return the rules under which the log is imported."""
    return Path(__file__).parent / "hillstrom.toml"


def read_rows(folder: Path) -> list[dict[str, Any]]:
    """Read the log from the folder that holds its Parquet file.

    Raises
    ------
    LogUnusable: the file is missing or is not what it should be.
    """
    path = folder / _FILE
    table = read_table(path, "Hillstrom", _COLUMNS)
    rows = list(table.to_pylist())
    unknown = sorted({str(row["segment"]) for row in rows} - set(CHANNELS))
    if unknown or not rows:
        raise LogUnusable(f"{path} has unknown segments {', '.join(unknown)}" if unknown else f"{path} has no rows")
    return rows


def logged_decisions(
    rows: list[dict[str, Any]], key: bytes, progress: Callable[[int], object]
) -> Iterator[LoggedDecision]:
    """Yield the log's decisions; `progress` is told of each."""
    for row in rows:
        progress(1)
        yield _logged(row, customer_key(customer_hash(key, str(row["customer_id"]))))


def _logged(row: dict[str, Any], person: str) -> LoggedDecision:
    request_id = f"hillstrom-{row['customer_id']}"
    channel = CHANNELS[row["segment"]]
    context = Context(
        decision_id=new_decision_id(START, request_id),
        step=1,
        decide_time=START,
        not_before=START,
        customer=CustomerState(key=person, time_zone="UTC", country="US"),
        message=Message(
            campaign="hillstrom",
            kind="newsletter",
            category="marketing",
            order_margin_micros=0,
            earliest_time=START,
            expire_time=START + timedelta(hours=1),
            content=Content(size=measure_length(100, "gsm7")),
        ),
        options=tuple(
            ChannelOption(channel=c, is_reachable=True, has_consent=True) for c in CHANNELS.values() if c != NO_SEND
        ),
        seed=make_seed(request_id, 1),
        features=known_features({name: row[name] for name in FEATURES}),
    )
    return LoggedDecision(
        request_id=request_id,
        context=context,
        action=Action(channel=channel, send_time=None if channel == NO_SEND else START),
        propensity=float(row["propensity"]),
        price_micros=0,
        policy="hillstrom_log",
        outcomes=_outcomes(row),
    )


def _outcomes(row: dict[str, Any]) -> tuple[LoggedOutcome, ...]:
    found: list[LoggedOutcome] = []
    if row["visit"]:
        found.append(LoggedOutcome(type="visit", occur_time=START + timedelta(hours=12)))
    if row["conversion"]:
        value = round(float(row["spend"]) * 1e6)
        found.append(LoggedOutcome(type="order", occur_time=START + timedelta(days=1), value_micros=value))
    return tuple(found)
