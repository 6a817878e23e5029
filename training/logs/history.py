"""Customers' logs as decisions with the history that serving would have seen: contacts and orders in order of time.

Of one moment, decisions are taken in the order of the file. What was known at each is in training.memory.
"""

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

import pyarrow as pa

from models.context import ChannelOption, Content, Context, CustomerState, FeatureValue, Message
from models.decide import make_seed
from models.features import NO_SEND, Action
from models.prices import send_price
from models.record import from_micros
from models.rules import Rules
from models.sms import measure_length
from service.store.rows import new_decision_id
from service.store.store import Store
from training.journal import (
    LoggedDecision,
    LoggedOutcome,
    customer_hash,
    customer_key,
    write_log,
    write_outcomes,
)
from training.logs.schema import FEATURE_PREFIX
from training.logs.shards import CheckedLog, Shard
from training.memory import Memory

_Row = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class CustomerLog:
    """One customer's decisions in order of time, and the outcomes that follow none."""

    identity_hash: bytes
    decisions: tuple[LoggedDecision, ...]
    outcomes: tuple[LoggedOutcome, ...]


def write_checked(store: Store, log: CheckedLog, rules: Rules, key: bytes, progress: Callable[[int], object]) -> int:
    """Append a checked log to a store, a shard at a time; return how many decisions were new."""
    written = 0
    for shard in log.shards():
        customers = list(customer_logs(shard, rules, key))
        written += write_log(store, (d for c in customers for d in c.decisions), [c.identity_hash for c in customers])
        write_outcomes(store, ((customer_key(c.identity_hash), o) for c in customers for o in c.outcomes))
        progress(len(shard.decisions))
    return written


def customer_logs(shard: Shard, rules: Rules, key: bytes) -> Iterator[CustomerLog]:
    """Yield the customers of a shard."""
    decisions: dict[str, list[_Row]] = {}
    steps: dict[tuple[str, str], list[_Row]] = {}
    for row in _rows(shard.decisions):
        row["outcomes"] = []
        decisions.setdefault(row["customer_id"], []).append(row)
        steps.setdefault(("request_id", row["request_id"]), []).append(row)
        if row.get("decision_id") is not None:
            steps.setdefault(("decision_id", row["decision_id"]), []).append(row)
    loose: dict[str, list[_Row]] = {}
    for row in _rows(shard.outcomes):
        followed = _followed(row, steps)
        (followed["outcomes"] if followed is not None else loose.setdefault(row["customer_id"], [])).append(row)
    if shard.activity is not None:
        for row in _rows(shard.activity):
            loose.setdefault(row["customer_id"], []).append({**row, "type": "visit"})
    for customer_id in {**decisions, **loose}:
        identity_hash = customer_hash(key, customer_id)
        maker = _Maker(rules, customer_key(identity_hash), decisions.get(customer_id, []), loose.get(customer_id, []))
        yield CustomerLog(identity_hash=identity_hash, decisions=tuple(maker.decisions()), outcomes=maker.loose)


def _rows(table: pa.Table) -> Iterator[_Row]:
    """Yield the rows of a table as dictionaries."""
    names = table.column_names
    for values in zip(*(table.column(name).to_pylist() for name in names), strict=True):
        yield dict(zip(names, values, strict=True))


def _followed(outcome: _Row, steps: Mapping[tuple[str, str], list[_Row]]) -> _Row | None:
    """Return the step that an outcome follows: as it says, else the latest that was decided by then, else the first."""
    for name in ("decision_id", "request_id"):
        if outcome.get(name) is not None:
            known = sorted(steps[name, outcome[name]], key=_step)
            if outcome.get("step") is not None:
                return next(row for row in known if _step(row) == outcome["step"])
            begun = [row for row in known if row["decide_time"] <= outcome["occur_time"]]
            return begun[-1] if begun else known[0]
    return None


def _step(row: _Row) -> int:
    return row["step"] if row.get("step") is not None else 1


