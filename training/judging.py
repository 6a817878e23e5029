"""The commands `evaluate`, `promote` and `rollback`: from their options to what they print and log."""

import argparse
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from datetime import timedelta
from pathlib import Path

from tqdm import tqdm

from models.bundle import MANIFEST, Bundle, load_bundle
from models.errors import LogUnusable
from models.rules import Rules, read_rules
from training.bounds import Bounds
from training.dataset import name_log
from training.evaluate import evaluate_policies, metrics_of, table
from training.gate import Contest, Gate, run_gate, transcript
from training.registry import CHALLENGER, CHAMPION, MlflowRegistry, Registered, Report, reach
from training.targets import LOGGED, Target, make_target

_MODELS = "models:/"


def open_registry(options: argparse.Namespace, *, must_exist: bool) -> MlflowRegistry:
    """Open the registry that the options name.

    Raises
    ------
    LogUnusable: it is a file that does not exist where it must, or MLflow cannot open it.
    """
    path = Path(options.mlflow.removeprefix("sqlite:///"))
    if must_exist and options.mlflow.startswith("sqlite:///") and not path.is_file():
        raise LogUnusable(f"there is no registry {path}; train first, or mend --mlflow")
    return MlflowRegistry(options.mlflow, options.experiment)


def find_bundle(source: str, options: argparse.Namespace) -> Bundle:
    """Load a bundle from a folder, or from the registry by models:/NAME@ALIAS or models:/NAME/VERSION.

    Raises
    ------
    LogUnusable: there is no such registry, alias or version. BundleError: it cannot be had or does not verify.
    """
    if not source.startswith(_MODELS):
        return load_bundle(Path(source))
    registry = open_registry(options, must_exist=True)
    name, at, alias = source.removeprefix(_MODELS).partition("@")
    if at:
        registry.find(name, None)
        found = registry.aliased(name, alias)
        if found is None:
            raise LogUnusable(
                f"{name} has no {alias}; promote a version first, or name one with models:/{name}/VERSION"
            )
        return registry.fetch(found)
    name, slash, version = name.partition("/")
    return registry.fetch(registry.find(name, version if slash else None))


def find_targets(options: argparse.Namespace, rules: Rules) -> list[Target]:
    """Return every policy that the options name with every bundle; one that needs none, once; one that is a bundle is the rules' policy with that one."""
    bundles = [find_bundle(source, options) for source in options.bundle]
    found: dict[str, Target] = {}
    for policy in options.policy:
        if policy.startswith(_MODELS) or (Path(policy) / MANIFEST).is_file():
            mine = [make_target(rules.policy.name, rules, find_bundle(policy, options))]
        else:
            needs_none = policy in (LOGGED, "rule_cascade") or not bundles
            mine = [make_target(policy, rules, bundle) for bundle in ([None] if needs_none else bundles)]
        found |= {target.name: target for target in mine}
    return list(found.values())


@dataclass(frozen=True, slots=True)
class Bar:
    """A bar on the terminal: how many decisions are done, and what is being done."""

    progress: Callable[[int], object]
    say: Callable[[str], None]


@contextmanager
def show_bar(what: str) -> Iterator[Bar]:
    """Show a bar until the end of the block; nothing where there is no terminal."""
    with tqdm(desc=what, unit=" decisions", disable=None) as bar:
        yield Bar(bar.update, bar.set_postfix_str)


def evaluate_command(options: argparse.Namespace) -> str:
    """Judge the policies that the options name, log a run, and return the table."""
    if not options.no_mlflow:
        reach(options.mlflow, options.experiment)
    rules = read_rules(options.rules)
    targets = find_targets(options, rules)
    with show_bar("evaluate") as bar:
        evaluation = evaluate_policies(
            options.database,
            targets,
            rules,
            timedelta(hours=options.window_hours),
            since=options.since,
            until=options.until,
            as_of=options.as_of,
            folds=options.folds,
            seed=options.seed,
            most=options.most_decisions,
            say=bar.say,
            progress=bar.progress,
        )
    text = table(evaluation)
    if options.no_mlflow:
        return text
    names = {f"policy{i}": v.policy for i, v in enumerate(evaluation.verdicts)}
    report = Report(
        command="python -m training evaluate",
        note=text,
        parameters={
            **names,
            "log": name_log(options.database),
            "rules": rules.name,
            "window_hours": options.window_hours,
            "folds": options.folds,
            "seed": options.seed,
        },
        metrics=metrics_of(evaluation),
        tags={"data.digest": evaluation.digest},
        files={"evaluation.md": text},
    )
    run_id = open_registry(options, must_exist=False).keep_report("evaluate " + ", ".join(names.values()), report)
    return f"{text}\n\nrun {run_id} of {options.mlflow}"


