"""Small logs and data sets with known truth, and the service's use cases without a socket.

The shop is in Moscow and can send through push (free), email (free) and sms (paid). NOW is noon of a Wednesday there.
"""

import contextlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

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
    Mode,
)
from models.decide import make_seed
from models.experiments import bundle_sources
from models.features import NO_SEND, Action, Column
from models.rules import Rules, parse_rules
from models.sms import TextSize
from service.bundles import BundleHolder
from service.customers import Customers
from service.decisions import Decisions
from service.learning import Learner
from service.ledger import ledger_of
from service.outcomes import Outcomes
from service.registry import Registry
from service.requests import AskedChannel, AskedMessage, ChooseRequest, Person, ReportedOutcome
from service.store.identity import Keys
from service.store.rows import new_decision_id
from service.store.store import Store
from service.variants import VariantBundles
from tests.service.served import MovedClock, connected
from training.dataset import Dataset
from training.fit import Fitted, save
from training.journal import LoggedDecision, LoggedOutcome, customer_hash, customer_key, write_log

FloatArray = NDArray[np.float64]
KEY = bytes(range(32))
NOW = datetime(2026, 11, 4, 9, 0, tzinfo=UTC)
HOUR = timedelta(hours=1)
DAY = timedelta(days=1)
WINDOW = 72 * HOUR
UNIT = 1_000_000
CHANNELS = ("push", "email", "sms")

RULES_TOML = """
version = "test"
currency = "RUB"
country = "RU"
time_zone = "Europe/Moscow"

[channels.push]
paid = false
consent_default = "granted"
unsubscribe_rate = 0

[channels.email]
paid = false
consent_default = "granted"
unsubscribe_rate = 0

[channels.sms]
paid = true
consent_default = "granted"
unsubscribe_rate = 0

[[prices]]
channel = "sms"
start_date = 2025-01-01
price = "5.30"

[policy]
exploration_floor = 0.1
exploration_limit = 0.9
paid_optimism = 1000

[cascade]
order = ["push", "email", "sms"]

[timing]
horizon_hours = 12
slot_hours = 4
"""
RULES = parse_rules(RULES_TOML)


def person_of(customer: str) -> str:
    """The key under which the store knows a customer."""
    return customer_key(customer_hash(KEY, customer))


def context_at(
    moment: datetime,
    request_id: str,
    *,
    customer: str = "anna",
    features: Mapping[str, FeatureValue] | None = None,
    mode: Mode = Mode.LIVE,
) -> Context:
    """What was known when a message could go out through any channel."""
    return Context(
        decision_id=new_decision_id(moment, request_id),
        step=1,
        decide_time=moment,
        not_before=moment,
        customer=CustomerState(key=person_of(customer), time_zone="Europe/Moscow", country="RU"),
        message=Message(
            campaign="autumn",
            kind="abandoned_cart",
            category="marketing",
            order_margin_micros=900 * UNIT,
            earliest_time=moment,
            expire_time=moment + 2 * DAY,
            content=Content(size=TextSize(characters=60, encoding="ucs2", segments=1)),
        ),
        options=tuple(ChannelOption(channel=c, is_reachable=True, has_consent=True) for c in CHANNELS),
        seed=make_seed(request_id, 1),
        features=dict(features or {}),
        mode=mode,
    )


def logged(
    request_id: str,
    *,
    moment: datetime = NOW,
    channel: str = "push",
    customer: str = "anna",
    propensity: float = 0.5,
    price_micros: int = 0,
    features: Mapping[str, FeatureValue] | None = None,
    outcomes: Iterable[LoggedOutcome] = (),
    mode: Mode = Mode.LIVE,
) -> LoggedDecision:
    """One decision that somebody made at that moment."""
    return LoggedDecision(
        request_id=request_id,
        context=context_at(moment, request_id, customer=customer, features=features, mode=mode),
        action=Action(channel=channel, send_time=None if channel == NO_SEND else moment),
        propensity=propensity,
        price_micros=price_micros,
        policy="test",
        outcomes=tuple(outcomes),
    )


def order(moment: datetime, value_micros: int | None = None) -> LoggedOutcome:
    return LoggedOutcome(type="order", occur_time=moment, value_micros=value_micros)


