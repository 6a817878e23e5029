"""The command `plan`: what to send of a whole campaign within a budget, before anything is sent.

Every (customer, message) is scored by the production decision code. Its actions that may be best at some price of money are the corners of the concave hull of (cost, value).
For a shadow price l each message takes the corner of greatest value - l cost, so that the messages part: the dual

    D(l) = l B + sum over messages of max over actions of (value - l cost)

is an upper bound of what any plan within the budget B can earn, and least at the l that bisection finds, over partitions that need not fit into memory
together. Messages that are indifferent at that price are then upgraded one after another as long as money is left. What is told is the
value of the plan and the bound; the linear programme's optimum lies between them.

Source: Everett (1963), "Generalized Lagrange Multiplier Method for Solving Problems of Optimum Allocation of Resources"; hulls as in Sinha & Zoltners (1979), "The
Multiple-Choice Knapsack Problem".
"""

import argparse
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from tqdm import tqdm

from models.bundle import load_bundle
from models.context import Constraints, Context
from models.decide import Evaluation, evaluate
from models.errors import LogUnusable
from models.features import NO_SEND
from models.record import from_micros, to_micros
from models.rules import Rules, read_rules
from service.store.rows import new_decision_id
from training.boosting import open_cluster
from training.journal import customer_hash, customer_key
from training.logs.check import BatchChecker, check_columns
from training.logs.history import context_of, customer_of
from training.logs.mistakes import Mistakes, Places
from training.logs.schema import REQUESTS

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
T = TypeVar("T")
S = TypeVar("S")
PARTITION = 20_000
"""Messages that are scored and kept together."""
_STEPS = 60
"""Halvings of the interval that holds the shadow price."""
_NO_KEY = bytes(32)


@dataclass(frozen=True, slots=True, kw_only=True)
class Hulls:
    """Actions of messages that may be best at some price, by message and rising cost; the first of each costs nothing, or is no send.

    Arrays have shape (n_actions,); money in units of the currency.
    """

    message: IntArray
    """Number of the message within its partition."""
    channel: NDArray[np.str_]
    send_time: IntArray
    """Microseconds since 1970, -1 for no send."""
    cost: FloatArray
    value: FloatArray
    """What the action is expected to earn, after its cost and harm."""

    def save(self, path: Path) -> None:
        """Write them down."""
        np.savez(
            path, message=self.message, channel=self.channel, send_time=self.send_time, cost=self.cost, value=self.value
        )


def load_hulls(path: Path) -> Hulls:
    """Read what `save` wrote."""
    with np.load(path) as found:
        return Hulls(**{name: found[name] for name in ("message", "channel", "send_time", "cost", "value")})


@dataclass(frozen=True, slots=True, kw_only=True)
class Planned:
    """What a plan comes to, in units of the currency."""

    messages: int
    sends: dict[str, int]
    """By channel; none: not to be sent."""
    spend: float
    value: float
    bound: float
    """The most that any plan within the budget could be worth."""
    shadow_price: float
    """Money that one more unit of the budget would earn, beside itself."""

    @property
    def gap(self) -> float:
        """How far the plan may be from the best, as a share of the bound."""
        return 0.0 if self.bound <= 0 else (self.bound - self.value) / self.bound


Mapper = Callable[[Callable[[T], S], Sequence[T]], Iterable[S]]


@contextmanager
def dask_engine(address: str) -> Iterator[Mapper[Any, Any]]:
    """Give what maps a function over partitions on a Dask cluster whose workers see the same files and have this code.

    Raises
    ------
    LogUnusable: there is no cluster at that address, or Dask is not installed.
    """
    with open_cluster(address) as client:
        yield lambda function, items: (future.result() for future in client.map(function, items, pure=False))


@contextmanager
def local_engine(workers: int) -> Iterator[Mapper[Any, Any]]:
    """Give what maps a function over partitions in this process, or in several."""
    if workers == 1:
        yield lambda function, items: map(function, items)
        return
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        yield lambda function, items: pool.map(function, items)


def hull(cost: FloatArray, value: FloatArray) -> IntArray:
    """Return the places of the actions on the upper concave hull of value over cost, by rising cost; shapes (n,).

    No send, of cost and value 0, belongs to the actions. An action that costs more and is worth no more is never on it.
    """
    kept: list[int] = []
    for place in np.lexsort((-value, cost)).tolist():
        if kept and value[place] <= value[kept[-1]]:
            continue
        while len(kept) > 1:
            a, b = kept[-2], kept[-1]
            if (value[b] - value[a]) * (cost[place] - cost[a]) > (value[place] - value[a]) * (cost[b] - cost[a]):
                break
            kept.pop()
        kept.append(place)
    return np.array(kept, dtype=np.int64)


def choose(hulls: Hulls, shadow_price: float) -> IntArray:
    """Return for each message the place of the action of greatest value - shadow price x cost; of equals the cheapest."""
    score = hulls.value - shadow_price * hulls.cost
    starts = np.flatnonzero(np.r_[True, hulls.message[1:] != hulls.message[:-1]])
    best = np.maximum.reduceat(score, starts)
    is_best = score == np.repeat(best, np.diff(np.r_[starts, len(score)]))
    places = np.where(is_best, np.arange(len(score)), len(score))
    return np.minimum.reduceat(places, starts)


