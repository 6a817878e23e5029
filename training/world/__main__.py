"""`python -m training.world`: what each policy earns over several seeds, as a table beside the goals."""

import argparse
import contextlib
import os
import platform
import sys
from importlib.metadata import version
from pathlib import Path
from time import perf_counter

from training.world.bench import Setting, run_bench
from training.world.contenders import CONTENDERS, GROUPS
from training.world.money import CUSTOMERS
from training.world.report import NoPlace, by_seed, to_json, to_markdown, write_between
from training.world.scenarios import SCENARIOS

_DOCUMENT = Path("docs/money.md")
_LIBRARIES = ("numpy", "lightgbm", "vowpalwabbit", "mabwiser")


def main(arguments: list[str] | None = None) -> int:
    """Print a table for each scenario and return the exit code."""
    options = _parser().parse_args(arguments)
    rows: tuple[str, ...] = ()
    for name in options.rows.split(","):
        if name not in CONTENDERS and name not in GROUPS:
            print(f"--rows: there is no {name!r}; there are {', '.join([*CONTENDERS, *GROUPS])}", file=sys.stderr)
            return 2
        rows += GROUPS.get(name, (name,))
    options.to.mkdir(parents=True, exist_ok=True)
    for scenario in SCENARIOS if options.scenario == "all" else (options.scenario,):
        setting = Setting(
            scenario=scenario,
            seeds=tuple(range(options.first_seed, options.first_seed + options.seeds)),
            rows=rows,
            log_decisions=options.log_decisions,
            online_decisions=options.online_decisions,
            customers=options.customers,
        )
        began = perf_counter()
        runs = by_seed(run_bench(setting, options.processes, _say))
        seconds = perf_counter() - began
        about = _about(options, setting)
        text = f"{to_markdown(runs, scenario)}\n\n{_caption(about, seconds)}"
        print(f"\n{text}\n", flush=True)
        (options.to / f"{scenario}.md").write_text(text + "\n", encoding="utf-8")
        (options.to / f"{scenario}.json").write_text(to_json(runs, scenario, about), encoding="utf-8")
        if options.write_docs:
            try:
                write_between(_DOCUMENT, options.section or scenario, text)
            except NoPlace as error:
                print(error, file=sys.stderr)
                return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m training.world", description="What each policy earns on worlds with known truth."
    )
    parser.add_argument("--seeds", type=_count, default=3, help="how many worlds (default: 3)")
    parser.add_argument("--first-seed", type=int, default=0, help="seed of the first (default: 0)")
    parser.add_argument("--log-decisions", type=_count, default=20_000, help="randomised decisions (default: 20000)")
    parser.add_argument(
        "--online-decisions", type=_count, default=12_000, help="decisions of each policy (default: 12000)"
    )
    parser.add_argument("--customers", type=_count, default=CUSTOMERS, help=f"customers (default: {CUSTOMERS})")
    parser.add_argument(
        "--scenario", choices=("all", *SCENARIOS), default="stationary", help="what happens to the world"
    )
    groups = "; ".join(f"{name}: {','.join(rows)}" for name, rows in GROUPS.items() if name != "all")
    parser.add_argument(
        "--rows",
        default="usual",
        help=f"policies or groups of them, with commas between (default: usual). all; {groups}",
    )
    parser.add_argument("--processes", type=_count, default=os.cpu_count() or 1, help="default: one for each core")
    parser.add_argument("--to", type=Path, default=Path("var/bench-money"), help="folder for Markdown and JSON")
    parser.add_argument("--write-docs", action="store_true", help=f"also put the tables into {_DOCUMENT}")
    parser.add_argument("--section", help="of the document, for the table (default: the scenario's name)")
    return parser


def _count(text: str) -> int:
    if not text.isdigit() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number above 0")
    return int(text)


def _about(options: argparse.Namespace, setting: Setting) -> dict[str, str]:
    """Return what the figures depend on."""
    seeds = ("seed " if len(setting.seeds) == 1 else "seeds ") + ", ".join(str(seed) for seed in setting.seeds)
    sizes = f"{setting.customers} customers, {setting.online_decisions} decisions of each policy"
    log = f"a random log of {setting.log_decisions}" if setting.has_log else "no log"
    command = f"python -m training.world --scenario {setting.scenario} --seeds {options.seeds}"
    defaults = _parser().parse_args([])
    for name in ("first_seed", "log_decisions", "online_decisions", "customers", "rows"):
        if getattr(options, name) != getattr(defaults, name):
            command += f" --{name.replace('_', '-')} {getattr(options, name)}"
    return {
        "command": command,
        "world": f"{setting.scenario}, {seeds}, {sizes}, {log}",
        "machine": f"{_processor()}, {os.cpu_count()} cores, {options.processes} processes",
        "versions": ", ".join([f"Python {platform.python_version()}", *(f"{n} {version(n)}" for n in _LIBRARIES)]),
    }


def _caption(about: dict[str, str], seconds: float) -> str:
    took = f"{seconds / 60:.0f} minutes" if seconds >= 90 else f"{seconds:.0f} seconds"
    return f"`{about['command']}`: {about['world']}; {took} on {about['machine']}; {about['versions']}."


def _processor() -> str:
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