def write(url: str, decisions: Sequence[LoggedDecision]) -> int:
    """Append decisions to the log at a URL; return how many were new."""
    store = Store(url)
    try:
        return write_log(store, decisions, [])
    finally:
        store.close()


def closing(moment: datetime = NOW + 30 * DAY) -> LoggedDecision:
    """A decision so late that it closes the windows of all others, while its own stays open."""
    return logged("closing", moment=moment, customer="nobody")


def run_sql(url: str, statement: str, *values: object) -> list[tuple[object, ...]]:
    """Run a statement on the database of a log, as anyone who may write it could."""
    with connected(url) as run:
        found = run(statement, *values)
        return list(found.fetchall()) if found.description else []


@dataclass(frozen=True, kw_only=True)
class InProcess:
    """The service's use cases over one database, with a clock that the test moves."""

    decisions: Decisions
    outcomes: Outcomes
    bundles: BundleHolder
    clock: MovedClock
    url: str


@contextlib.contextmanager
def in_process(
    folder: Path, rules: Rules = RULES, bundle: str = "", clock: MovedClock | None = None
) -> Iterator[InProcess]:
    """Put the use cases together over a database in a folder until the end of the block."""
    url = f"sqlite:///{folder / 'served.db'}"
    moved = clock or MovedClock()
    store = Store(url)
    registry, keys = Registry("sqlite:///unused", folder / "cache"), Keys(current=KEY)
    bundles = BundleHolder(bundle, registry, moved)
    bundles.load()
    variants = VariantBundles(bundle_sources(rules), registry, moved, 60.0)
    variants.load()
    ledger = ledger_of(store)
    customers = Customers(store, rules, moved, keys, ledger)
    decisions = Decisions(store, rules, bundles, moved, customers, Learner(store, 0.0), keys, variants, ledger)
    try:
        yield InProcess(
            decisions=decisions,
            outcomes=Outcomes(store, rules, moved, customers, keys, ledger),
            bundles=bundles,
            clock=moved,
            url=url,
        )
    finally:
        decisions.close()
        bundles.close()
        store.close()


def ask(
    request_id: str,
    *,
    customer: str = "anna",
    channels: Sequence[str] = CHANNELS,
    features: Mapping[str, FeatureValue] | None = None,
    kind: str = "abandoned_cart",
    mode: Mode = Mode.LIVE,
) -> ChooseRequest:
    """A request of a caller who may use all of these channels."""
    return ChooseRequest(
        request_id=request_id,
        body=request_id.encode(),
        person=Person(identities=(("customer", customer),), time_zone="Europe/Moscow"),
        message=AskedMessage(
            campaign="autumn",
            kind=kind,
            category="marketing",
            order_margin_micros=900 * UNIT,
            content=Content(size=TextSize(characters=60, encoding="ucs2", segments=1)),
            topic="",
            offer="",
            journey_stage="active",
            relevance_half_life_seconds=None,
            earliest_time=None,
            expire_time=None,
            priority=0,
        ),
        channels=tuple(AskedChannel(channel=channel, consent="granted") for channel in channels),
        features=dict(features or {}),
        constraints=Constraints(),
        mode=mode,
    )


def happened(
    event_id: str, kind: str, moment: datetime, *, decision_id: str = "", customer: str | None = None
) -> ReportedOutcome:
    """A report that something happened after a decision, or to a customer without one."""
    return ReportedOutcome(
        event_id=event_id,
        body=event_id.encode(),
        decision_id=decision_id,
        step=0,
        type=kind,
        occur_time=moment,
        value_micros=None,
        cost_micros=None,
        machine_generated=False,
        csat=None,
        nps=None,
        person=None if customer is None else Person(identities=(("customer", customer),)),
    )


WORLD_CHANNELS = ("none", "push", "sms")
WORLD_COLUMNS = (
    Column(name="channel", kind="category", categories=WORLD_CHANNELS),
    Column(name="x.young", kind="number"),
    Column(name="x.noise", kind="number"),
)
BASE, PUSH_ON_YOUNG, SMS_ON_OLD = 0.10, 0.20, 0.12
"""P(order) without a send; what push adds for the young, and sms for the others. Each adds nothing for the rest."""
P_SEEN = 0.6
"""P(seen | send). Only who saw a message can be moved by it, so among them it moves 1 / 0.6 times as many."""