def solve(paths: Sequence[Path], budget: float, engine: Mapper[Any, Any]) -> tuple[Planned, dict[Path, IntArray]]:
    """Return the plan of all partitions within a budget: what it comes to, and the chosen places by partition."""
    low, high = 0.0, 1.0

    def totals(price: float) -> tuple[float, float]:
        found = list(engine(partial(_totals, price=price), paths))
        return sum(spend for spend, _ in found), sum(value for _, value in found)

    spend, value = totals(0.0)
    if spend <= budget:
        chosen = dict(zip(paths, engine(partial(_choices, price=0.0), paths), strict=True))
        return _planned(paths, chosen, value, 0.0), chosen
    while totals(high)[0] > budget:
        low, high = high, 2 * high
    for _ in tqdm(range(_STEPS), desc="find the shadow price", unit=" halvings", disable=None):
        middle = (low + high) / 2
        if totals(middle)[0] > budget:
            low = middle
        else:
            high = middle
    spend, value = totals(high)
    bound = high * budget + value - high * spend
    chosen = dict(zip(paths, engine(partial(_choices, price=high), paths), strict=True))
    left = budget - spend
    for path in paths:
        chosen[path], used = _upgrade(load_hulls(path), chosen[path], low, left)
        left -= used
    return _planned(paths, chosen, bound, high), chosen


def _totals(path: Path, price: float) -> tuple[float, float]:
    hulls = load_hulls(path)
    places = choose(hulls, price)
    return float(hulls.cost[places].sum()), float(hulls.value[places].sum())


def _choices(path: Path, price: float) -> IntArray:
    return choose(load_hulls(path), price)


def _upgrade(hulls: Hulls, places: IntArray, price: float, left: float) -> tuple[IntArray, float]:
    """Take the next action of messages that pay at a slightly lower price, the most efficient first, as long as the money lasts."""
    following = np.minimum(places + 1, len(hulls.cost) - 1)
    has_next = (following > places) & (hulls.message[following] == hulls.message[places])
    extra = np.where(has_next, hulls.cost[following] - hulls.cost[places], np.inf)
    gain = np.where(has_next, hulls.value[following] - hulls.value[places], 0.0)
    efficiency = gain / extra
    used, places = 0.0, places.copy()
    for message in np.argsort(-efficiency, kind="stable"):
        if efficiency[message] < price * (1 - 1e-9) or efficiency[message] <= 0:
            break
        if used + extra[message] <= left:
            used += float(extra[message])
            places[message] += 1
    return places, used


def _planned(paths: Sequence[Path], chosen: dict[Path, IntArray], bound: float, price: float) -> Planned:
    sends: dict[str, int] = {}
    spend = value = 0.0
    messages = 0
    for path in paths:
        hulls, places = load_hulls(path), chosen[path]
        messages += len(places)
        spend += float(hulls.cost[places].sum())
        value += float(hulls.value[places].sum())
        names, counts = np.unique(hulls.channel[places], return_counts=True)
        for name, count in zip(names.tolist(), counts.tolist(), strict=True):
            sends[name] = sends.get(name, 0) + count
    return Planned(messages=messages, sends=sends, spend=spend, value=value, bound=bound, shadow_price=price)


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """One partition to be scored: its checked rows, by which rules and bundle, and where to keep what comes of it."""

    rows: Path
    rules: Path
    bundle: Path
    kept: Path


def score(task: Task) -> int:
    """Score the messages of a partition, keep their hulls, and return how many there are."""
    rules, bundle = read_rules(task.rules), load_bundle(task.bundle)
    parts = [_hull_of(_context(row, rules), rules, bundle) for row in pq.read_table(task.rows).to_pylist()]
    sizes = [len(part[0]) for part in parts]
    Hulls(
        message=np.repeat(np.arange(len(parts), dtype=np.int64), sizes),
        channel=np.concatenate([part[0] for part in parts]),
        send_time=np.concatenate([part[1] for part in parts]),
        cost=np.concatenate([part[2] for part in parts]),
        value=np.concatenate([part[3] for part in parts]),
    ).save(task.kept)
    return len(parts)


def _hull_of(context: Context, rules: Rules, bundle: Any) -> tuple[NDArray[np.str_], IntArray, FloatArray, FloatArray]:
    found = evaluate(context, rules, bundle)
    nothing = (np.array([NO_SEND]), np.array([-1], dtype=np.int64), np.zeros(1), np.zeros(1))
    if not isinstance(found, Evaluation) or found.cascades is None:
        return nothing
    table = found.distribution.table
    is_send = np.array([action.send_time is not None for action in table.actions])
    cost = np.r_[0.0, table.price_micros[is_send] / 1e6]
    value = np.r_[0.0, table.plan_micros[is_send] / 1e6]
    places = hull(cost, value)
    sends = [action for action in table.actions if action.send_time is not None]
    channels = np.array([NO_SEND, *(action.channel for action in sends)])
    times = np.array([-1, *(to_micros(action.send_time) for action in sends if action.send_time)], dtype=np.int64)
    return channels[places], times[places], cost[places], value[places]


