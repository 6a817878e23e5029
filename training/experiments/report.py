"""The commands `report` and `goals`: from a log and the rules file to an MLflow run with figures, tables and a page."""

import argparse
import csv
import io
import math
from dataclasses import asdict
from pathlib import Path

from sqlalchemy import text

from models.errors import LogUnusable
from models.rules import Experiment, Rules, read_rules
from service.store.engine import asking
from service.store.store import ExperimentChangeRow
from service.store.url import describe, parse_url
from training.experiments.analysis import Analysis, analyse
from training.experiments.goals import Track, track_goals
from training.experiments.kpis import KPIS
from training.experiments.page import Page
from training.experiments.people import HOLDOUT, holdout_experiment, newest_time, read_people
from training.experiments.words import LANGUAGES
from training.registry import MlflowRegistry, Report

_CHANGES = """
SELECT experiment, number, change_time, state, exposure, reason FROM experiment_changes WHERE experiment = :experiment ORDER BY number
"""


def find_experiment(rules: Rules, name: str, url: str, window_days: float | None) -> Experiment:
    """Return the experiment of that name, the global holdout among them.

    Raises
    ------
    LogUnusable: the rules have none of that name.
    """
    if name == HOLDOUT:
        newest = newest_time(url)
        if newest is None:
            raise LogUnusable(f"the log {url} is empty; nobody was held out")
        since = newest.replace(year=newest.year - 1) if newest.day < 29 or newest.month != 2 else newest
        return holdout_experiment(rules, window_days or 28.0, since, newest)
    found = rules.experiment(name)
    if found is None:
        known = ", ".join([*(e.name for e in rules.experiments), HOLDOUT])
        raise LogUnusable(f"the rules have no experiment {name}; they have {known}: mend --experiment or --rules")
    return found


def read_changes(url: str, name: str) -> list[ExperimentChangeRow]:
    """Return what operators changed of an experiment, in order."""
    with asking(url) as connection:
        rows = connection.execute(text(_CHANGES), {"experiment": name})
        return [ExperimentChangeRow(**row) for row in rows.mappings()]


def make_report(analysis: Analysis, rules: Rules, log: str, tracks: list[Track]) -> Report:
    """Return everything that the run holds."""
    pages = {
        language: Page(analysis=analysis, rules=rules, language=language, log=log, tracks=tracks)
        for language in LANGUAGES
    }
    english = pages["en"]
    sentences = [english.decision(treatment) for treatment in analysis.treatments]
    experiment = analysis.experiment
    return Report(
        command="python -m training report",
        note="\n\n".join([*sentences, "The page is `report.html`, in Russian `report.ru.html`, under Artifacts."]),
        parameters={
            "experiment": experiment.name,
            "variants": ", ".join(f"{v.name} {v.weight:g}" for v in experiment.variants),
            "window_days": experiment.window_days,
            "alpha": experiment.alpha,
            "success": ", ".join(experiment.success),
            "guardrails": ", ".join(f"{g.metric} {g.margin:g}" for g in experiment.guardrails),
            "log": log,
            "rules": rules.name,
            "until": f"{analysis.people.until:%Y-%m-%dT%H:%M:%SZ}",
        },
        metrics=metrics_of(analysis),
        tags={
            "verdict": ", ".join(f"{t.name}: {analysis.verdict(t).value}" for t in analysis.treatments),
            "report": experiment.name,
        },
        files={
            "report.html": english.html(),
            "report.ru.html": pages["ru"].html(),
            "tables/figures.csv": _figures_table(analysis),
            "tables/comparisons.csv": _comparisons_table(analysis),
            "tables/segments.csv": _segments_table(analysis),
            "tables/daily.csv": _daily_table(analysis),
            "tables/channels.csv": _channels_table(analysis),
            "tables/roles.csv": _roles_table(analysis),
        },
    )


def metrics_of(analysis: Analysis) -> dict[str, float]:
    """Return every figure that may be told, by a name that MLflow takes."""
    found: dict[str, float] = {
        "sample_ratio.p_value": analysis.ratio.p_value,
        "customers.needed": analysis.plan.needed,
        "lift.detectable": analysis.plan.detectable,
        "customers.mixed": analysis.people.mixed,
        "customers.open_window": analysis.people.open_windows,
    }
    for name, count in analysis.counted.items():
        found[f"{name}.customers"] = count
        found[f"{name}.exposed"] = analysis.people.exposed.get(name, 0)
        found |= {f"{name}.{metric}": figure.mean for metric, figure in analysis.figures[name].items()}
    for treatment in analysis.treatments:
        for metric, c in treatment.comparisons.items():
            if c.problem:
                continue
            prefix = f"{treatment.name}.{metric}"
            found |= {
                f"{prefix}.difference": c.difference,
                f"{prefix}.difference.low": c.low,
                f"{prefix}.difference.high": c.high,
                f"{prefix}.difference.always_low": c.always_low,
                f"{prefix}.difference.always_high": c.always_high,
                f"{prefix}.lift": c.lift,
                f"{prefix}.lift.always_low": c.always_lift_low,
                f"{prefix}.lift.always_high": c.always_lift_high,
                f"{prefix}.p_value": c.p_value,
                f"{prefix}.always_p_value": c.always_p_value,
            }
        found |= {f"{treatment.name}.{name}": value for name, value in asdict(treatment.money).items()}
    return {name: float(value) for name, value in found.items() if math.isfinite(value)}


