"""Compare the statistics of experiments with gbstats on the same data: `python -m tests.crosscheck_gbstats`.

gbstats, GrowthBook's statistics, asks for an older numpy and pandas, so the command makes it an environment of its own in var/. It returns 1 where a figure is
further off than TOLERANCE, in standard errors; a p-value, than TOLERANCE itself. `--write-docs` puts the table into docs/experiments.md.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

import numpy as np

from training.experiments.always_valid import TIGHTEST_AT
from training.experiments.comparison import Sample, compare
from training.experiments.simulations import DOCUMENT, write_between
from training.experiments.worlds import CLICKS, CONVERSION, EVEN, REVENUE, UNEVEN, draw_experiment

GBSTATS = "gbstats==0.8.0"
ALPHA = 0.05
TOLERANCE = 1e-8
FIGURES = ("difference", "low", "high", "p_value", "always_low", "always_high", "always_p_value")


def samples() -> dict[str, tuple[Sample, Sample]]:
    """Return control and treated of each case."""
    rng = np.random.default_rng(6)

    def drawn(metric: str, *, is_adjusted: bool = False, shares: tuple[float, float] = EVEN) -> tuple[Sample, Sample]:
        known = {one.name: one for one in (REVENUE, CONVERSION, CLICKS)}
        return draw_experiment(known[metric], 20_000, 0.1, rng, shares=shares, is_adjusted=is_adjusted)

    return {
        "mean: revenue": drawn("revenue"),
        "mean, CUPED: revenue": drawn("revenue", is_adjusted=True),
        "mean, CUPED, 80 % / 20 %: revenue": drawn("revenue", is_adjusted=True, shares=UNEVEN),
        "mean: conversion": drawn("conversion"),
        "ratio: clicks": drawn("clicks"),
    }


def ask_gbstats(python: Path, cases: dict[str, tuple[Sample, Sample]]) -> dict[str, dict[str, float]]:
    """Return what gbstats says of the cases, by its own interpreter."""
    arrays = {
        f"{case}|{variant}|{name}": array
        for case, both in cases.items()
        for variant, sample in zip(("control", "treated"), both, strict=True)
        for name, array in (("values", sample.values), ("weights", sample.weights), ("covariate", sample.covariate))
        if array is not None
    }
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "samples.npz"
        np.savez(path, **arrays)  # type: ignore[arg-type]  # the stub takes the names for its own options
        command = [str(python), str(Path(__file__).with_name("other.py")), str(path), str(ALPHA), str(TIGHTEST_AT)]
        found: dict[str, dict[str, float]] = json.loads(subprocess.check_output(command))
    return found


def install(folder: Path) -> Path:
    """Return the interpreter of an environment with gbstats, made if there is none."""
    python = folder / "bin" / "python"
    if not (folder / "installed").exists():
        venv.create(folder, with_pip=True, clear=True)
        subprocess.check_call([str(python), "-m", "pip", "install", "--quiet", GBSTATS])
        (folder / "installed").touch()
    return python


def compare_all(python: Path) -> tuple[str, float]:
    """Return the table, and the largest difference of any figure: of p-values as they are, of others in standard errors."""
    cases = samples()
    theirs = ask_gbstats(python, cases)
    lines = [
        "| case | difference and interval, here | gbstats | always-valid interval and p-value, here | gbstats | furthest off |",
        "|---|---|---|---|---|---:|",
    ]
    offs = []
    for case, (control, treated) in cases.items():
        comparison = compare(control, treated, alpha=ALPHA)
        ours = {figure: float(getattr(comparison, figure)) for figure in FIGURES}
        error = (comparison.high - comparison.low) / 4
        offs.append(
            max(abs(ours[name] - theirs[case][name]) / (1 if name.endswith("p_value") else error) for name in FIGURES)
        )
        cells = [show(figures) for show in (_once, _always) for figures in (ours, theirs[case])]
        lines.append(f"| {case} | {' | '.join(cells)} | {offs[-1]:.0e} |")
    return "\n".join(lines), max(offs)


def _once(figures: dict[str, float]) -> str:
    return f"{figures['difference']:.6g} ({figures['low']:.6g} to {figures['high']:.6g})"


def _always(figures: dict[str, float]) -> str:
    return f"{figures['always_low']:.6g} to {figures['always_high']:.6g}, p {figures['always_p_value']:.6g}"


def main(arguments: list[str] | None = None) -> int:
    """Print the table; return 1 where the two differ."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.crosscheck_gbstats", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("--to", type=Path, default=Path("var/crosscheck-gbstats"), help="folder of its environment")
    parser.add_argument("--write-docs", action="store_true", help=f"put the table into {DOCUMENT}")
    options = parser.parse_args(arguments)
    table, worst = compare_all(install(options.to))
    text = f"{table}\n\n`python -m tests.crosscheck_gbstats`: {GBSTATS}, 20,000 customers a case, N* = {TIGHTEST_AT:,}."
    print(text)
    if options.write_docs:
        write_between(DOCUMENT, "gbstats", text)
    return int(worst > TOLERANCE)


if __name__ == "__main__":
    sys.exit(main())
