"""`python -m training`: logs in, bundles and verdicts out."""

import argparse
import sys
from collections.abc import Callable
from dataclasses import asdict, replace
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from models.errors import ChannelChoiceError, InvalidInput, LogUnusable, Violation
from models.rules import read_rules
from training.experiments.commands import add_commands
from training.options import DEFAULT_RULES, moment
from training.options import LOG as _LOG
from training.options import MLFLOW as _MLFLOW
from training.options import number as _number
from training.options import share as _share

if TYPE_CHECKING:
    from service.store.store import Store
    from training.dataset import Dataset
    from training.grow import Hyperparameters

_WINDOW_HOURS = 72


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m training", description="Learn from decision logs and prove it.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def command(name: str, run: Callable[[argparse.Namespace], None], text: str) -> argparse.ArgumentParser:
        added = commands.add_parser(name, help=text, description=text)
        added.set_defaults(run=run)
        return added

    imported = command("import", _import, "turn an outside log into a decision log")
    imported.add_argument(
        "--log",
        required=True,
        choices=["parquet", "starbucks", "hillstrom"],
        help="which log; parquet: anybody's, in the schema of docs/importing.md",
    )
    imported.add_argument("--data", required=True, type=Path, help="folder that holds its Parquet files")
    imported.add_argument("--to", default=_LOG, metavar="URL", help=f"decision log to append to (default: {_LOG})")
    imported.add_argument(
        "--rules", type=Path, help="with parquet: rules file that has its channels (default: the service's)"
    )
    imported.add_argument("--check", action="store_true", help="say what is wrong with the files, and write nothing")

    exported = command("export", _export, "write a decision log as Parquet files that import --log parquet reads")
    exported.add_argument("--log", default=_LOG, metavar="URL", help=f"decision log (default: {_LOG})")
    exported.add_argument("--to", required=True, type=Path, metavar="FOLDER", help="folder for the files")

    simulated = command("simulate", _simulate, "make a decision log in a built-in world")
    simulated.add_argument("--to", default=_LOG, metavar="URL", help=f"decision log to append to (default: {_LOG})")
    simulated.add_argument(
        "--world",
        choices=["retailer", "starter"],
        default="retailer",
        help="retailer: training/world, with known truth and rules of its own (default); starter: a small one under any rules",
    )
    simulated.add_argument("--decisions", type=_number(int, 1), default=20_000, help="messages (default: 20000)")
    simulated.add_argument("--seed", type=_number(int, 0), default=0)
    retailer = simulated.add_argument_group("the retailer")
    retailer.add_argument("--customers", type=_number(int, 100), default=6000, help="how many (default: 6000)")
    retailer.add_argument(
        "--scenario", default="stationary", help="what happens to it after a third of the log (default: stationary)"
    )
    retailer.add_argument(
        "--steps", type=int, choices=[1, 2, 3], default=1, help="most steps of the logging policy (default: 1)"
    )
    retailer.add_argument(
        "--owed-share",
        type=_share(1.0),
        default=0.0,
        metavar="SHARE",
        help="of messages that are service or transactional (default: 0)",
    )
    retailer.add_argument(
        "--return-share",
        type=_share(0.45),
        default=0.0,
        metavar="SHARE",
        help="of orders that come back 5 to 14 days later, at most 0.45 (default: 0)",
    )
    retailer.add_argument(
        "--burst-share",
        type=_share(0.9),
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

    train = command(
        "train", _train, "fit a response model on a decision log, as an MLflow run with a registered bundle"
    )
    train.add_argument("--log", metavar="URL", help=f"decision log (default: {_LOG})")
    train.add_argument("--data", type=Path, metavar="FOLDER", help="in place of a log: what `dataset` has written")
    train.add_argument(
        "--window-hours",
        type=_number(float, 0, is_included=False),
        help="an order counts within this after a decision (default: 72, or that of --data)",
    )
    train.add_argument("--until", type=moment, help="only decisions before this UTC time, such as 2026-11-01T00:00")
    train.add_argument(
        "--as-of", type=moment, help="UTC time until which the log is complete (default: its newest entry)"
    )
    train.add_argument("--exclude", nargs="*", default=[], metavar="FEATURE", help="features to leave out")
    _add_registry(train)
    train.add_argument(
        "--trees", type=_number(int, 1), default=600, help="most trees; early stopping takes fewer (default: 600)"
    )
    train.add_argument("--leaves", type=_number(int, 2), default=8, help="leaves of a tree (default: 8)")
    train.add_argument(
        "--tune-minutes",
        type=_number(float, 0, is_included=False),
        metavar="MINUTES",
        help="first look for better hyperparameters on the earlier part of the data, for so long (default: not at all)",
    )
    train.add_argument("--seed", type=_number(int, 0), default=0)
    _add_engine(train)

    _add_dataset(command)
    _add_evaluate(command)
    _add_replay(command)
    _add_gate(command)

    starter = command("starter", _starter, "make the starter bundle from a built-in simulated log")
    starter.add_argument("folder", type=Path, help="where to write it")
    starter.add_argument("--if-missing", action="store_true", help="do nothing where there is a bundle")
    starter.add_argument("--rules", type=Path, default=DEFAULT_RULES, help="rules file")

    on_a_real_log = command("evaluate-log", _evaluate_log, "import, train, promote, serve and judge on a real log")
    on_a_real_log.add_argument("--log", required=True, choices=["starbucks"], help="which log")
    on_a_real_log.add_argument("--data", required=True, type=Path, help="folder that holds its Parquet files")
    on_a_real_log.add_argument(
        "--social-price",
        nargs="+",
        type=_number(float, 0),
        default=[0.0, 2.0, 4.0],
        metavar="USD",
        help="prices (default: 0 2 4)",
    )
    on_a_real_log.add_argument(
        "--work", type=Path, default=Path("var/evaluate-starbucks"), help="folder for what is made"
    )
    on_a_real_log.add_argument("--seed", type=_number(int, 0), default=0)
    _add_plan(command)
    add_commands(command)
    return parser


Command = Callable[[str, Callable[[argparse.Namespace], None], str], argparse.ArgumentParser]


def _add_judging(parser: argparse.ArgumentParser) -> None:
    """Add what every command that judges by a log asks for."""
    parser.add_argument("--database", "--log", default=_LOG, metavar="URL", help=f"decision log (default: {_LOG})")
    parser.add_argument("--rules", type=Path, default=DEFAULT_RULES, help="rules file (default: the service's)")
    parser.add_argument(
        "--window-hours",
        type=_number(float, 0, is_included=False),
        default=72,
        help="an order counts within this after a decision (default: 72)",
    )
    parser.add_argument(
        "--as-of", type=moment, help="UTC time until which the log is complete (default: its newest entry)"
    )
    parser.add_argument(
        "--folds",
        type=_number(int, 2),
        default=3,
        help="parts of the customers that models are cross-fitted on (default: 3)",
    )
    parser.add_argument("--seed", type=_number(int, 0), default=0)
    _add_registry(parser)


def _add_registry(parser: argparse.ArgumentParser) -> None:
    """Add where runs and versions are kept."""
    parser.add_argument(
        "--mlflow", default=_MLFLOW, metavar="URI", help=f"tracking store and registry (default: {_MLFLOW})"
    )
    parser.add_argument("--experiment", default="channel-choice", help="MLflow experiment (default: channel-choice)")
    parser.add_argument(
        "--name", default="channel-choice", help="name of the registered model (default: channel-choice)"
    )


def _add_dataset(command: Command) -> None:
    dataset = command(
        "dataset", _dataset, "write training data as Parquet files with a digest and a description of every column"
    )
    dataset.add_argument("--log", default=_LOG, metavar="URL", help=f"decision log (default: {_LOG})")
    dataset.add_argument("--to", required=True, type=Path, metavar="FOLDER", help="folder for the files")
    dataset.add_argument(
        "--window-hours",
        type=_number(float, 0, is_included=False),
        default=_WINDOW_HOURS,
        help=f"an order counts within this after a decision (default: {_WINDOW_HOURS})",
    )
    dataset.add_argument("--until", type=moment, help="only decisions before this UTC time")
    dataset.add_argument(
        "--as-of", type=moment, help="UTC time until which the log is complete (default: its newest entry)"
    )


def _add_evaluate(command: Command) -> None:
    evaluate = command(
        "evaluate", _evaluate, "judge policies by a log: what they would add to no send, cost, and lose in unsubscribes"
    )
    _add_judging(evaluate)
    evaluate.add_argument(
        "--policy",
        nargs="+",
        default=["logged"],
        help="logged, the name of a policy (inverse_gap, greedy_floor, thompson, epsilon_greedy, greedy, rule_cascade, most_engaged), or a rules file (.toml); "
        "several are judged side by side (default: logged)",
    )
    evaluate.add_argument(
        "--bundle",
        nargs="+",
        default=[],
        help="folders of bundles, or models:/NAME@champion or models:/NAME/VERSION; each policy is judged with each",
    )
    evaluate.add_argument("--since", type=moment, help="judge by decisions from this UTC time on")
    evaluate.add_argument("--until", type=moment, help="only decisions before this UTC time")
    evaluate.add_argument("--no-mlflow", action="store_true", help="print only, without a run in MLflow")


def _add_replay(command: Command) -> None:
    replayed = command(
        "replay",
        _replay,
        "live through a period of a log again under other policies, by the code that decides in production: value, cost, messages by channel, unsubscribes",
    )
    _add_judging(replayed)
    replayed.add_argument(
        "--policy",
        nargs="+",
        required=True,
        help="logged, the name of a policy, a rules file (.toml), or a bundle (a folder, models:/NAME@ALIAS or models:/NAME/VERSION) that the rules' policy is to use",
    )
    replayed.add_argument(
        "--bundle", nargs="+", default=[], help="bundles that the policies choose by; each policy is replayed with each"
    )
    replayed.add_argument(
        "--response",
        metavar="BUNDLE",
        help="bundle that says what comes of steps that were not logged (default: the first that a policy chooses by)",
    )
    replayed.add_argument("--from", dest="since", type=moment, help="messages first decided from this UTC time on")
    replayed.add_argument("--to", dest="until", type=moment, help="and before this UTC time")
    replayed.add_argument(
        "--no-off-policy", action="store_true", help="leave the off-policy estimates out, which fit models on the log"
    )
    replayed.add_argument("--no-mlflow", action="store_true", help="print only, without a run in MLflow")


def _add_engine(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--engine", choices=["local", "dask"], default="local", help="this machine, or a Dask cluster (default: local)"
    )
    parser.add_argument("--cluster", metavar="ADDRESS", help="with dask: the scheduler, such as tcp://10.0.0.5:8786")


def _add_plan(command: Command) -> None:
    plan = command(
        "plan", _plan, "plan a whole campaign within a budget: who gets what, and what more money would earn"
    )
    plan.add_argument("--requests", required=True, type=Path, metavar="FILE", help="Parquet file, see docs/planning.md")
    plan.add_argument("--bundle", required=True, type=Path, metavar="FOLDER", help="bundle that says what is expected")
    plan.add_argument("--budget", required=True, type=_number(float, 0), help="in units of the rules' currency")
    plan.add_argument("--to", required=True, type=Path, metavar="FILE", help="Parquet file to write")
    plan.add_argument("--rules", type=Path, default=DEFAULT_RULES, help="rules file (default: the service's)")
    plan.add_argument("--workers", type=_number(int, 1), default=1, help="processes here (default: 1)")
    _add_engine(plan)
    plan.add_argument(
        "--scratch", type=Path, help="folder for partitions, which every worker sees (default: the system's)"
    )


def _plan(options: argparse.Namespace) -> None:
    from training.plan import plan_command

    print(plan_command(options))


def _add_gate(command: Command) -> None:
    promote = command(
        "promote",
        _promote,
        "point the alias champion at a version, if the log says that it earns more than the champion",
    )
    _add_judging(promote)
    promote.add_argument("--version", help="version (default: the newest)")
    promote.add_argument(
        "--margin",
        type=_number(float, 0),
        default=0.0,
        help="by how much a message its lower bound must be above the champion's estimate (default: 0)",
    )
    promote.add_argument(
        "--unseen",
        type=_number(int, 0),
        default=2000,
        help="decisions that it was not trained on, at least (default: 2000)",
    )
    promote.add_argument(
        "--calibration-error",
        type=_number(float, 0),
        default=0.02,
        help="the most that P(order) may be off (default: 0.02)",
    )
    promote.add_argument(
        "--unsubscribe-ratio",
        type=_number(float, 0),
        default=1.25,
        help="the most unsubscribes, of the champion's (default: 1.25)",
    )
    promote.add_argument(
        "--cost-ratio",
        type=_number(float, 0),
        default=1.5,
        help="the most that messages may cost, of the champion's (default: 1.5)",
    )
    promote.add_argument(
        "--milliseconds",
        type=_number(float, 0),
        default=20.0,
        help="the most that a decision may take, in the median (default: 20)",
    )
    promote.add_argument(
        "--force", metavar="REASON", help="promote whatever the checks say; the reason is kept with the version"
    )
    challenge = command(
        "challenge", _challenge, "point the alias challenger at a version, to decide in the shadow; no gate is asked"
    )
    _add_registry(challenge)
    challenge.add_argument("--version", help="version (default: the newest)")
    rollback = command("rollback", _rollback, "point the alias champion at the version that it pointed to before")
    _add_registry(rollback)


def _import(options: argparse.Namespace) -> None:
    if options.log == "parquet":
        _import_parquet(options)
        return
    if options.rules is not None:
        raise LogUnusable(f"--rules belongs to --log parquet; the {options.log} log has rules of its own")
    from tqdm import tqdm

    from service.store.engine import parse_url
    from service.store.identity import load_keys
    from service.store.store import Store
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

    from service.store.engine import folder_beside
    from service.store.identity import load_keys
    from service.store.store import Store
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


def _dataset(options: argparse.Namespace) -> None:
    from tqdm import tqdm

    from training.frames import DESCRIPTION, write_frames

    window = timedelta(hours=options.window_hours)
    with tqdm(desc="dataset", unit=" decisions", disable=None) as bar:
        found = write_frames(options.log, options.to, window, options.until, options.as_of, bar.update)
    print(f"{found.decisions} decisions, {found.closed} of them with a closed window, in {len(found.files)} files")
    print(f"{len(found.columns)} columns, described in {options.to / DESCRIPTION}")
    print(f"digest {found.digest}")
    print(f"next: python -m training train --data {options.to}")


def _training_data(options: argparse.Namespace) -> "tuple[Dataset, str]":
    """Return what to learn from, and what it is called.

    Raises
    ------
    InvalidInput: options that do not go together.
    """
    from training.dataset import read_dataset
    from training.frames import read_description, read_frames

    if options.data is None:
        log = options.log or _LOG
        window = timedelta(hours=options.window_hours or _WINDOW_HOURS)
        return read_dataset(log, window, options.until, options.exclude, options.as_of, with_early=True), log
    given = {"--log": options.log, "--window-hours": options.window_hours, "--as-of": options.as_of}
    found = [
        Violation(field=name, description="was settled when --data was written; leave it out")
        for name, value in given.items()
        if value is not None
    ]
    if found:
        raise InvalidInput(found, "train")
    return read_frames(options.data, options.until, options.exclude, with_early=True), read_description(
        options.data
    ).log


def _train(options: argparse.Namespace) -> None:
    from training.boosting import open_engine
    from training.doubts import find_doubts
    from training.fit import fit
    from training.grow import Hyperparameters
    from training.registry import MlflowRegistry

    data, name = _training_data(options)
    window = timedelta(hours=data.window_hours)
    for doubt in find_doubts(data):
        print(f"note: {doubt}")
    if data.early is not None:
        print(
            f"{len(data.early)} decisions with an open window teach what was seen and clicked so far, and nothing of orders"
        )
    hyper = Hyperparameters(seed=options.seed, trees=options.trees, leaves=options.leaves)
    metrics: dict[str, float] = {}
    if options.tune_minutes is not None:
        hyper, metrics = _tune(data, hyper, options.tune_minutes)
    with open_engine(options.engine, options.cluster) as engine:
        fitted = fit(data, hyper, name, engine=engine)
    fitted = replace(fitted, metrics=fitted.metrics | metrics)
    registered = MlflowRegistry(options.mlflow, options.experiment).keep(fitted, data, hyper, window, options.name)
    for name, value in fitted.metrics.items():
        print(f"  {name:28} {value:.5g}")
    print(
        f"{registered.name} version {registered.version}, bundle {registered.bundle_version}, run {registered.run_id}"
    )
    print(
        f"next: python -m training promote --name {registered.name} --version {registered.version} --mlflow {options.mlflow}"
    )


def _tune(data: "Dataset", hyper: "Hyperparameters", minutes: float) -> "tuple[Hyperparameters, dict[str, float]]":
    """Return the hyperparameters found, and metrics of the search."""
    from tqdm import tqdm

    from training.tune import tune

    with tqdm(desc="tune", unit=" trials", disable=None) as bar:

        def told(_: int, least: float) -> None:
            bar.set_postfix_str(f"loss {least:.4f} of the usual", refresh=False)
            bar.update()

        found = tune(data, hyper, 60 * minutes, told)
    changed = ", ".join(
        f"{name} {value:.4g}" for name, value in asdict(found.hyper).items() if value != getattr(hyper, name)
    )
    print(
        f"{found.trials} trials in {found.seconds:.0f} s, loss {found.objective:.4f} of the usual: {changed or 'nothing better was found'}"
    )
    return found.hyper, {
        "tune.trials": float(found.trials),
        "tune.seconds": found.seconds,
        "tune.objective": found.objective,
    }


def _evaluate(options: argparse.Namespace) -> None:
    from training.judging import evaluate_command

    print(evaluate_command(options))


def _replay(options: argparse.Namespace) -> None:
    from training.replay_report import replay_command

    print(replay_command(options))


def _promote(options: argparse.Namespace) -> None:
    from training.judging import promote_command

    for line in promote_command(options, print):
        print(line)


def _challenge(options: argparse.Namespace) -> None:
    from training.judging import challenge_command

    print(challenge_command(options))


def _rollback(options: argparse.Namespace) -> None:
    from training.judging import rollback_command

    print(rollback_command(options))


def _starter(options: argparse.Namespace) -> None:
    from training.starter import has_bundle, make_starter

    if options.if_missing and has_bundle(options.folder):
        print(f"{options.folder} holds a bundle already")
        return
    print(f"{options.folder}: {make_starter(options.folder, read_rules(options.rules))}")


def _evaluate_log(options: argparse.Namespace) -> None:
    from training.evaluate_log import evaluate_starbucks, table

    print(table(evaluate_starbucks(options.data, options.social_price, options.work, options.seed)))


def main(arguments: list[str] | None = None) -> int:
    """Run a command and return its exit code: 0, or 2 where it refused, with the reason on standard error."""
    options = _parser().parse_args(arguments)
    try:
        options.run(options)
    except ChannelChoiceError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