def _table(heads: list[str], rows: list[list[object]]) -> str:
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(heads)
    writer.writerows(rows)
    return file.getvalue()


def _figures_table(analysis: Analysis) -> str:
    names = [variant.name for variant in analysis.experiment.variants]
    rows: list[list[object]] = [
        [metric, KPIS[metric].unit, *(analysis.figures[name][metric].mean for name in names)] for metric in KPIS
    ]
    return _table(["metric", "unit", *names], rows)


def _comparisons_table(analysis: Analysis) -> str:
    rows: list[list[object]] = []
    heads: list[str] = []
    for treatment in analysis.treatments:
        for metric, comparison in treatment.comparisons.items():
            values = asdict(comparison)
            heads = ["variant", "metric", *values, "adjusted_p"]
            rows.append([treatment.name, metric, *values.values(), treatment.adjusted_p.get(metric, "")])
    return _table(heads, rows)


def _segments_table(analysis: Analysis) -> str:
    heads = [
        "variant",
        "segment",
        "label",
        "control",
        "treated",
        "difference",
        "low",
        "high",
        "p",
        "adjusted_p",
        "problem",
    ]
    rows: list[list[object]] = [
        [
            t.name,
            r.segment,
            r.label,
            r.control_count,
            r.treated_count,
            r.comparison.difference,
            r.comparison.low,
            r.comparison.high,
            r.comparison.p_value,
            r.adjusted_p,
            r.comparison.problem,
        ]
        for t in analysis.treatments
        for r in t.segments
    ]
    return _table(heads, rows)


def _daily_table(analysis: Analysis) -> str:
    heads = ["variant", "day", "control_customers", "treated_customers", "difference", "always_low", "always_high"]
    rows: list[list[object]] = [
        [t.name, day, c.control_count, c.treated_count, c.difference, c.always_low, c.always_high]
        for t in analysis.treatments
        for day, c in t.daily
    ]
    return _table(heads, rows)


def _channels_table(analysis: Analysis) -> str:
    people = analysis.people
    rows: list[list[object]] = []
    for place, variant in enumerate(people.experiment.variants):
        mask = people.mask(place)
        rows += [
            [variant.name, channel, float(sent[mask].sum()), float(people.spend[channel][mask].sum())]
            for channel, sent in people.messages.items()
        ]
    return _table(["variant", "channel", "messages", "spend"], rows)


def _roles_table(analysis: Analysis) -> str:
    rows: list[list[object]] = [
        [name, role.channel, role.first, role.assisting, role.last, role.credited_orders, role.credit]
        for name, roles in analysis.roles.items()
        for role in roles
    ]
    return _table(["variant", "channel", "first", "assisting", "last", "credited_orders", "credit"], rows)


def report_command(options: argparse.Namespace) -> str:
    """Work out a report, log it as a run, write its pages where asked, and return what to say."""
    rules = read_rules(options.rules)
    experiment = find_experiment(rules, options.experiment, options.database, options.window_days)
    people = read_people(options.database, experiment, rules, options.until)
    analysis = analyse(people, read_changes(options.database, experiment.name))
    log = describe(parse_url(options.database))
    report = make_report(analysis, rules, log, track_goals(options.database, rules, options.until))
    if options.out is not None:
        write_files(options.out, report)
    lines = [summary(analysis, rules, log)]
    if options.out is not None:
        lines.append(f"page {options.out / 'report.html'}, in Russian {options.out / 'report.ru.html'}")
    if not options.no_mlflow:
        run_id = MlflowRegistry(options.mlflow, options.mlflow_experiment).keep_report(
            f"report {experiment.name}", report
        )
        lines.append(f"run {run_id} of {options.mlflow}: open it with `mlflow ui --backend-store-uri {options.mlflow}`")
    return "\n".join(lines)


def write_files(folder: Path, report: Report) -> None:
    """Write the files of a report into a folder."""
    for name, content in report.files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content, encoding="utf-8")


def summary(analysis: Analysis, rules: Rules, log: str) -> str:
    """Return the decision and the figures that it rests on as lines of text."""
    page = Page(analysis=analysis, rules=rules, language="en", log=log)
    lines = []
    for treatment in analysis.treatments:
        lines.append(page.decision(treatment))
        for metric in [*analysis.experiment.success, *(g.metric for g in analysis.experiment.guardrails)]:
            c = treatment.comparisons[metric]
            if c.problem:
                lines.append(f"  {metric:20} {c.problem.replace('_', ' ')}")
                continue
            lines.append(
                f"  {metric:20} {c.control_mean:10.4g} -> {c.treated_mean:10.4g}   difference {c.difference:+.4g}, "
                f"always valid {c.always_low:+.4g} to {c.always_high:+.4g}"
            )
    counts = ", ".join(f"{name} {count:,}" for name, count in analysis.counted.items())
    lines.append(f"  customers            {counts}; sample ratio p = {analysis.ratio.p_value:.3g}")
    return "\n".join(lines)