class _Maker:
    """Makes one customer's decisions, each with what was known of the customer by then."""

    def __init__(self, rules: Rules, key: str, rows: list[_Row], loose: list[_Row]) -> None:
        self._rules = rules
        self._key = key
        self._rows = sorted(rows, key=lambda row: row["decide_time"])
        self._ids: dict[str, str] = {}
        self._memory = Memory(rules)
        self.loose = _outcomes(loose, key)
        self._memory.keep_outcomes(self.loose)
        for row in self._rows:
            self._memory.keep_outcomes(_outcomes_of(row), self._decision_id(row), _step(row))

    def decisions(self) -> Iterator[LoggedDecision]:
        """Yield the decisions in order of time."""
        tried: dict[str, tuple[str, ...]] = {}
        for row in self._rows:
            decision_id = self._decision_id(row)
            state = self._memory.fill(customer_of(row, self._key, self._rules), from_micros(row["decide_time"]))
            context = context_of(row, self._rules, state, decision_id, _step(row))
            logged = self._logged(row, replace(context, tried=tried.get(decision_id, ())))
            self._memory.keep_contact(logged)
            if logged.action.send_time is not None:
                tried[decision_id] = tuple(dict.fromkeys((*tried.get(decision_id, ()), logged.action.channel)))
            yield logged

    def _decision_id(self, row: _Row) -> str:
        """Return the id of a row's cascade; one without an id gets one of its request and of when its first step was decided."""
        request_id: str = row["request_id"]
        known: str | None = row.get("decision_id")
        return known or self._ids.setdefault(request_id, new_decision_id(from_micros(row["decide_time"]), request_id))

    def _logged(self, row: _Row, context: Context) -> LoggedDecision:
        rules = self._rules
        channel, price = row["channel"], row.get("price")
        if price is None:
            price = 0 if channel == NO_SEND else send_price(context, rules, context.option(channel)) or 0
        trainable = row.get("trainable")
        return LoggedDecision(
            request_id=row["request_id"],
            context=context,
            action=Action(channel=channel, send_time=None if channel == NO_SEND else from_micros(row["send_time"])),
            propensity=row["propensity"],
            price_micros=price,
            policy=row.get("policy") or "imported",
            outcomes=_outcomes_of(row),
            trainable=bool(row["eligible"]) if trainable is None else trainable,
        )


def customer_of(row: _Row, key: str, rules: Rules) -> CustomerState:
    """Return the customer of a row of decisions, with nothing but what the row says."""
    return CustomerState(
        key=key, time_zone=row.get("time_zone") or rules.time_zone, country=row.get("country") or rules.country
    )


def context_of(row: _Row, rules: Rules, customer: CustomerState, decision_id: str, step: int = 1) -> Context:
    """Return the context of a row of decisions."""
    moment, message = from_micros(row["decide_time"]), message_of(row, rules)
    prices = {channel: round(price * 1e6) for channel, price in row.get("prices") or ()}
    return Context(
        decision_id=decision_id,
        step=step,
        decide_time=moment,
        not_before=max(moment, message.earliest_time) if step == 1 else moment,
        customer=customer,
        message=message,
        options=tuple(
            ChannelOption(
                channel=channel, is_reachable=True, has_consent=True, price_override_micros=prices.get(channel)
            )
            for channel in row["eligible"]
        ),
        seed=make_seed(row["request_id"], step),
        features=features_of(row),
    )


def message_of(row: _Row, rules: Rules) -> Message:
    """Return the message of a row of decisions."""
    moment = from_micros(row["decide_time"])
    earliest = moment if row.get("earliest_time") is None else from_micros(row["earliest_time"])
    expire = row.get("expire_time")
    half_life = row.get("relevance_half_life_hours")
    return Message(
        campaign=row["campaign"],
        kind=row["kind"],
        category=row.get("category") or "marketing",
        order_margin_micros=row["order_margin"],
        earliest_time=earliest,
        expire_time=max(earliest, moment) + timedelta(hours=rules.timing.lifetime_hours)
        if expire is None
        else from_micros(expire),
        content=Content(
            size=measure_length(row.get("length_characters") or 0, row.get("encoding") or "ucs2"),
            has_image=bool(row.get("has_image")),
        ),
        topic=row.get("topic") or "",
        offer=row.get("offer") or "",
        journey_stage=row.get("journey_stage") or "",
        relevance_half_life_seconds=None if half_life is None else half_life * 3600,
    )


def features_of(row: _Row) -> dict[str, FeatureValue]:
    """Return the features of a row of decisions."""
    return {
        name.removeprefix(FEATURE_PREFIX): value
        for name, value in row.items()
        if value is not None and name.startswith(FEATURE_PREFIX)
    }


def _received(row: _Row) -> int:
    received: int | None = row.get("receive_time")
    return int(row["occur_time"]) if received is None else received


def _outcomes_of(row: _Row) -> tuple[LoggedOutcome, ...]:
    """Return the outcomes that follow a step."""
    return _outcomes(row["outcomes"], f"{row['request_id']}\x1f{_step(row)}")


def _outcomes(rows: list[_Row], owner: str) -> tuple[LoggedOutcome, ...]:
    """Return outcomes; one without an id gets one of its owner, what it is, and how many like it came before."""
    alike: Counter[str] = Counter()
    found = []
    for row in rows:
        event_id = row.get("event_id")
        if event_id is None:
            body = f"{owner}\x1f{row['type']}\x1f{row['occur_time']}"
            event_id = "imported-" + hashlib.sha256(f"{body}\x1f{alike[body]}".encode()).hexdigest()[:32]
            alike[body] += 1
        found.append(
            LoggedOutcome(
                type=row["type"],
                occur_time=from_micros(row["occur_time"]),
                value_micros=row.get("value"),
                receive_time=from_micros(_received(row)),
                machine_generated=bool(row.get("machine_generated")),
                cost_micros=row.get("cost"),
                csat=row.get("csat"),
                nps=row.get("nps"),
                event_id=event_id,
            )
        )
    return tuple(found)
