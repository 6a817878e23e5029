"""The messages of a log in the order in which they were decided, each with what was done about it and what came of that: what a replay is made from."""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import Connection, bindparam, text

from models.context import Context
from models.errors import LogUnusable
from models.features import NO_SEND, Action
from models.record import context_from_json, from_micros, to_micros
from service.store.engine import asking
from training.broken import read_context
from training.dataset import find_log, limits

_CHUNK = 500
_WHICH = """mode = 'live' AND step = 1 AND verdict != 'defer' AND context != '' AND decide_time >= :since AND decide_time < :until
  AND decide_time + :window <= :as_of"""
_FIRSTS = f"""
SELECT decision_id, request_id, customer_key, bundle_version, context FROM decisions
WHERE {_WHICH} ORDER BY decide_time, decision_id
"""  # noqa: S608  # of constants
_IDS = f"SELECT decision_id FROM decisions WHERE {_WHICH}"  # noqa: S608  # of constants
_STEPS = text(
    """
SELECT decision_id, step, decide_time, channel, send_time, price_micros, context FROM decisions
WHERE mode = 'live' AND decision_id IN :ids ORDER BY decision_id, step
"""
).bindparams(bindparam("ids", expanding=True))
_OUTCOMES = text(
    """
SELECT decision_id, step, type, occur_time, cost_micros FROM outcomes
WHERE decision_id IN :ids AND status = 'accepted' AND NOT machine_generated ORDER BY occur_time
"""
).bindparams(bindparam("ids", expanding=True))
_ORDERS = """
SELECT customer_key, occur_time FROM outcomes
WHERE type IN ('order', 'store_purchase') AND NOT machine_generated AND occur_time >= :since ORDER BY occur_time
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class LoggedStep:
    """One step of a message as it was logged, with what was reported of it."""

    step: int
    decide_time: datetime
    action: Action
    price_micros: int
    context_json: str
    outcomes: tuple[tuple[str, datetime], ...]
    """Type and time, by time; what machines did is left out."""
    cost_micros: int | None
    """What it really cost, as reported; None: nobody said."""

    def first(self, *types: str) -> datetime | None:
        """Return when something of these types was first reported."""
        return next((moment for kind, moment in self.outcomes if kind in types), None)

    @property
    def context(self) -> Context:
        return context_from_json(self.context_json)


@dataclass(frozen=True, slots=True, kw_only=True)
class LoggedMessage:
    """A message from its first decision on."""

    request_id: str
    customer_key: str
    bundle_version: str
    context: Context
    """Of the first decision."""
    steps: tuple[LoggedStep, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplayLog:
    """The messages of a log that were first decided from `since` on and before `until`, and whose window is closed.

    A decision to defer is left out: its caller asked again, and that one is in the log.
    """

    url: str
    name: str
    bounds: dict[str, int]
    ids: frozenset[str]
    orders: dict[str, tuple[datetime, ...]]
    """Of customers by their key, from `since` on, by time."""
    window: timedelta

    def __len__(self) -> int:
        return len(self.ids)

    def messages(self) -> Iterator[LoggedMessage]:
        """Yield the messages by the time of their first decision, a chunk in memory at a time."""
        with asking(self.url) as connection:
            rows = connection.execution_options(yield_per=_CHUNK).execute(text(_FIRSTS), self.bounds)
            while chunk := [tuple(row) for row in itertools.islice(rows, _CHUNK)]:
                yield from _with_steps(connection, chunk)


def open_replay_log(
    url: str, window: timedelta, since: datetime | None, until: datetime | None, as_of: datetime | None
) -> ReplayLog:
    """Look a log up.

    Raises
    ------
    LogUnusable: it holds no message of that time whose window is closed.
    """
    name = find_log(url)
    with asking(url) as connection:
        newest, bounds = limits(connection, name, window, until, as_of)
        bounds = {key: bounds[key] for key in ("window", "as_of", "until")}
        bounds["since"] = 0 if since is None else to_micros(since)
        ids = frozenset(str(row[0]) for row in connection.execute(text(_IDS), bounds))
        if not ids:
            raise LogUnusable(
                f"no live decision of {name} from --from to --to has its window of {window} closed; its newest entry is of "
                f"{from_micros(newest):%Y-%m-%d %H:%M} UTC; name another time, a shorter --window-hours, or --as-of"
            )
        orders: dict[str, list[datetime]] = {}
        for key, moment in connection.execute(text(_ORDERS), {"since": bounds["since"]}):
            orders.setdefault(str(key), []).append(from_micros(int(moment)))
    return ReplayLog(
        url=url,
        name=name,
        bounds=bounds,
        ids=ids,
        orders={key: tuple(found) for key, found in orders.items()},
        window=window,
    )


def _with_steps(connection: Connection, rows: Sequence[tuple[object, ...]]) -> Iterator[LoggedMessage]:
    ids = [str(row[0]) for row in rows]
    outcomes: dict[tuple[str, int], list[tuple[str, datetime]]] = {}
    costs: dict[tuple[str, int], int] = {}
    for decision_id, step, kind, moment, cost in connection.execute(_OUTCOMES, {"ids": ids}):
        outcomes.setdefault((str(decision_id), int(step)), []).append((str(kind), from_micros(int(moment))))
        if cost is not None:
            costs[str(decision_id), int(step)] = int(cost)
    steps: dict[str, list[LoggedStep]] = {}
    for decision_id, step, moment, channel, send_time, price, context in connection.execute(_STEPS, {"ids": ids}):
        name, number = str(decision_id), int(step)
        is_send = channel != NO_SEND and send_time is not None
        action = (
            Action(channel=str(channel), send_time=from_micros(int(send_time))) if is_send else Action(channel=NO_SEND)
        )
        steps.setdefault(name, []).append(
            LoggedStep(
                step=number,
                decide_time=from_micros(int(moment)),
                action=action,
                price_micros=int(price),
                context_json=str(context),
                outcomes=tuple(outcomes.get((name, number), ())),
                cost_micros=costs.get((name, number)),
            )
        )
    for decision_id, request_id, key, bundle, context in rows:
        yield LoggedMessage(
            request_id=str(request_id),
            customer_key=str(key),
            bundle_version=str(bundle),
            context=read_context(decision_id, 1, str(context)),
            steps=tuple(steps[str(decision_id)]),
        )
