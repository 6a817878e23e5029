"""The commands about experiments: report, monitor, demo."""

import argparse
from pathlib import Path

from training.options import DEFAULT_RULES, LOG, MLFLOW, Command, moment, number


def add_commands(command: Command) -> None:
    """Add them to the parser of `python -m training`."""
    report = command("report", _report, "report an experiment: figures, tables and a page, as a run in MLflow")
    _add_experiment(report)
    report.add_argument("--until", type=moment, help="read the log as of this UTC time (default: its newest row)")
    report.add_argument(
        "--window-days",
        type=number(float, 0, is_included=False),
        help="of the holdout: how long each customer is watched (default: 28)",
    )
    report.add_argument("--out", type=Path, metavar="FOLDER", help="write the pages and tables there too")
    report.add_argument("--no-mlflow", action="store_true", help="print and write only, without a run in MLflow")
    _add_store(report)

    monitor = command("monitor", _monitor, "watch an experiment while it runs: shares, guardrails, alarms")
    _add_experiment(monitor)
    monitor.add_argument(
        "--every", type=number(float, 1), default=60.0, metavar="SECONDS", help="between looks (default: 60)"
    )
    monitor.add_argument("--once", action="store_true", help="look once")
    monitor.add_argument(
        "--server", metavar="HOST:PORT", help="stop an experiment of stop_on_harm there where there is an alarm"
    )
    monitor.add_argument("--token-file", type=Path, help="file with a bearer token of the admin permission")
    monitor.add_argument("--ca-file", type=Path, help="PEM file of the authority that signed the server's certificate")

    demo = command(
        "demo", _demo, "an experiment from beginning to end in the simulated retailer, with its report in MLflow"
    )
    demo.add_argument("--folder", type=Path, default=Path("var/demo"), help="a new folder (default: var/demo)")
    demo.add_argument("--log", type=number(int, 1000), default=8000, help="decisions to train on (default: 8000)")
    demo.add_argument("--decisions", type=number(int, 100), default=9000, help="messages to decide (default: 9000)")
    demo.add_argument("--customers", type=number(int, 100), default=4000, help="how many (default: 4000)")
    demo.add_argument("--window-days", type=number(float, 1), default=10.0, help="each is watched (default: 10)")
    demo.add_argument("--seed", type=number(int, 0), default=0)


def _add_experiment(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--experiment", required=True, help="name in the rules file, or holdout for the global holdout")
    parser.add_argument("--database", default=LOG, metavar="URL", help=f"decision log (default: {LOG})")
    parser.add_argument("--rules", type=Path, default=DEFAULT_RULES, help="rules file (default: the service's)")


def _add_store(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--mlflow", default=MLFLOW, metavar="URI", help=f"tracking store (default: {MLFLOW})")
    parser.add_argument(
        "--mlflow-experiment",
        default="ab-reports",
        help="experiment of MLflow that holds the run (default: ab-reports)",
    )


def _report(options: argparse.Namespace) -> None:
    from training.experiments.report import report_command

    print(report_command(options))


def _monitor(options: argparse.Namespace) -> None:
    from training.experiments.monitor import monitor_command

    monitor_command(options, lambda text: print(text, flush=True))


def _demo(options: argparse.Namespace) -> None:
    from training.experiments.demo import demo_command

    print(demo_command(options))
