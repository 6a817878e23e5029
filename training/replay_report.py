"""`python -m training replay`: what policies would have done, earned and cost in a period, as a table, with the off-policy estimates beside."""

import argparse
import contextlib
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from models.bundle import Bundle
from models.errors import LogUnusable
from models.record import from_micros
from models.rules import Rules, read_rules
from service.store.identity import load_keys
from service.store.store import Store
from training.dataset import name_log
from training.evaluate import NOT_ENOUGH, Verdict, evaluate_policies
from training.judging import find_bundle, find_targets, open_registry, show_bar
from training.off_policy import Estimate
from training.registry import Report, reach
from training.replay import Replayed, replay, totals_by_customer
from training.replay_log import ReplayLog, open_replay_log
from training.targets import Target

FloatArray = NDArray[np.float64]
_PER = 1000
_DRAWS = 1000
_LEVEL = 0.95
FIGURES = ("net", "margin", "cost", "unsubscribes")
METHOD = (
    "a simulation: budgets and caps couple customers; steps other than those logged are drawn from the response model {response}, "
    "and intervals draw customers anew, which holds neither an error of that model nor the coupling"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """A figure for each message, with its 95 % interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Replays:
    """Several policies replayed on one log. Owed messages are in no figure but `owed`."""

    found: tuple[Replayed, ...]
    figures: tuple[dict[str, Interval], ...]
    """Of each policy; also "net over NAME" against the first."""
    off_policy: tuple[Verdict | None, ...]
    """Of each policy; None where the log cannot judge any."""
    problem: str
    """Why the log cannot judge policies; empty where it can, or was not asked to."""
    messages: int
    customers: int
    owed: int


def summarise(
    found: Sequence[Replayed],
    harm: float,
    rng: np.random.Generator,
    off_policy: Sequence[Verdict | None],
    problem: str = "",
) -> Replays:
    """Put figures and intervals together; `harm` is what an unsubscribe costs. All are by one drawing of customers, so that differences are of the same ones."""
    first = found[0]
    counted = ~first.is_owed
    if not counted.any():
        raise LogUnusable("every message of that time is owed to its customer; there is nothing to choose by value")
    customer = np.unique(first.customer[counted], return_inverse=True)[1]
    columns = [_columns(one, harm, counted) for one in found]
    sums = totals_by_customer([np.ones(int(counted.sum())), *(c for mine in columns for c in mine)], customer)
    drawn = _draw_customers(sums, rng)
    size, figures = len(FIGURES), []
    for number in range(len(found)):
        mine = slice(1 + number * size, 1 + (number + 1) * size)
        figures.append(dict(zip(FIGURES, _intervals(sums[mine], drawn[:, mine], sums[0], drawn[:, 0]), strict=True)))
        if number:
            over, drawn_over = sums[mine.start] - sums[1], drawn[:, mine.start] - drawn[:, 1]
            (figures[-1]["net over"],) = _intervals(over[None, :], drawn_over[:, None], sums[0], drawn[:, 0])
    return Replays(
        found=tuple(found),
        figures=tuple(figures),
        off_policy=tuple(off_policy),
        problem=problem,
        messages=int(counted.sum()),
        customers=int(customer.max()) + 1,
        owed=int((~counted).sum()),
    )


def _columns(one: Replayed, harm: float, counted: NDArray[np.bool_]) -> list[FloatArray]:
    net = one.margin - one.cost - harm * one.unsubscribes
    return [column[counted] for column in (net, one.margin, one.cost, one.unsubscribes)]


def _draw_customers(sums: FloatArray, rng: np.random.Generator) -> FloatArray:
    """Return the sums over customers drawn anew, shape (draws, figures)."""
    count = sums.shape[1]
    even = np.full(count, 1 / count)
    return np.array([sums @ rng.multinomial(count, even) for _ in range(_DRAWS)])


def _intervals(sums: FloatArray, drawn: FloatArray, messages: FloatArray, drawn_messages: FloatArray) -> list[Interval]:
    means = drawn / drawn_messages[:, None]
    low, high = np.quantile(means, [(1 - _LEVEL) / 2, (1 + _LEVEL) / 2], axis=0)
    values = sums.sum(axis=1) / messages.sum()
    return [Interval(value=float(v), low=float(a), high=float(b)) for v, a, b in zip(values, low, high, strict=True)]


def table(replays: Replays, log: ReplayLog, currency: str, response: str) -> str:
    """Return what was found as text."""
    since = from_micros(max(log.bounds["since"], 0))
    times = f"before {from_micros(log.bounds['until']):%Y-%m-%d %H:%M} UTC"
    times = times if log.bounds["since"] == 0 else f"from {since:%Y-%m-%d %H:%M} and {times}"
    lines = [
        f"{replays.messages:,} messages of {replays.customers:,} customers, first decided {times}",
        METHOD.format(response=response),
        f"increment over no send, {currency} per {_PER} messages, with 95 % intervals",
        "",
        "| policy | net value | margin caused | cost | unsubscribes | net over the first | off-policy net value |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    for one, figures, verdict in zip(replays.found, replays.figures, replays.off_policy, strict=True):
        over = figures.get("net over")
        cells = [
            _figure(figures["net"], ",.0f"),
            _figure(figures["margin"], ",.0f"),
            _figure(figures["cost"], ",.0f"),
            _figure(figures["unsubscribes"], ".2f"),
            "" if over is None else _figure(over, ",.0f"),
            _off_policy(verdict, replays.problem),
        ]
        lines.append(f"| {one.policy} | {' | '.join(cells)} |")
    channels = sorted({channel for one in replays.found for channel in one.sends})
    lines += ["", f"messages sent by channel, per {_PER}, and their cost", ""]
    lines += [f"| policy | {' | '.join(channels)} | steps as logged |", "|---|" + "---:|" * (len(channels) + 1)]
    for one in replays.found:
        counted = ~one.is_owed
        cells = []
        for channel in channels:
            sent = one.sends.get(channel)
            if sent is None:
                cells.append("0")
                continue
            cost = _PER * float(one.costs[channel][counted].mean())
            cells.append(f"{_PER * float(sent[counted].mean()):,.0f}" + (f" ({cost:,.0f})" if cost else ""))
        cells.append(f"{one.steps_as_logged / max(one.steps, 1):.0%} of {one.steps:,}")
        lines.append(f"| {one.policy} | {' | '.join(cells)} |")
    if replays.owed:
        lines += ["", f"{replays.owed:,} messages owed to their customers were sent beside, and are in no figure"]
    lines += ["", *_notes(replays)]
    return "\n".join(lines).rstrip()


def _figure(found: Interval, form: str) -> str:
    return f"{_PER * found.value:{form}} ({_PER * found.low:{form}} to {_PER * found.high:{form}})"


def _off_policy(verdict: Verdict | None, problem: str) -> str:
    if verdict is None:
        return "not judged" if problem else ""
    if verdict.increment is None:
        return NOT_ENOUGH
    return _estimate(verdict.increment.net)


def _estimate(found: Estimate) -> str:
    low, high = found.interval()
    return _figure(Interval(value=found.value, low=low, high=high), ",.0f")


def _notes(replays: Replays) -> list[str]:
    """Say what the off-policy estimate is, and why there is none."""
    if replays.problem:
        return [f"off-policy: not judged: {replays.problem}"]
    if all(verdict is None for verdict in replays.off_policy):
        return []
    notes = [
        "off-policy: what the log's own randomisation says of the same policy in the contexts as logged, without coupling (python -m training evaluate)"
    ]
    for verdict in replays.off_policy:
        if verdict is not None:
            notes += [f"off-policy: {verdict.policy}: {NOT_ENOUGH}: {problem}" for problem in verdict.problems]
    return notes


def metrics_of(replays: Replays) -> dict[str, float]:
    """Return every figure by a name that MLflow takes; a policy's number is its place."""
    metrics: dict[str, float] = {"messages": replays.messages, "customers": replays.customers, "owed": replays.owed}
    for number, (one, figures, verdict) in enumerate(
        zip(replays.found, replays.figures, replays.off_policy, strict=True)
    ):
        prefix = f"policy{number}."
        for name, found in figures.items():
            key = prefix + name.replace(" ", "_")
            metrics |= {key: found.value, f"{key}.low": found.low, f"{key}.high": found.high}
        for channel, sent in one.sends.items():
            metrics[f"{prefix}sends.{channel}"] = float(sent[~one.is_owed].mean())
            metrics[f"{prefix}cost.{channel}"] = float(one.costs[channel][~one.is_owed].mean())
        metrics[f"{prefix}steps_as_logged"] = one.steps_as_logged / max(one.steps, 1)
        if verdict is not None and verdict.increment is not None:
            low, high = verdict.increment.net.interval()
            metrics |= {
                f"{prefix}off_policy.net": verdict.increment.net.value,
                f"{prefix}off_policy.net.low": low,
                f"{prefix}off_policy.net.high": high,
            }
    return metrics


def replay_command(options: argparse.Namespace) -> str:
    """Replay the policies that the options name, log a run, and return the table."""
    if not options.no_mlflow:
        reach(options.mlflow, options.experiment)
    rules = read_rules(options.rules)
    targets = find_targets(options, rules)
    response = _response(targets, options)
    window = timedelta(hours=options.window_hours)
    with _as_database(options.database, rules) as url:
        log = open_replay_log(url, window, options.since, options.until, options.as_of)
        found = []
        for target in targets:
            with tqdm(total=len(log), desc=f"replay {target.name}", unit=" messages", disable=None) as bar:
                found.append(replay(log, target, response, rules, options.seed, bar.update))
        verdicts, problem = _judge(url, targets, rules, window, options)
    replays = summarise(found, rules.harm.unsubscribe / 1e6, np.random.default_rng(options.seed), verdicts, problem)
    text = table(replays, replace(log, url=name_log(options.database)), rules.currency, response.version)
    if options.no_mlflow:
        return text
    names = {f"policy{number}": one.policy for number, one in enumerate(found)}
    report = Report(
        command="python -m training replay",
        note=text,
        parameters={
            **names,
            "log": name_log(options.database),
            "rules": rules.name,
            "response": response.version,
            "since": options.since,
            "until": options.until,
            "window_hours": options.window_hours,
            "seed": options.seed,
        },
        metrics=metrics_of(replays),
        tags={"figure": "simulation"},
        files={"replay.md": text},
    )
    run_id = open_registry(options, must_exist=False).keep_report("replay " + ", ".join(names.values()), report)
    return f"{text}\n\nrun {run_id} of {options.mlflow}"


def _response(targets: Sequence[Target], options: argparse.Namespace) -> Bundle:
    """Return the bundle that says what comes of steps that were not logged: the one named, else the first policy's that has one."""
    found = next((target.bundle for target in targets if target.bundle is not None), None)
    named = options.response or (options.bundle[0] if options.bundle and found is None else None)
    if named is not None:
        return find_bundle(named, options)
    if found is None:
        raise LogUnusable(
            "no bundle says what would come of other sends; name one with --response or --bundle, a folder or models:/NAME@champion"
        )
    return found


def _judge(
    url: str, targets: Sequence[Target], rules: Rules, window: timedelta, options: argparse.Namespace
) -> tuple[list[Verdict | None], str]:
    """Return the off-policy estimates of the same decisions, or why there are none; the logging policy needs none."""
    nobody: list[Verdict | None] = [None] * len(targets)
    others = [target for target in targets if target.rules is not None]
    if options.no_off_policy or not others:
        return nobody, ""
    try:
        with show_bar("judge") as bar:
            found = evaluate_policies(
                url,
                others,
                rules,
                window,
                since=options.since,
                until=options.until,
                as_of=options.as_of,
                folds=options.folds,
                seed=options.seed,
                most=options.most_decisions,
                say=bar.say,
                progress=bar.progress,
            )
    except LogUnusable as error:
        return nobody, str(error)
    by_name = {verdict.policy: verdict for verdict in found.verdicts}
    return [by_name.get(target.name) for target in targets], ""


@contextlib.contextmanager
def _as_database(log: str, rules: Rules) -> Iterator[str]:
    """Give the URL of a log; one in Parquet files is imported into a temporary file first."""
    if not Path(log).is_dir():
        yield log
        return
    from training.logs.history import write_checked
    from training.logs.shards import open_log

    with tempfile.TemporaryDirectory(prefix="replay-") as folder:
        url = f"sqlite:///{Path(folder) / 'log.db'}"
        with show_bar("import") as bar, open_log(Path(log), rules, bar.progress, Path(folder)) as checked:
            store = Store(url)
            try:
                write_checked(store, checked, rules, load_keys(store, url).current, lambda _: None)
            finally:
                store.close()
        yield url