def promote_command(options: argparse.Namespace, say: Callable[[str], object]) -> list[str]:
    """Run the gate and move the alias where it is open or forced; return what to say at the end.

    Raises
    ------
    LogUnusable: the gate refuses, or cannot judge.
    """
    if options.force is not None and not options.force.strip():
        raise LogUnusable("--force needs a reason; it is kept with the version")
    registry = open_registry(options, must_exist=True)
    candidate = registry.find(options.name, options.version)
    with registry.promoting(options.name):
        champion = registry.champion(options.name)
        if champion is not None and champion.version == candidate.version:
            return [f"version {candidate.version} of {options.name} is champion already"]
        say(
            f"candidate version {candidate.version} of {options.name}, {_whose(champion)}, log {name_log(options.database)}"
        )
        gate, problem = _judge(options, registry, candidate, champion)
        text = problem if gate is None else transcript(gate.checks)
        say(text)
        is_open = gate is not None and gate.is_open
        _record(options, registry, candidate, champion, gate, text)
        if not is_open and options.force is None:
            why = problem if gate is None else f"it fails {gate.refusal}"
            raise LogUnusable(
                f"version {candidate.version} of {options.name} is not promoted: {why}; train a better one, gather more decisions, or --force it with a reason"
            )
        tags = {} if is_open else {"promotion.forced": str(options.force)}
        moved = registry.move(candidate, {"promotion.gate": "open" if is_open else "forced", **tags})
    lines = [] if is_open else [f"forced: {options.force}"]
    return [
        *lines,
        f"{moved.name}@{CHAMPION} is version {moved.version}, bundle {moved.bundle_version}",
        f"serve it: python -m service --bundle models:/{moved.name}@{CHAMPION} --mlflow-uri {options.mlflow}",
    ]


def _whose(champion: Registered | None) -> str:
    return "no champion yet" if champion is None else f"champion version {champion.version}"


def _judge(
    options: argparse.Namespace, registry: MlflowRegistry, candidate: Registered, champion: Registered | None
) -> tuple[Gate | None, str]:
    """Return what the gate found; where the log cannot judge and the promotion is forced, why it cannot."""
    contest = Contest(
        candidate=registry.fetch(candidate),
        champion=None if champion is None else registry.fetch(champion),
        url=options.database,
        rules=read_rules(options.rules),
        window=timedelta(hours=options.window_hours),
        as_of=options.as_of,
        folds=options.folds,
        seed=options.seed,
        most=options.most_decisions,
    )
    try:
        with show_bar("judge") as bar:
            return run_gate(contest, _bounds_of(options), say=bar.say, progress=bar.progress), ""
    except LogUnusable as error:
        if options.force is None:
            raise
        return None, f"not judged: {error}"


def _bounds_of(options: argparse.Namespace) -> Bounds:
    return Bounds(**{field.name: getattr(options, field.name) for field in fields(Bounds)})


def _record(
    options: argparse.Namespace,
    registry: MlflowRegistry,
    candidate: Registered,
    champion: Registered | None,
    gate: Gate | None,
    text: str,
) -> None:
    """Log the gate as a run: every check with its figure, and the evaluation behind it."""
    checks = () if gate is None else gate.checks
    found = None if gate is None else gate.evaluation
    is_open = gate is not None and gate.is_open
    verdict = "open" if is_open else "closed" if options.force is None else "forced"
    registry.keep_report(
        f"gate {options.name} version {candidate.version}",
        Report(
            command="python -m training promote",
            note=f"Gate {verdict} for version {candidate.version} of {options.name}, {_whose(champion)}.\n\n```\n{text}\n```",
            parameters={
                "candidate": candidate.version,
                "champion": "" if champion is None else champion.version,
                "log": name_log(options.database),
                **{f"bound.{name}": value for name, value in asdict(_bounds_of(options)).items()},
            },
            metrics={
                **{f"check.{_key(check.name)}": check.value for check in checks},
                **{f"check.{_key(check.name)}.passed": float(check.is_passed) for check in checks},
                **({} if found is None else metrics_of(found)),
            },
            tags={"gate": verdict, **({} if options.force is None else {"gate.force_reason": str(options.force)})},
            files={"gate.txt": text, **({} if found is None else {"evaluation.md": table(found)})},
        ),
    )


def _key(name: str) -> str:
    return name.replace(" ", "_")


def challenge_command(options: argparse.Namespace) -> str:
    """Point the alias challenger at a version, and say how to serve it in the shadow."""
    chosen = open_registry(options, must_exist=True).challenge(options.name, options.version)
    return (
        f"{chosen.name}@{CHALLENGER} is version {chosen.version}, bundle {chosen.bundle_version}\n"
        f"in the shadow: python -m service --bundle models:/{chosen.name}@{CHAMPION} --shadow-bundle models:/{chosen.name}@{CHALLENGER} --mlflow-uri {options.mlflow}"
    )


def rollback_command(options: argparse.Namespace) -> str:
    """Return to the champion before, log that as a run, and say so."""
    registry = open_registry(options, must_exist=True)
    left, returned = registry.rollback(options.name)
    said = f"{options.name}@{CHAMPION} is version {returned.version} again, bundle {returned.bundle_version}; it was version {left.version}"
    registry.keep_report(
        f"rollback {options.name}",
        Report(
            command="python -m training rollback",
            note=said,
            parameters={"left": left.version, "returned": returned.version},
        ),
    )
    return said