def _context(row: dict[str, Any], rules: Rules) -> Context:
    """Return the context of a message that is not decided yet, of a customer of whom nothing but the row is known; it is one send."""
    decision_id = new_decision_id(from_micros(row["decide_time"]), row["request_id"])
    key = customer_key(customer_hash(_NO_KEY, row["customer_id"]))
    context = context_of(row, rules, customer_of(row, key, rules), decision_id)
    return replace(context, constraints=Constraints(max_steps=1))


def _split(source: Path, rules: Rules, scratch: Path) -> list[Path]:
    """Check a file of requests, a partition at a time, and write each in its form.

    Raises
    ------
    LogRefused: with every mistake by column and row. LogUnusable: it cannot be read, or has no rows.
    """
    mistakes, places, first = Mistakes(), Places(), 0
    places.begin(source.name, 0)
    parts: list[Path] = []
    try:
        with pq.ParquetFile(source) as file:
            form = check_columns(file.schema_arrow, REQUESTS, source.name, mistakes)
            checker = BatchChecker(schema=REQUESTS, form=form, rules=rules, places=places, mistakes=mistakes)
            for batch in file.iter_batches(batch_size=PARTITION):
                parts.append(scratch / f"rows-{first:012d}.parquet")
                pq.write_table(pa.Table.from_batches([checker.read(batch, first)]), parts[-1])
                first += len(batch)
    except (OSError, pa.ArrowException) as error:
        raise LogUnusable(f"{source} cannot be read as Parquet: {error}") from error
    mistakes.check(str(source.parent))
    if not first:
        raise LogUnusable(f"{source} has no rows; there is nothing to plan")
    return parts


def make_plan(
    source: Path,
    rules: Path,
    bundle: Path,
    budget: float,
    target: Path,
    engine: Mapper[Any, Any],
    scratch: Path,
    progress: Callable[[int], object] = lambda _: None,
) -> Planned:
    """Plan the messages of a Parquet file, and write the plan as another.

    Parameters
    ----------
    budget : in units of the currency, for all of them.
    scratch : a folder that every worker of the engine sees, as it sees the other files.

    Raises
    ------
    LogRefused, LogUnusable: see `_split`.
    """
    tasks = [
        Task(rows=rows, rules=rules, bundle=bundle, kept=rows.with_suffix(".npz"))
        for rows in _split(source, read_rules(rules), scratch)
    ]
    for count in engine(score, tasks):
        progress(count)
    paths = [task.kept for task in tasks]
    planned, chosen = solve(paths, budget, engine)
    schema = pa.schema(
        [
            ("request_id", pa.string()),
            ("customer_id", pa.string()),
            ("channel", pa.string()),
            ("send_time", pa.timestamp("us", tz="UTC")),
            ("price", pa.float64()),
            ("value", pa.float64()),
        ]
    )
    with pq.ParquetWriter(target, schema) as writer:
        for task in tasks:
            hulls, places = load_hulls(task.kept), chosen[task.kept]
            rows = pq.read_table(task.rows, columns=["request_id", "customer_id"])
            times = hulls.send_time[places]
            columns = [
                rows.column("request_id").combine_chunks(),
                rows.column("customer_id").combine_chunks(),
                pa.array(hulls.channel[places].tolist()),
                pa.array(times, mask=times < 0).cast(pa.timestamp("us", tz="UTC")),
                pa.array(hulls.cost[places]),
                pa.array(hulls.value[places]),
            ]
            writer.write_table(pa.Table.from_arrays(columns, schema=schema))
    return planned


def plan_command(options: argparse.Namespace) -> str:
    """Plan as the options say, and return what to say."""
    with (
        tempfile.TemporaryDirectory(prefix="plan-", dir=options.scratch) as scratch,
        dask_engine(options.cluster or "") if options.engine == "dask" else local_engine(options.workers) as engine,
        tqdm(desc="score", unit=" messages", disable=None) as bar,
    ):
        planned = make_plan(
            options.requests,
            options.rules,
            options.bundle,
            options.budget,
            options.to,
            engine,
            Path(scratch),
            bar.update,
        )
    currency = read_rules(options.rules).currency
    sends = ", ".join(f"{name} {count:,}" for name, count in sorted(planned.sends.items(), key=lambda item: -item[1]))
    return "\n".join(
        [
            f"  messages      {planned.messages:,}: {sends}",
            f"  spend         {planned.spend:,.2f} of {options.budget:,.2f} {currency}",
            f"  value         {planned.value:,.2f} {currency} expected, at most {planned.gap:.3%} below the best plan within the budget",
            f"  shadow price  {planned.shadow_price:.4f}: what one more {currency} would earn beside itself",
            f"plan {options.to}",
        ]
    )
