"""A decision log as Parquet files in the schema that `import --log parquet` reads, for analysts and for other tools.

Customers are named by the store's keys, never by an identity. Live decisions are written, with the outcomes of all customers; imported again, they
give the same training data.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from sqlalchemy import Connection, text

from models.context import Context, FeatureValue
from models.errors import LogUnusable
from models.features import NO_SEND, category_name
from models.record import context_from_json, unpack_actions
from service.store.engine import asking
from training.broken import read_context
from training.dataset import find_log
from training.logs.schema import ACTIVITY, DECISIONS, FEATURE_PREFIX, OUTCOMES, Kind, Schema

_CHUNK = 5000
_MONEY = pa.decimal128(18, 6)
_TIME = pa.timestamp("us", "UTC")
_WRITTEN: Mapping[Kind, pa.DataType] = {
    "text": pa.string(),
    "id": pa.string(),
    "time": _TIME,
    "money": _MONEY,
    "number": pa.float64(),
    "whole": pa.int32(),
    "flag": pa.bool_(),
    "channels": pa.list_(pa.string()),
    "prices": pa.map_(pa.string(), _MONEY),
}
_Row = dict[str, Any]
_DECISIONS = """
SELECT decision_id, request_id, step, customer_key, decide_time, channel, send_time, propensity, price_micros, policy, trainable,
  context, actions
FROM decisions WHERE mode = 'live' AND context != '' ORDER BY decide_time, {order}
"""
_OUTCOMES = """
SELECT o.event_id, d.decision_id, d.step, CASE WHEN d.decision_id IS NULL THEN o.customer_key END, o.type, o.occur_time,
  o.receive_time, o.value_micros, o.cost_micros, o.machine_generated, o.csat, o.nps
FROM outcomes o LEFT JOIN decisions d ON d.decision_id = o.decision_id AND d.step = o.step AND d.mode = 'live'
WHERE (d.decision_id IS NOT NULL OR o.customer_key != '') AND (d.decision_id IS NULL OR d.context != '')
  AND (d.decision_id IS NOT NULL OR o.type != 'visit') ORDER BY o.occur_time, {order}
