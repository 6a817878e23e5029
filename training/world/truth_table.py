"""What each logged decision was exactly worth, and what would have been best then: one row for each decision, as Parquet.

A row joins the log by `decision_id` and `step`. Chances and money are expectations over everything that was not known when the step was
decided, given the sends of the message until then and that nothing had come of them; money is in roubles. What is best keeps the
rules as they bound that decision, and looks at this message alone.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from training.world.clock import to_hour, to_time
from training.world.oracle import Candidates, Plan, Plans, best_plan, enumerate_plans, find_candidates
from training.world.people import CHANNELS
from training.world.protocol import Step
from training.world.run import MAX_STEPS, World
from training.world.truth import OWN_STEP_TIREDNESS, Case, Happened, Send, condition, tiredness

_ROWS = 1000
_MOMENT = pa.timestamp("us", tz="UTC")


@dataclass(frozen=True, slots=True, kw_only=True)
class TruthRow:
    """A logged decision and its truth; the schema says what each field means."""

    decision_id: str
    step: int
    decide_time: datetime
    channel: str
    send_time: datetime | None
    propensity: float
    delivered: float
    seen: float
    clicked: float
    unsubscribed: float
    ordered_anyway: float
    caused_orders: float
    caused_margin: float
    spend: float
    harm: float
    net: float
    single_net: float
    single_channel: str
    single_send_time: datetime | None
    cascade_net: float
    cascade_channels: list[str]
    cascade_send_times: list[datetime]


def _column(name: str, kind: Any, meaning: str) -> Any:
    return pa.field(name, kind, metadata={"meaning": meaning})


TRUTH_SCHEMA = pa.schema(
    [
        _column("decision_id", pa.string(), "decision, as in the log"),
        _column("step", pa.int32(), "step of its cascade, from 1"),
        _column("decide_time", _MOMENT, "when it was decided"),
        _column("channel", pa.string(), "logged channel, none for no send"),
        _column("send_time", _MOMENT, "logged time of sending; null for no send"),
        _column("propensity", pa.float64(), "probability of the logged action under the logging policy"),
        _column("delivered", pa.float64(), "P(delivered) of the logged send"),
        _column("seen", pa.float64(), "P(seen before anything ends the message) of the logged send"),
        _column("clicked", pa.float64(), "P(clicked) of the logged send"),
        _column("unsubscribed", pa.float64(), "P(unsubscribed) of the logged send"),
        _column(
            "ordered_anyway", pa.float64(), "P(order that lies ahead without any further message), this message's alone"
        ),
        _column("caused_orders", pa.float64(), "orders that the logged action causes: uplift of the chance to order"),
        _column("caused_margin", pa.float64(), "margin that it causes"),
        _column("spend", pa.float64(), "what it costs"),
        _column("harm", pa.float64(), "harm that it does"),
        _column("net", pa.float64(), "caused_margin less spend and harm; 0 for no send"),
        _column("single_net", pa.float64(), "net of the best single send; 0 where none is worth more than no send"),
        _column("single_channel", pa.string(), "channel of the best single send, none for no send"),
        _column("single_send_time", _MOMENT, "its time; null for no send"),
        _column("cascade_net", pa.float64(), "net of the best cascade of as many steps as are left"),
        _column("cascade_channels", pa.list_(pa.string()), "its channels, in order; empty for no send"),
        _column("cascade_send_times", pa.list_(_MOMENT), "its times, each unless something ended it before"),
    ]
)
"""Columns of the file, in order; chances in [0, 1], money in roubles. The metadata of a field says what it means."""


def truth_row(world: World, step: Step) -> TruthRow:
    """Return the truth of a decision."""
    context, reply = step.context, step.reply
    case = world.truth.case(world.index_of(context.decision_id))
    now = to_hour(context.decide_time)
    candidates = find_candidates(context, world.rules)
    left = MAX_STEPS - len(step.history)
    plans = enumerate_plans(world.truth, case, candidates, left, history=step.history, now=now)
    single = _best_single(plans, candidates)
    cascade = best_plan(plans, candidates, context, world.rules)
    delivered, seen, clicked, unsubscribed = _stages(world, case, step, now)
    return TruthRow(
        decision_id=context.decision_id,
        step=context.step,
        decide_time=context.decide_time,
        channel=reply.action.channel,
        send_time=reply.action.send_time,
        propensity=reply.propensity,
        delivered=delivered,
        seen=seen,
        clicked=clicked,
        unsubscribed=unsubscribed,
        ordered_anyway=_ordered_anyway(world, case, step.history, now),
        caused_orders=step.gain.caused_orders,
        caused_margin=step.gain.caused_margin,
        spend=step.gain.spend,
        harm=step.gain.harm,
        net=step.gain.net,
        single_net=single.net(),
        single_channel=CHANNELS[single.sends[0].channel] if single.sends else "none",
        single_send_time=to_time(single.sends[0].hour) if single.sends else None,
        cascade_net=cascade.net(),
        cascade_channels=[CHANNELS[send.channel] for send in cascade.sends],
        cascade_send_times=[to_time(send.hour) for send in cascade.sends],
    )


def _best_single(plans: Plans, candidates: Candidates) -> Plan:
    net = np.where(plans.steps[:, 1] < 0, plans.gross - plans.spend, -np.inf)
    row = int(net.argmax())
    if plans.steps[row, 0] < 0:
        return Plan()
    send = candidates.send(int(plans.steps[row, 0]), 1)
    return Plan(sends=(send,), gross=float(plans.gross[row]), spend=float(plans.spend[row]))


def _ordered_anyway(world: World, case: Case, history: Sequence[Happened], now: int) -> float:
    curves = world.truth.curves_of(case, [past.send for past in history]) if history else None
    weight = case.prior if curves is None else condition(case, curves, history, now)[0]
    passed = 1 - case.not_yet_organic[:, min(now - case.arrive, case.lifetime)]
    return float(weight @ (case.organic - passed))


def _stages(world: World, case: Case, step: Step, now: int) -> tuple[float, float, float, float]:
    """Return P(delivered), P(seen), P(clicked) and P(unsubscribed) of the logged send, zeros for none."""
    action = step.reply.action
    if action.send_time is None:
        return 0.0, 0.0, 0.0, 0.0
    hour = max(to_hour(action.send_time), now)
    others = [c for c in step.context.customer.contacts if c.decision_id != step.context.decision_id]
    booked = np.array([float(to_hour(c.start)) for c in others])
    tired = float(tiredness(booked, np.array([float(hour)]))[0]) + OWN_STEP_TIREDNESS * len(step.history)
    send = Send(channel=CHANNELS.index(action.channel), hour=hour, tiredness=tired, price=0.0)
    curves = world.truth.curves_of(case, [*(past.send for past in step.history), send])
    weight, noticed = condition(case, curves, step.history, now)
    reaction = noticed * (curves.q + curves.r)
    alive = case.not_yet_organic[:, : case.lifetime] * np.prod(1 - np.cumsum(reaction[:-1], axis=2), axis=0)
    seen = weight[:, None] * noticed[-1] * alive
    return (
        float(curves.delivered[-1]),
        float(seen.sum()),
        float((seen * curves.q[-1]).sum()),
        float((seen * curves.r[-1]).sum()),
    )


class TruthFile:
    """A Parquet file of truth rows, written as they come; a context manager."""

    def __init__(self, path: Path) -> None:
        self._writer = pq.ParquetWriter(path, TRUTH_SCHEMA)
        self._rows: list[TruthRow] = []

    def add(self, row: TruthRow) -> None:
        self._rows.append(row)
        if len(self._rows) >= _ROWS:
            self._flush()

    def _flush(self) -> None:
        if self._rows:
            self._writer.write_table(pa.Table.from_pylist([asdict(row) for row in self._rows], schema=TRUTH_SCHEMA))
            self._rows = []

    def __enter__(self) -> "TruthFile":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._flush()
        self._writer.close()