def world(decisions: int, seed: int = 0, *, is_seen_logged: bool = False) -> Dataset:
    """Decisions an hour apart, channels drawn evenly, orders by the truth above; whether messages were seen is in the log or not."""
    rng = np.random.default_rng(seed)
    channel = rng.integers(3, size=decisions)
    young = rng.integers(2, size=decisions).astype(np.float64)
    sent = channel > 0
    seen = sent & (rng.random(decisions) < P_SEEN)
    effect = PUSH_ON_YOUNG * (channel == 1) * young + SMS_ON_OLD * (channel == 2) * (1 - young)
    response = (rng.random(decisions) < BASE + effect * seen / P_SEEN).astype(np.float64)
    is_told = seen & is_seen_logged
    return dataset_of(
        columns=WORLD_COLUMNS,
        matrix=np.column_stack([channel.astype(np.float64), young, rng.normal(size=decisions)]),
        decide_time=np.int64(1_700_000_000_000_000) + 3_600_000_000 * np.arange(decisions, dtype=np.int64),
        channel=np.array(WORLD_CHANNELS)[channel],
        propensity=np.full(decisions, 1 / 3),
        price=np.where(channel == 2, 5.3, 0.0),
        response=response,
        value=900 * response,
        unsubscribed=(rng.random(decisions) < 0.02 * sent).astype(np.float64),
        seen_hours=np.where(is_told, rng.uniform(0.1, 24, decisions), np.nan),
        digest=f"world-{decisions}-{seed}",
    )


def dataset_of(
    *,
    columns: tuple[Column, ...],
    matrix: FloatArray,
    decide_time: NDArray[np.int64],
    channel: NDArray[np.str_],
    propensity: FloatArray,
    response: FloatArray,
    digest: str,
    seen_hours: FloatArray | None = None,
    clicked_hours: FloatArray | None = None,
    unsubscribed: FloatArray | None = None,
    delivered: FloatArray | None = None,
    price: FloatArray | None = None,
    value: FloatArray | None = None,
    lifetime_hours: float = 48.0,
    half_life_hours: FloatArray | None = None,
) -> Dataset:
    """Return a data set of sends made at the moment of the decision, each by a customer of their own who was never active before.

    Arrays have shape (n,). Nobody clicks or unsubscribes, all sends arrive, and messages keep their worth, unless said otherwise.
    """
    n = len(channel)
    nothing, never = np.zeros(n), np.full(n, np.nan)
    seen_hours = never if seen_hours is None else seen_hours
    clicked_hours = never if clicked_hours is None else clicked_hours
    moment = decide_time / 3.6e9
    return Dataset(
        columns=columns,
        matrix=matrix,
        decide_time=decide_time,
        channel=channel,
        propensity=propensity,
        price=nothing if price is None else price,
        response=response,
        value=response if value is None else value,
        unsubscribed=nothing if unsubscribed is None else unsubscribed,
        clicked=(~np.isnan(clicked_hours)).astype(np.float64),
        seen=(~np.isnan(seen_hours)).astype(np.float64),
        delivered=np.ones(n) if delivered is None else delivered,
        cancelled=nothing,
        send_hours=np.where(channel == NO_SEND, np.nan, moment),
        seen_hours=seen_hours,
        clicked_hours=clicked_hours,
        begin_hours=moment,
        expire_hours=moment + lifetime_hours,
        half_life_hours=np.full(n, np.inf) if half_life_hours is None else half_life_hours,
        customer=np.array([f"customer-{i}" for i in range(n)]),
        time_zone=np.full(n, "Europe/Moscow"),
        watched_hours=np.full(n, np.inf),
        active_hours=((),) * n,
        digest=digest,
    )


def write_fitted(folder: Path, name: str, fitted: Fitted) -> str:
    """Write what was fitted as a bundle; return its version."""
    return save(fitted, folder, name)
