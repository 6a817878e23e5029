"""The Hillstrom log: a real e-mail test of a retailer in 2008, one third each of men's e-mail, women's e-mail and none.

The two e-mails are imported as two channels, since which e-mail was sent is what was randomised. The log has no dates: all decisions
are put at START, a purchase a day later. Where something is to be judged by customers that it was not trained on, half of them, drawn by
a hash of their number, are put at LATER instead.
"""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from models.context import ChannelOption, Content, Context, CustomerState, FeatureValue, Message
from models.decide import make_seed
from models.errors import LogUnusable
from models.features import NO_SEND, Action
from models.sms import measure_length
from service.store.rows import new_decision_id
from training.journal import LoggedDecision, LoggedOutcome, customer_hash, customer_key
from training.logs.parquet import known_features, read_table

START = datetime(2008, 3, 20, 12, tzinfo=UTC)
WINDOW = timedelta(days=14)
LATER = START + WINDOW + timedelta(days=1)
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


def is_later(row: Mapping[str, Any]) -> bool:
    """Tell whether a customer is of the half that others are judged by."""
    return bool(hashlib.sha256(f"hillstrom-{row['customer_id']}".encode()).digest()[0] % 2)


def logged_decisions(
    rows: Iterable[Mapping[str, Any]],
    key: bytes,
    progress: Callable[[int], object],
    moment: datetime = START,
    margin_micros: int = 0,
) -> Iterator[LoggedDecision]:
    """Yield the log's decisions, all made at one moment; `progress` is told of each. The margin is what a caller would say that an order earns."""
    for row in rows:
        progress(1)
        person = customer_key(customer_hash(key, str(row["customer_id"])))
        yield _logged(row, person, message(moment, margin_micros))


def message(moment: datetime, margin_micros: int = 0) -> Message:
    """Return the message of the test."""
    return Message(
        campaign="hillstrom",
        kind="newsletter",
        category="marketing",
        order_margin_micros=margin_micros,
        earliest_time=moment,
        expire_time=moment + timedelta(hours=1),
        content=Content(size=measure_length(100, "gsm7")),
    )


def features_of(row: Mapping[str, Any]) -> dict[str, FeatureValue]:
    """Return what was known of a customer."""
    return known_features({name: row[name] for name in FEATURES})


def _logged(row: Mapping[str, Any], person: str, sent: Message) -> LoggedDecision:
    request_id = f"hillstrom-{row['customer_id']}"
    channel, moment = CHANNELS[row["segment"]], sent.earliest_time
    context = Context(
        decision_id=new_decision_id(moment, request_id),
        step=1,
        decide_time=moment,
        not_before=moment,
        customer=CustomerState(key=person, time_zone="UTC", country="US"),
        message=sent,
        options=tuple(
            ChannelOption(channel=c, is_reachable=True, has_consent=True) for c in CHANNELS.values() if c != NO_SEND
        ),
        seed=make_seed(request_id, 1),
        features=features_of(row),
    )
    return LoggedDecision(
        request_id=request_id,
        context=context,
        action=Action(channel=channel, send_time=None if channel == NO_SEND else moment),
        propensity=float(row["propensity"]),
        price_micros=0,
        policy="hillstrom_log",
        outcomes=outcomes_of(row, moment),
    )


def outcomes_of(row: Mapping[str, Any], moment: datetime) -> tuple[LoggedOutcome, ...]:
    """Return what followed a row of the log that was decided at a moment."""
    found: list[LoggedOutcome] = []
    if row["visit"]:
        found.append(LoggedOutcome(type="visit", occur_time=moment + timedelta(hours=12)))
    if row["conversion"]:
        value = round(float(row["spend"]) * 1e6)
        found.append(LoggedOutcome(type="order", occur_time=moment + timedelta(days=1), value_micros=value))
    return tuple(found)
