"""Use cases about experiments: how they are run, and changing that while they run."""

from collections.abc import Mapping
from dataclasses import dataclass

from models.errors import InvalidInput, NotFound, Violation
from models.experiments import ExperimentState
from models.record import to_micros
from models.rules import Experiment, Rules
from service.clock import Clock
from service.store.store import EXPERIMENTS, ExperimentChangeRow, ExperimentRow, Store, Unit
from service.variants import VariantBundles


@dataclass(frozen=True, slots=True, kw_only=True)
class RunExperiment:
    """An experiment of the rules, and how it is run."""

    experiment: Experiment
    state: ExperimentState
    exposure: float
    counts: Mapping[str, int]
    """People exposed, by variant."""
    mixed: int
    """People who were exposed to two variants, before it was known that they are one."""
    changes: tuple[ExperimentChangeRow, ...]
    problem: str = ""


class Experiments:
    """Reads and changes how experiments are run."""

    def __init__(self, store: Store, rules: Rules, clock: Clock, variants: VariantBundles) -> None:
        self._store = store
        self._rules = rules
        self._clock = clock
        self._variants = variants

    def list(self, name: str = "") -> list[RunExperiment]:
        """Return all experiments, or the one of that name.

        Raises
        ------
        NotFound: the rules have none of that name.
        """
        if name and self._rules.experiment(name) is None:
            raise NotFound("experiment", name)
        found = self._store.read(
            lambda reader: (
                {row.experiment: row for row in reader.list_experiments()},
                reader.count_exposures(),
                reader.count_mixed(),
                {e.name: reader.list_experiment_changes(e.name) for e in self._rules.experiments},
            )
        )
        rows, counts, mixed, changes = found
        return [
            RunExperiment(
                experiment=experiment,
                state=ExperimentState(rows[experiment.name].state)
                if experiment.name in rows
                else ExperimentState.RUNNING,
                exposure=_exposure(experiment, rows.get(experiment.name)),
                counts={variant: n for (of, variant), n in counts.items() if of == experiment.name},
                mixed=mixed.get(experiment.name, 0),
                changes=tuple(changes[experiment.name]),
                problem=self._problem(experiment),
            )
            for experiment in self._rules.experiments
            if name in ("", experiment.name)
        ]

    def update(self, name: str, state: ExperimentState | None, exposure: float | None, reason: str) -> RunExperiment:
        """Change how an experiment is run, from the next decision on in every replica; None leaves as it is.

        Raises
        ------
        NotFound: the rules have none of that name. InvalidInput: it was stopped, and is to run again.
        """
        experiment = self._rules.experiment(name)
        if experiment is None:
            raise NotFound("experiment", name)

        def unit(work: Unit) -> None:
            before = next((row for row in work.list_experiments() if row.experiment == name), None)
            known = ExperimentState.RUNNING if before is None else ExperimentState(before.state)
            if known is ExperimentState.STOPPED and state not in (None, ExperimentState.STOPPED):
                problem = (
                    f"{name} was stopped, which is for good; write an experiment of another name into the rules file"
                )
                raise InvalidInput([Violation(field="state", description=problem)])
            share = exposure if exposure is not None else (before.exposure if before is not None else None)
            row = ExperimentRow(experiment=name, state=state or known, exposure=share)
            work.change_experiment(row, to_micros(self._clock.now()), reason)

        self._store.write(unit, [EXPERIMENTS])
        (found,) = self.list(name)
        return found

    def _problem(self, experiment: Experiment) -> str:
        missing, errors = self._variants.missing, self._variants.errors
        problems = [
            f"variant {v.name} has no bundle, so nobody takes part: {errors.get(v.bundle, v.bundle)}"
            for v in experiment.variants
            if v.bundle and v.bundle in missing
        ]
        return "; ".join(problems)


def _exposure(experiment: Experiment, row: ExperimentRow | None) -> float:
    return experiment.exposure if row is None or row.exposure is None else row.exposure
