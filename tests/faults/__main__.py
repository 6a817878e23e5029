"""`python -m tests.faults`: the fault suite in its long form, with a report; ends with 1 where anything was lost or violated."""

import argparse
import sys
import tempfile
from pathlib import Path

from tests.faults.run import Plan, run, write_report


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument("--minutes", type=float, default=20, help="how long the clients ask (default: 20)")
    parser.add_argument("--kills", type=int, default=60, help="how many faults (default: 60)")
    parser.add_argument("--servers", type=int, default=3, help="service processes (default: 3)")
    parser.add_argument("--clients", type=int, default=4, help="client processes (default: 4)")
    parser.add_argument("--people", type=float, default=10, help="new people a second (default: 10)")
    parser.add_argument("--seed", type=int, default=1, help="which faults, when (default: 1)")
    parser.add_argument("--folder", type=Path, help="where logs and report stay (default: a new temporary folder)")
    options = parser.parse_args()
    folder = options.folder or Path(tempfile.mkdtemp(prefix="soak-"))
    folder.mkdir(parents=True, exist_ok=True)
    plan = Plan(
        seconds=60 * options.minutes,
        kills=options.kills,
        servers=options.servers,
        clients=options.clients,
        people_per_second=options.people,
        seed=options.seed,
    )
    report = run(plan, folder)
    print(*report.lines(), f"logs and report.json in {folder}", sep="\n")
    write_report(report, folder / "report.json")
    return 1 if report.findings.violations or any(report.exits) else 0


if __name__ == "__main__":
    sys.exit(main())
