"""The Starbucks log: 17,000 customers x 4 send waves with a randomised offer or none.

Each offer went out through a bundle of channels, e-mail in every one. What tells the bundles apart is the channel of widest reach in
them, here the lead: social, else mobile, else e-mail with web. Nothing in the log tells e-mail from web, so a decision of that bundle
is recorded under one of the two, drawn evenly, at half the propensity. The log has hours since its start and no date: the start is
taken as START, and all customers as living in UTC.
"""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.context import (
    ChannelOption,
    Constraints,
    Content,
    Context,
    CustomerState,
    FeatureValue,
    Message,
)
from models.decide import make_seed
from models.errors import LogUnusable
from models.features import NO_SEND, Action
from models.rules import read_rules
from models.sms import measure_length
from service.store.rows import new_decision_id
from training.journal import LoggedDecision, LoggedOutcome, customer_hash, customer_key
from training.logs.parquet import known_features, read_table
from training.memory import Memory

FloatArray = NDArray[np.float64]
START = datetime(2018, 1, 1, 12, tzinfo=UTC)
WINDOW = timedelta(hours=72)
WAVES = (0, 168, 336, 408)
_SAME_HOUR = 0.5
"""Hours after a wave that what happened in its own hour counts as; the log has whole hours."""
CHANNELS = ("web", "email", "mobile", "social")
FEATURES = (
    "age",
    "income",
    "gender",
    "tenure_days",
    "spend_before",
    "txns_before",
    "offers_before",
    "views_before",
    "completions_before",
)
_COLUMNS = (
    "customer_id",
    "wave_hour",
    "ch_mobile",
    "ch_social",
    "n_channels",
    "hours_to_view",
    "txns_72h",
    "spend_72h",
    *FEATURES,
)
_FILES = {"starbucks_decisions.parquet": _COLUMNS, "starbucks_events.parquet": ("customer_id", "hour", "event")}
LEADS: dict[str, str] = {"web": "base", "email": "base", "mobile": "mobile", "social": "social", NO_SEND: NO_SEND}
"""Lead of the bundle that stands for each channel of the service."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wave:
    """All customers at one send wave. Arrays have shape (n,)."""

    hour: int
    customer_id: NDArray[np.int64]
    lead: NDArray[np.str_]
    """none, base, mobile or social."""
    is_everything: NDArray[np.bool_]
    """Whether the offer went out through all four channels."""
    propensity_lead: FloatArray
    """P(lead) in this wave."""
    propensity_everything: FloatArray
    """P(all four channels) in this wave."""
    view_hours: FloatArray
    """Hours from the wave to when the offer was viewed; NaN where it was not."""
    orders: NDArray[np.int64]
    spend: FloatArray
    """USD within 72 hours."""
    first_order_hours: FloatArray
    """Hours from the wave to the first order within 72 hours; NaN where there was none."""
    features: tuple[dict[str, FeatureValue], ...]

    def __len__(self) -> int:
        return len(self.customer_id)

    @property
    def time(self) -> datetime:
        return START + timedelta(hours=self.hour)


def read_waves(folder: Path, hours: Sequence[int] = WAVES) -> list[Wave]:
    """Read send waves from the folder that holds the log's Parquet files.

    Raises
    ------
    LogUnusable: a file is missing or is not what it should be; it says which.
    """
    decisions, events = (_read(folder / name, columns) for name, columns in _FILES.items())
    first_orders = _first_orders(events)
    return [_wave(decisions, first_orders, hour) for hour in hours]


def _read(path: Path, columns: Sequence[str]) -> dict[str, Any]:
    table = read_table(path, "Starbucks", columns)
    return {name: table.column(name).to_numpy(zero_copy_only=False) for name in table.column_names}


def _first_orders(events: dict[str, Any]) -> dict[int, list[int]]:
    found: dict[int, list[int]] = {}
    is_order = events["event"] == "transaction"
    for customer, hour in zip(events["customer_id"][is_order], events["hour"][is_order], strict=True):
        found.setdefault(int(customer), []).append(int(hour))
    return {customer: sorted(hours) for customer, hours in found.items()}


def _wave(decisions: dict[str, Any], orders: dict[int, list[int]], hour: int) -> Wave:
    rows = np.flatnonzero(decisions["wave_hour"] == hour)
    if not len(rows):
        known = sorted(set(map(int, decisions["wave_hour"])))
        raise LogUnusable(f"the Starbucks log has no wave at hour {hour}; it has {known}")
    column = {name: values[rows] for name, values in decisions.items()}
    is_social, is_mobile = column["ch_social"] == 1, column["ch_mobile"] == 1
    is_none = column["n_channels"] == 0
    lead = np.where(is_none, NO_SEND, np.where(is_social, "social", np.where(is_mobile, "mobile", "base")))
    is_everything = column["n_channels"] == len(CHANNELS)
    shares = {name: float((lead == name).mean()) for name in np.unique(lead)}
    customer = column["customer_id"].astype(np.int64)
    first = [_first_within(orders.get(int(c), []), hour) for c in customer]
    return Wave(
        hour=hour,
        customer_id=customer,
        lead=lead,
        is_everything=is_everything,
        propensity_lead=np.array([shares[str(name)] for name in lead]),
        propensity_everything=np.full(len(rows), float(is_everything.mean())),
        view_hours=np.maximum(column["hours_to_view"].astype(np.float64), _SAME_HOUR),
        orders=column["txns_72h"].astype(np.int64),
        spend=column["spend_72h"].astype(np.float64),
        first_order_hours=np.array(first),
        features=tuple(known_features({name: column[name][i] for name in FEATURES}) for i in range(len(rows))),
    )


def _first_within(hours: list[int], start: int) -> float:
    """Return hours from a wave to the first order in its window."""
    within = [h - start for h in hours if start <= h < start + WINDOW.total_seconds() / 3600]
    return max(within[0], _SAME_HOUR) if within else float("nan")


def logged_decisions(
    waves: Sequence[Wave],
    key: bytes,
    progress: Callable[[int], object],
    margins: Sequence[FloatArray] | None = None,
    price_micros: int = 0,
) -> Iterator[LoggedDecision]:
    """Yield the log's decisions in order of time; `progress` is told of each.

    Parameters
    ----------
    margins : what a caller would say that an order earns, in USD, of each customer at each of these waves; by default nobody says.
    price_micros : of a send through social.
    """
    rules = read_rules(rules_path())
    memories: dict[str, Memory] = {}
    said = [np.zeros(len(wave)) for wave in waves] if margins is None else margins
    for wave, margin in sorted(zip(waves, said, strict=True), key=lambda pair: pair[0].hour):
        for row in range(len(wave)):
            person = customer_key(customer_hash(key, str(wave.customer_id[row])))
            memory = memories.setdefault(person, Memory(rules))
            customer = memory.fill(CustomerState(key=person, time_zone="UTC", country="US"), wave.time)
            logged = _logged(wave, row, customer, round(float(margin[row]) * 1e6), price_micros)
            memory.keep(logged)
            progress(1)
            yield logged


def _logged(wave: Wave, row: int, customer: CustomerState, margin_micros: int, price_micros: int) -> LoggedDecision:
    request_id = f"starbucks-{wave.hour}-{wave.customer_id[row]}"
    channel, propensity = str(wave.lead[row]), float(wave.propensity_lead[row])
    if channel == "base":
        channel = "email" if hashlib.sha256(request_id.encode()).digest()[0] % 2 else "web"
        propensity /= 2
    context = Context(
        decision_id=new_decision_id(wave.time, request_id),
        step=1,
        decide_time=wave.time,
        not_before=wave.time,
        customer=customer,
        message=message(wave.time, margin_micros),
        options=tuple(ChannelOption(channel=c, is_reachable=True, has_consent=True) for c in CHANNELS),
        seed=make_seed(request_id, 1),
        constraints=Constraints(),
        features=wave.features[row],
    )
    return LoggedDecision(
        request_id=request_id,
        context=context,
        action=Action(channel=channel, send_time=None if channel == NO_SEND else wave.time),
        propensity=propensity,
        price_micros=price_micros if channel == "social" else 0,
        policy="starbucks_log",
        outcomes=outcomes_of(wave, row),
    )


def message(moment: datetime, margin_micros: int = 0) -> Message:
    """Return the message of a wave; its margin is the caller's matter at decision time and not part of the log."""
    return Message(
        campaign="offers",
        kind="offer",
        category="marketing",
        order_margin_micros=margin_micros,
        earliest_time=moment,
        expire_time=moment + WINDOW,
        content=Content(size=measure_length(100, "gsm7")),
    )


def outcomes_of(wave: Wave, row: int) -> tuple[LoggedOutcome, ...]:
    """Return what followed a row of the log: viewed, and one order of the window's whole spend."""
    found: list[LoggedOutcome] = []
    if np.isfinite(wave.view_hours[row]):
        moment = wave.time + timedelta(hours=float(wave.view_hours[row]))
        found.append(LoggedOutcome(type="seen", occur_time=moment))
    if wave.orders[row] > 0:
        hours = wave.first_order_hours[row]
        moment = wave.time + timedelta(hours=float(hours) if np.isfinite(hours) else 1.0)
        found.append(LoggedOutcome(type="order", occur_time=moment, value_micros=round(float(wave.spend[row]) * 1e6)))
    return tuple(found)


def rules_path() -> Path:
    """Return the rules under which the log is imported and judged."""
    return Path(__file__).parent / "starbucks.toml"
