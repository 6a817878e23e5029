"""The commands that make logs: import, export, simulate."""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from models.errors import InvalidInput, LogUnusable, Violation
from models.rules import read_rules
from training.options import DEFAULT_RULES, LOG, Command, number, share

if TYPE_CHECKING:
    from service.store.store import Store


def add_commands(command: Command) -> None:
    """Add them to the parser of `python -m training`."""
    imported = command("import", _import, "turn an outside log into a decision log")
    imported.add_argument(
        "--log",
        required=True,
        choices=["parquet", "starbucks", "hillstrom"],
        help="which log; parquet: anybody's, in the schema of docs/importing.md",
    )
    imported.add_argument("--data", required=True, type=Path, help="folder that holds its Parquet files")
    imported.add_argument("--to", default=LOG, metavar="URL", help=f"decision log to append to (default: {LOG})")
    imported.add_argument(
        "--rules", type=Path, help="with parquet: rules file that has its channels (default: the service's)"
    )
    imported.add_argument("--check", action="store_true", help="say what is wrong with the files, and write nothing")

    exported = command("export", _export, "write a decision log as Parquet files that import --log parquet reads")
    exported.add_argument("--log", default=LOG, metavar="URL", help=f"decision log (default: {LOG})")
    exported.add_argument("--to", required=True, type=Path, metavar="FOLDER", help="folder for the files")

    simulated = command("simulate", _simulate, "make a decision log in a built-in world")
    simulated.add_argument("--to", default=LOG, metavar="URL", help=f"decision log to append to (default: {LOG})")
    simulated.add_argument(
        "--world",
        choices=["retailer", "starter"],
        default="retailer",
        help="retailer: training/world, with known truth and rules of its own (default); starter: a small one under any rules",
    )
    simulated.add_argument("--decisions", type=number(int, 1), default=20_000, help="messages (default: 20000)")
    simulated.add_argument("--seed", type=number(int, 0), default=0)
    retailer = simulated.add_argument_group("the retailer")
    retailer.add_argument("--customers", type=number(int, 100), default=6000, help="how many (default: 6000)")
    retailer.add_argument(
        "--scenario", default="stationary", help="what happens to it after a third of the log (default: stationary)"
    )
    retailer.add_argument(
        "--steps", type=int, choices=[1, 2, 3], default=1, help="most steps of the logging policy (default: 1)"
    )
    retailer.add_argument(
        "--owed-share",
        type=share(1.0),
        default=0.0,
        metavar="SHARE",
        help="of messages that are service or transactional (default: 0)",
    )
    retailer.add_argument(
        "--return-share",
        type=share(0.45),
        default=0.0,
        metavar="SHARE",
        help="of orders that come back 5 to 14 days later, at most 0.45 (default: 0)",
    )
    retailer.add_argument(
        "--burst-share",
        type=share(0.9),
        default=0.0,
        metavar="SHARE",
        help="of messages that come in the same hour as another one to the same customer, at most 0.9 (default: 0)",
    )
    retailer.add_argument(
        "--truth",
        type=Path,
        metavar="FILE.parquet",
        help="also write what each decision was exactly worth, and what would have been best",
    )
    starter_world = simulated.add_argument_group("the starter world")
    starter_world.add_argument("--rules", type=Path, help="rules file (default: the service's own)")


def _import(options: argparse.Namespace) -> None:
    if options.log == "parquet":
        _import_parquet(options)
        return
    if options.rules is not None:
        raise LogUnusable(f"--rules belongs to --log parquet; the {options.log} log has rules of its own")
    from tqdm import tqdm

    from service.store.identity import load_keys
    from service.store.store import Store
    from service.store.url import parse_url
    from training.journal import customer_hash, write_log
    from training.logs import hillstrom, starbucks

    parse_url(options.to)
    if options.log == "starbucks":
        waves = starbucks.read_waves(options.data)
        total = sum(map(len, waves))
        ids = [str(customer) for customer in waves[0].customer_id]
    else:
        rows = hillstrom.read_rows(options.data)
        total = len(rows)
        ids = [str(row["customer_id"]) for row in rows]
    if options.check:
        print(f"{options.data}: {total} decisions; nothing to mend, nothing written")
        return
    store = Store(options.to)
    try:
        key = load_keys(store, options.to).current
        with tqdm(total=total, desc="import", unit=" decisions", disable=None) as bar:
            decisions = (
                starbucks.logged_decisions(waves, key, bar.update)
                if options.log == "starbucks"
                else hillstrom.logged_decisions(rows, key, bar.update)
            )
            written = write_log(store, decisions, [customer_hash(key, i) for i in ids])
    finally:
        store.close()
    print(f"{written} decisions written to {options.to}, {total - written} were there before")


