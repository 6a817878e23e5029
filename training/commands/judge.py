"""The commands that judge and promote: evaluate, replay, plan, promote, challenge, rollback, evaluate-log."""

import argparse
from dataclasses import fields
from pathlib import Path

from training.bounds import Bounds
from training.options import (
    DEFAULT_RULES,
    LOG,
    Command,
    add_as_of,
    add_engine,
    add_most_decisions,
    add_registry,
    add_window,
    moment,
    number,
)

_GUARDS = {
    "margin": "by how much a message its lower bound must be above the champion's estimate",
    "unseen": "decisions that it was not trained on, at least",
    "calibration_error": "the most that P(order) may be off",
    "unsubscribe_ratio": "the most unsubscribes, of the champion's",
    "cost_ratio": "the most that messages may cost, of the champion's",
    "milliseconds": "the most that a decision may take, in the median",
}
"""What each bound of the gate is."""


def add_commands(command: Command) -> None:
    """Add them to the parser of `python -m training`."""
    _add_evaluate(command)
    _add_replay(command)
    _add_gate(command)
    _add_evaluate_log(command)
    _add_plan(command)


def _add_judging(parser: argparse.ArgumentParser) -> None:
    """Add what every command that judges by a log asks for."""
    parser.add_argument("--database", "--log", default=LOG, metavar="URL", help=f"decision log (default: {LOG})")
    parser.add_argument("--rules", type=Path, default=DEFAULT_RULES, help="rules file (default: the service's)")
    add_window(parser)
    add_as_of(parser)
    add_most_decisions(parser)
    parser.add_argument(
        "--folds",
        type=number(int, 2),
        default=3,
        help="parts of the customers that models are cross-fitted on (default: 3)",
    )
    parser.add_argument("--seed", type=number(int, 0), default=0)
    add_registry(parser)


def _add_evaluate(command: Command) -> None:
    evaluate = command(
        "evaluate", _evaluate, "judge policies by a log: what they would add to no send, cost, and lose in unsubscribes"
    )
    _add_judging(evaluate)
    evaluate.add_argument(
        "--policy",
        nargs="+",
        default=["logged"],
        help="logged, the name of a policy (inverse_gap, greedy_floor, thompson, epsilon_greedy, greedy, rule_cascade, most_engaged), a rules file (.toml), or a bundle "
        "(a folder, models:/NAME@ALIAS or models:/NAME/VERSION) that the rules' policy is to use; several are judged side by side (default: logged)",
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


def _add_gate(command: Command) -> None:
    promote = command(
        "promote",
        _promote,
        "point the alias champion at a version, if the log says that it earns more than the champion",
    )
    _add_judging(promote)
    promote.add_argument("--version", help="version (default: the newest)")
    defaults = {field.name: field.default for field in fields(Bounds)}
    for name, text in _GUARDS.items():
        default = defaults[name]
        promote.add_argument(
            f"--{name.replace('_', '-')}",
            type=number(int if isinstance(default, int) else float, 0),
            default=default,
            help=f"{text} (default: {default})",
        )
    promote.add_argument(
        "--force", metavar="REASON", help="promote whatever the checks say; the reason is kept with the version"
    )
    challenge = command(
        "challenge", _challenge, "point the alias challenger at a version, to decide in the shadow; no gate is asked"
    )
    add_registry(challenge)
    challenge.add_argument("--version", help="version (default: the newest)")
    rollback = command("rollback", _rollback, "point the alias champion at the version that it pointed to before")
    add_registry(rollback)


def _add_evaluate_log(command: Command) -> None:
    on_a_real_log = command(
        "evaluate-log", _evaluate_log, "import, train, promote, evaluate, replay, serve and judge on a real log"
    )
    on_a_real_log.add_argument("--log", required=True, choices=["starbucks", "hillstrom"], help="which log")
    on_a_real_log.add_argument("--data", required=True, type=Path, help="folder that holds its Parquet files")
    on_a_real_log.add_argument(
        "--social-price",
        nargs="+",
        type=number(float, 0),
        default=[0.0, 2.0, 4.0],
        metavar="USD",
        help="with starbucks: prices of a social send to serve at (default: 0 2 4)",
    )
    on_a_real_log.add_argument("--work", type=Path, help="folder for what is made (default: var/evaluate-LOG)")
    on_a_real_log.add_argument("--seed", type=number(int, 0), default=0)


def _add_plan(command: Command) -> None:
    plan = command(
        "plan", _plan, "plan a whole campaign within a budget: who gets what, and what more money would earn"
    )
    plan.add_argument("--requests", required=True, type=Path, metavar="FILE", help="Parquet file, see docs/planning.md")
    plan.add_argument("--bundle", required=True, type=Path, metavar="FOLDER", help="bundle that says what is expected")
    plan.add_argument("--budget", required=True, type=number(float, 0), help="in units of the rules' currency")
    plan.add_argument("--to", required=True, type=Path, metavar="FILE", help="Parquet file to write")
    plan.add_argument("--rules", type=Path, default=DEFAULT_RULES, help="rules file (default: the service's)")
    plan.add_argument("--workers", type=number(int, 1), default=1, help="processes here (default: 1)")
    add_engine(plan)
    plan.add_argument(
        "--scratch", type=Path, help="folder for partitions, which every worker sees (default: the system's)"
    )


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


def _evaluate_log(options: argparse.Namespace) -> None:
    work = options.work or Path(f"var/evaluate-{options.log}")
    if options.log == "hillstrom":
        from training import evaluate_hillstrom

        print(evaluate_hillstrom.table(evaluate_hillstrom.evaluate_hillstrom(options.data, work, options.seed)))
        return
    from training.evaluate_log import evaluate_starbucks, table

    print(table(evaluate_starbucks(options.data, options.social_price, work, options.seed)))


def _plan(options: argparse.Namespace) -> None:
    from training.plan import plan_command

    print(plan_command(options))