"""
_VISITS = """
SELECT o.customer_key, o.occur_time
FROM outcomes o LEFT JOIN decisions d ON d.decision_id = o.decision_id AND d.step = o.step AND d.mode = 'live'
WHERE o.type = 'visit' AND d.decision_id IS NULL AND o.customer_key != '' ORDER BY o.occur_time, {order}
"""


def export_log(url: str, folder: Path, progress: Callable[[int], object]) -> dict[str, int]:
    """Write the log at a URL into a folder; return how many rows each file has.

    Raises
    ------
    LogUnusable: there is no log, it has no live decision, or the folder has files of a log already.
    """
    name = find_log(url)
    present = [schema.file for schema in (DECISIONS, OUTCOMES, ACTIVITY) if (folder / schema.file).exists()]
    if present:
        raise LogUnusable(f"{folder} has {', '.join(present)} already; name another folder with --to, or remove them")
    with asking(url) as connection:
        features = _feature_types(connection)
        if features is None:
            raise LogUnusable(f"the decision log {name} has no live decision; import or simulate one, or mend --log")
        folder.mkdir(parents=True, exist_ok=True)
        tables: tuple[tuple[Schema, str, Callable[[Sequence[Any]], _Row]], ...] = (
            (DECISIONS, _DECISIONS, lambda row: _decision(row, features)),
            (OUTCOMES, _OUTCOMES, _outcome),
            (ACTIVITY, _VISITS, lambda row: {"customer_id": row[0], "occur_time": row[1]}),
        )
        return {
            schema.file: _write(folder / schema.file, _ask(connection, query), schema, make, features, progress)
            for schema, query, make in tables
        }


def _ask(connection: Connection, query: str) -> Iterator[Sequence[Any]]:
    """Return the rows of a query as they come, those of one moment in the order in which they were written where the engine knows it."""
    kept = {"decisions": "rowid", "outcomes": "o.rowid"}
    by_key = {"decisions": "decision_id, step", "outcomes": "o.event_id"}
    table = "outcomes" if "FROM outcomes" in query else "decisions"
    order = (kept if connection.dialect.name == "sqlite" else by_key)[table]
    found = connection.execution_options(yield_per=_CHUNK).execute(text(query.format(order=order)))
    return (tuple(row) for row in found)


def _feature_types(connection: Connection) -> dict[str, pa.DataType] | None:
    """Return the callers' features of live decisions with their types; None where there is no decision.

    Numbers among texts become text, as training reads them; truth values among numbers become numbers.
    """
    rows = connection.execution_options(yield_per=_CHUNK).execute(
        text("SELECT decision_id, step, context FROM decisions WHERE mode = 'live' AND context != ''")
    )
    kinds: dict[str, set[type]] = {}
    is_empty = True
    for decision_id, step, body in rows:
        is_empty = False
        for name, value in read_context(decision_id, step, body).features.items():
            kinds.setdefault(name, set()).add(type(value))
    if is_empty:
        return None
    return {
        name: pa.string() if str in kinds[name] else pa.bool_() if kinds[name] == {bool} else pa.float64()
        for name in sorted(kinds)
    }


def _decision(row: Sequence[Any], features: Mapping[str, pa.DataType]) -> _Row:
    (
        decision_id,
        request_id,
        step,
        key,
        moment,
        channel,
        send_time,
        propensity,
        price,
        policy,
        trainable,
        text,
        actions,
    ) = row
    context = context_from_json(text)
    message, size = context.message, context.message.content.size
    half_life = message.relevance_half_life_seconds
    overrides = [
        (o.channel, _money(o.price_override_micros)) for o in context.options if o.price_override_micros is not None
    ]
    found: _Row = {
        "request_id": request_id,
        "decision_id": decision_id,
        "step": step,
        "customer_id": key,
        "decide_time": moment,
        "campaign": message.campaign,
        "kind": message.kind,
        "category": message.category,
        "topic": message.topic or None,
        "offer": message.offer or None,
        "journey_stage": message.journey_stage or None,
        "order_margin": _money(message.order_margin_micros),
        "relevance_half_life_hours": None if half_life is None else half_life / 3600,
        "earliest_time": message.earliest_time,
        "expire_time": message.expire_time,
        "length_characters": size.characters,
        "encoding": size.encoding,
        "has_image": message.content.has_image,
        "time_zone": context.customer.time_zone,
        "country": context.customer.country,
        "eligible": _eligible(context, channel, actions),
        "prices": overrides or None,
        "channel": channel,
        "send_time": None if channel == NO_SEND else send_time,
        "propensity": propensity,
        "price": _money(price),
        "policy": policy,
        "trainable": bool(trainable),
    }
    for name, kind in features.items():
        found[FEATURE_PREFIX + name] = _feature(context.features.get(name), kind)
    return found


def _eligible(context: Context, channel: str, packed: bytes | None) -> list[str]:
    """Return the channels that could be used: those of the distribution, else those that the customer agreed to."""
    found = unpack_actions(context, packed)
    channels = (
        [option.channel for option in context.options if option.has_consent and option.is_reachable]
        if found is None
        else [action.channel for action in found.table.actions if action.channel != NO_SEND]
    )
    return list(dict.fromkeys([*channels, *([channel] if channel != NO_SEND else [])]))


def _feature(value: FeatureValue | None, kind: pa.DataType) -> FeatureValue | None:
    if value is None:
        return None
    if pa.types.is_string(kind):
        return category_name(value)
    return value if pa.types.is_boolean(kind) else float(value)


def _outcome(row: Sequence[Any]) -> _Row:
    event_id, decision_id, step, key, kind, occur, receive, value, cost, machine_generated, csat, nps = row
    return {
        "event_id": event_id,
        "decision_id": decision_id,
        "request_id": None,
        "step": step,
        "customer_id": key,
        "type": kind,
        "occur_time": occur,
        "receive_time": receive,
        "value": _money(value),
        "cost": _money(cost),
        "machine_generated": bool(machine_generated),
        "csat": csat,
        "nps": nps,
    }


def _money(micros: int | None) -> Decimal | None:
    return None if micros is None else Decimal(micros).scaleb(-6)


def _write(
    path: Path,
    rows: Iterator[Sequence[Any]],
    schema: Schema,
    make: Callable[[Sequence[Any]], _Row],
    features: Mapping[str, pa.DataType],
    progress: Callable[[int], object],
) -> int:
    columns = [pa.field(field.name, _WRITTEN[field.kind], not field.is_required) for field in schema.fields]
    if schema.has_features:
        columns += [pa.field(FEATURE_PREFIX + name, kind) for name, kind in features.items()]
    form = pa.schema(columns)
    count = 0
    with pq.ParquetWriter(path, form) as writer:
        while chunk := _take(rows):
            made = [make(row) for row in chunk]
            arrays = [pa.array([row[field.name] for row in made], field.type) for field in form]
            writer.write_table(pa.Table.from_arrays(arrays, schema=form))
            count += len(chunk)
            progress(len(chunk))
    return count


def _take(rows: Iterator[Sequence[Any]]) -> list[Sequence[Any]]:
    return [row for _, row in zip(range(_CHUNK), rows, strict=False)]