def _import_parquet(options: argparse.Namespace) -> None:
    from tqdm import tqdm

    from service.store.identity import load_keys
    from service.store.store import Store
    from service.store.url import folder_beside
    from training.logs.history import write_checked
    from training.logs.shards import open_log

    rules = read_rules(options.rules or DEFAULT_RULES)
    scratch = None if options.check else folder_beside(options.to)
    with (
        tqdm(desc="check", unit=" rows", disable=None) as bar,
        open_log(options.data, rules, bar.update, scratch) as log,
    ):
        bar.close()
        for note in log.notes:
            print(f"note: {note}")
        said = f"{log.decisions} decisions of {log.customers} customers, {log.outcomes} outcomes, {log.visits} visits"
        if options.check:
            print(f"{options.data}: {said}; nothing to mend, nothing written")
            return
        store = Store(options.to)
        try:
            key = load_keys(store, options.to).current
            with tqdm(total=log.decisions, desc="import", unit=" decisions", disable=None) as bar:
                written = write_checked(store, log, rules, key, bar.update)
        finally:
            store.close()
        print(f"{said}")
        print(f"{written} decisions written to {options.to}, {log.decisions - written} were there before")


def _export(options: argparse.Namespace) -> None:
    from tqdm import tqdm

    from training.export import export_log

    with tqdm(desc="export", unit=" rows", disable=None) as bar:
        counts = export_log(options.log, options.to, bar.update)
    for file, count in counts.items():
        print(f"{options.to / file}: {count} rows")


def _simulate(options: argparse.Namespace) -> None:
    from tqdm import tqdm

    from service.store.identity import load_keys
    from service.store.store import Store

    _check_simulated(options)
    make = _retailer_log if options.world == "retailer" else _starter_log
    store = Store(options.to)
    try:
        key = load_keys(store, options.to).current
        with tqdm(total=options.decisions, desc="simulate", unit=" decisions", disable=None) as bar:
            made = make(options, store, key, bar.update)
    finally:
        store.close()
    print(made)


def _check_simulated(options: argparse.Namespace) -> None:
    """Check options that depend on each other, before any file is made.

    Raises
    ------
    InvalidInput: one of them does not go with the world, or names no scenario or folder that there is.
    """
    from training.world.scenarios import SCENARIOS, make_scenario

    found: list[Violation] = []
    if options.world == "retailer":
        logged = [name for name in SCENARIOS if make_scenario(name, 0).has_log]
        if options.scenario not in logged:
            found.append(Violation(field="--scenario", description=f"must be one of {', '.join(logged)}"))
        if options.rules is not None:
            found.append(
                Violation(field="--rules", description="the retailer has rules of its own; use --world starter")
            )
        if options.truth is not None and not options.truth.parent.is_dir():
            found.append(Violation(field="--truth", description=f"there is no folder {options.truth.parent}"))
    elif options.truth is not None:
        found.append(Violation(field="--truth", description="only the retailer's truth is known; use --world retailer"))
    if found:
        raise InvalidInput(found, "simulate")


def _retailer_log(options: argparse.Namespace, store: "Store", key: bytes, progress: Callable[[int], object]) -> str:
    from training.world.make_log import LogPlan, make_log, summary

    plan = LogPlan(
        customers=options.customers,
        decisions=options.decisions,
        seed=options.seed,
        scenario=options.scenario,
        steps=options.steps,
        owed_share=options.owed_share,
        return_share=options.return_share,
        burst_share=options.burst_share,
    )
    made = make_log(plan, store, key, options.truth, progress)
    told = f"{made.written} decisions written to {options.to}\n{summary(made)}"
    return told if options.truth is None else f"{told}\n  truth      {options.truth}"


def _starter_log(options: argparse.Namespace, store: "Store", key: bytes, progress: Callable[[int], object]) -> str:
    from training.journal import write_log
    from training.simulate import simulate_log

    rules = read_rules(options.rules or DEFAULT_RULES)
    identities, decisions = simulate_log(options.decisions, rules, key, options.seed, progress)
    return f"{write_log(store, decisions, identities)} decisions written to {options.to}"
