"""The gate before the alias champion: each check, the two commands, and two people at once."""

import json
import sqlite3
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from mlflow.tracking import MlflowClient

from models.bundle import Bundle
from models.errors import LogUnusable
from tests.training.examples import RULES, RULES_TOML, WINDOW
from tests.training.judged_logs import write_random
from tests.training.test_evaluate import overlap
from training import gate
from training.__main__ import main
from training.bounds import Bounds
from training.dataset import name_log, read_dataset, short_name
from training.evaluate import NOT_ENOUGH, Verdict
from training.fit import Fitted, fit
from training.gate import Check, Gate, transcript
from training.grow import Hyperparameters
from training.increment import Increment
from training.judged import Log, read_log
from training.off_policy import Estimate
from training.registry import CHAMPION, MlflowRegistry

# MLflow 3.17 declares a relationship with a loader that SQLAlchemy 2.1 calls deprecated.
pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy:sqlalchemy.exc.SADeprecationWarning")

NAME = "channel-choice"


def estimate(value: float, error: float = 1.0) -> Estimate:
    return Estimate(value=value, standard_error=error, effective_sample_size=900.0, influence=np.zeros(3))


def verdict(net: float, *, error: float = 1.0, cost: float = 2.0, unsubscribes: float = 0.002) -> Verdict:
    """What a policy was found to earn, a message."""
    increment = Increment(
        margin=estimate(net + cost),
        cost=estimate(cost, 0.01),
        unsubscribes=estimate(unsubscribes, 0.0001),
        net=estimate(net, error),
        parts=(),
        clicks=500.0,
        scale=1.0,
        nearness=1.0,
    )
    return Verdict(
        policy="candidate",
        decisions=5000,
        overlap=overlap(),
        slot_overlap=overlap(),
        sent_share=0.9,
        increment=increment,
        totals={},
        snips_bootstrap=None,
        steps=(),
        propensities=(),
    )


def without_figure() -> Verdict:
    return replace(verdict(10.0), overlap=overlap(effective_sample_size=20.0), increment=None)


@pytest.mark.parametrize(
    ("net", "error", "champion", "margin", "passes"),
    [
        (10.0, 1.0, 8.0, 0.0, True),  # its lower bound is 8.04
        (10.0, 1.0, 8.1, 0.0, False),
        (10.0, 1.0, 8.0, 0.5, False),
        (10.0, 1.0, 7.5, 0.5, True),
        (2.0, 1.0, None, 0.0, True),
        (1.9, 1.0, None, 0.0, False),
        (10.0, 6.0, None, 0.0, False),
    ],
)
def test_lower_bound_must_beat_the_champion(
    net: float, error: float, champion: float | None, margin: float, passes: bool
) -> None:
    """The lower bound of the candidate's net increment must be above the champion's estimate and the margin; without one, above the margin."""
    theirs = None if champion is None else verdict(champion)

    check = gate._check_value(verdict(net, error=error), theirs, Bounds(margin=margin))

    assert check.is_passed is passes
    assert f"{net:.3f} a message" in check.figure
    assert check.value == pytest.approx(net - 1.959964 * error)


def test_no_figure_is_no_pass() -> None:
    """Where the overlap gives no figure for either, the value check fails and says so."""
    for mine, theirs in ((without_figure(), None), (verdict(10.0), without_figure())):
        check = gate._check_value(mine, theirs, Bounds())

        assert (check.is_passed, check.figure) == (False, NOT_ENOUGH)
    assert not gate._check_overlap("candidate", without_figure()).is_passed
    assert not gate._check_cost(without_figure(), None, Bounds()).is_passed


@pytest.mark.parametrize(("cost", "passes"), [(2.9, True), (3.1, False)])
def test_cost_is_held_to_the_champions(cost: float, passes: bool) -> None:
    """Messages may cost at most 1.5 times what the champion's do."""
    assert gate._check_cost(verdict(50.0, cost=cost), verdict(8.0, cost=2.0), Bounds()).is_passed is passes


@pytest.mark.parametrize(("cost", "passes"), [(2.0, True), (12.0, False)])
def test_first_champion_must_earn_its_cost(cost: float, passes: bool) -> None:
    """Without a champion, messages may cost at most the margin that they cause."""
    mine = verdict(10.0 - cost, cost=cost)
    assert gate._check_cost(mine, None, Bounds()).is_passed is passes


@pytest.mark.parametrize(("rate", "passes"), [(0.0024, True), (0.0027, False)])
def test_unsubscribes_are_held_to_the_champions(rate: float, passes: bool, random_log: str) -> None:
    """At most 1.25 times the champion's unsubscribes, and a standard error."""
    log = read_log(random_log, WINDOW)
    check = gate._check_unsubscribes(verdict(9.0, unsubscribes=rate), verdict(8.0), log, Bounds())

    assert check.is_passed is passes
    assert f"{1000 * rate:.2f} per 1000" in check.figure


@pytest.mark.parametrize("has_champion", [False, True])
@pytest.mark.parametrize(("events", "passes"), [(0.0, True), (0.4, True), (2.0, False)])
def test_where_nobody_left_less_than_one_is_no_harm(
    events: float, passes: bool, has_champion: bool, random_log: str
) -> None:
    """A log without unsubscribes is no reason to refuse who is estimated to cause a part of one in as many messages, but two are."""
    log = read_log(random_log, WINDOW)
    log = replace(log, data=replace(log.data, unsubscribed=np.zeros(len(log.data))))
    mine = verdict(9.0, unsubscribes=events / len(log.data))
    assert mine.increment is not None
    mine = replace(mine, increment=replace(mine.increment, unsubscribes=estimate(events / len(log.data), 0.0)))
    check = gate._check_unsubscribes(mine, verdict(8.0, unsubscribes=0.0) if has_champion else None, log, Bounds())

    assert check.is_passed is passes


@pytest.mark.parametrize(
    ("unseen", "has_champion", "passes"), [(1999, True, False), (2000, True, True), (0, False, True)]
)
def test_champion_is_beaten_on_unseen_decisions(unseen: int, has_champion: bool, passes: bool) -> None:
    """With a champion to beat, the candidate must be judged by decisions that it was not trained on."""
    assert gate._check_unseen(unseen, Bounds(), has_champion=has_champion).is_passed is passes


def test_transcript_has_every_check_with_its_figure() -> None:
    """Each check has a line with pass or FAIL, its figure and its bound; one that fails closes the gate."""
    checks = (
        Check(name="cost", figure="2 a message", bound="at most 3", is_passed=True, value=2.0),
        Check(name="calibration error", figure="0.5", bound="at most 0.02", is_passed=False, value=0.5),
    )
    found = Gate(checks=checks, evaluation=None)

    assert not found.is_open
    assert found.refusal == "calibration error"
    assert transcript(checks).splitlines() == [
        "  pass  cost               2 a message; at most 3",
        "  FAIL  calibration error  0.5; at most 0.02",
    ]


@pytest.fixture(scope="module")
def random_log(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The URL of the small log of known truth."""
    url = f"sqlite:///{tmp_path_factory.mktemp('gate') / 'log.db'}"
    write_random(url)
    return url


@pytest.fixture(scope="module")
def fits(random_log: str) -> list[Fitted]:
    """Two fits of the log."""
    data = read_dataset(random_log, WINDOW)
    return [fit(data, Hyperparameters(trees=10, seed=seed), random_log, lambda _: None) for seed in (0, 1)]


class Shop:
    """A registry with two versions, and the commands on it."""

    def __init__(self, uri: str, folder: Path, log: str, fits: list[Fitted]) -> None:
        self.uri, self.log, self.folder = uri, log, folder
        self.registry = MlflowRegistry(uri, NAME, folder / "mlruns")
        data = read_dataset(log, WINDOW)
        for fitted in fits:
            self.registry.keep(fitted, data, Hyperparameters(trees=10), WINDOW, NAME)
        self.client = MlflowClient(tracking_uri=uri, registry_uri=uri)
        (folder / "rules.toml").write_text(RULES_TOML)

    def run(self, command: str, *more: str) -> int:
        own = ["--database", self.log, "--rules", str(self.folder / "rules.toml"), "--folds", "2"]
        return main([command, *(own if command == "promote" else []), "--mlflow", self.uri, *more])

    def champion(self) -> str | None:
        aliases = dict(self.client.get_registered_model(NAME).aliases)
        return str(aliases[CHAMPION]) if CHAMPION in aliases else None

    def runs(self, title: str) -> list[dict[str, str]]:
        """The tags of the runs of that name, the newest first."""
        experiment = self.client.get_experiment_by_name(NAME)
        assert experiment is not None
        found = self.client.search_runs([experiment.experiment_id])
        return [run.data.tags for run in found if str(run.info.run_name).startswith(title)]

    def parameters(self, title: str) -> list[dict[str, str]]:
        """The parameters of the runs of that name, the newest first."""
        experiment = self.client.get_experiment_by_name(NAME)
        assert experiment is not None
        found = self.client.search_runs([experiment.experiment_id])
        return [run.data.params for run in found if str(run.info.run_name).startswith(title)]


@pytest.fixture
def shop(mlflow_uri: str, tmp_path: Path, random_log: str, fits: list[Fitted]) -> Shop:
    return Shop(mlflow_uri, tmp_path, random_log, fits)


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> Callable[[bool], None]:
    """Sets what the gate finds, in the place of judging by the log."""
    state = {"is_open": True}

    def found(*_: object, **__: object) -> Gate:
        check = Check(name="net increment", figure="7.5", bound="above 7", is_passed=state["is_open"], value=7.5)
        return Gate(checks=(check,), evaluation=None)

    monkeypatch.setattr("training.judging.run_gate", found)
    return lambda is_open: state.update(is_open=is_open)


def test_first_version_is_promoted_by_the_whole_gate(
    shop: Shop, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A version that earns is promoted, with every check printed and kept as a run with the evaluation behind it."""
    monkeypatch.setattr("training.gate.milliseconds_of", lambda *_: 1.5)

    assert shop.run("promote", "--version", "1", "--calibration-error", "0.2") == 0

    said = capsys.readouterr().out
    assert shop.champion() == "1"
    for name in ("overlap of the candidate", "net increment", "unsubscribes", "cost", "calibration error"):
        assert f"pass  {name}" in said
    assert "1.50 ms in the median; at most 20 ms" in said
    (tags,) = shop.runs("gate")
    assert tags["gate"] == "open"
    assert "pass  net increment" in tags["mlflow.note.content"]


def test_version_that_is_no_better_is_refused(
    shop: Shop, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Another fit of the same data, and a slow one, does not beat the champion: the alias stays, the refusal says why, and is kept."""
    monkeypatch.setattr("training.gate.milliseconds_of", lambda *_: 35.0)
    shop.registry.promote(NAME, "1")

    assert shop.run("promote", "--version", "2") == 2

    told = capsys.readouterr()
    assert "version 2 of channel-choice is not promoted: it fails" in told.err
    assert "net increment" in told.err
    assert "decisions not trained on" in told.err
    assert "time of a decision" in told.err
    assert "FAIL  net increment" in told.out
    assert shop.champion() == "1"
    (tags,) = shop.runs("gate")
    assert tags["gate"] == "closed"


def test_force_keeps_its_reason(shop: Shop, told: Callable[[bool], None], capsys: pytest.CaptureFixture[str]) -> None:
    """Forced, a version is promoted past a closed gate, and the reason is kept with the run and with the version."""
    told(False)

    assert shop.run("promote", "--version", "2", "--force", "the old one names a channel that is gone") == 0

    assert shop.champion() == "2"
    assert "forced: the old one names a channel that is gone" in capsys.readouterr().out
    (tags,) = shop.runs("gate")
    assert (tags["gate"], tags["gate.force_reason"]) == ("forced", "the old one names a channel that is gone")
    kept = shop.client.get_model_version(NAME, "2").tags
    assert kept["promotion.forced"] == "the old one names a channel that is gone"


def test_passwords_of_logs_are_not_kept(
    shop: Shop, told: Callable[[bool], None], capsys: pytest.CaptureFixture[str]
) -> None:
    """The password of a log's database is neither printed nor kept with the run."""
    told(True)

    assert shop.run("promote", "--database", "postgresql://shop:hushhush@db.example.org/choices") == 0

    kept = json.dumps([shop.runs("gate"), shop.parameters("gate")])
    assert "postgresql://shop:***@db.example.org/choices" in capsys.readouterr().out
    assert "db.example.org/choices" in kept
    assert "hushhush" not in kept


@pytest.mark.parametrize(
    ("url", "name", "short"),
    [
        (
            "postgresql://shop:hushhush@db/choices?sslmode=require",
            "postgresql://shop:***@db/choices?sslmode=require",
            "choices",
        ),
        ("sqlite:///var/shop.db", "var/shop.db", "shop.db"),
        ("sqlite:////srv/shop.db", "/srv/shop.db", "shop.db"),
    ],
)
def test_logs_are_named_without_passwords(url: str, name: str, short: str) -> None:
    """A log is called by where it is, without a password; in a bundle by its own name alone."""
    assert name_log(url) == name
    assert short_name(name) == short


def test_force_without_a_reason_is_refused(
    shop: Shop, told: Callable[[bool], None], capsys: pytest.CaptureFixture[str]
) -> None:
    """An empty reason is none."""
    told(False)

    assert shop.run("promote", "--force", "  ") == 2
    assert "--force needs a reason" in capsys.readouterr().err
    assert shop.champion() is None


def test_log_that_cannot_judge_can_be_forced_past(
    shop: Shop, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without a log nothing is promoted, unless it is forced; why it was not judged is kept."""
    absent = f"sqlite:///{tmp_path / 'absent.db'}"

    assert shop.run("promote", "--database", absent) == 2
    assert "there is no decision log" in capsys.readouterr().err
    assert shop.champion() is None

    assert shop.run("promote", "--database", absent, "--force", "first bundle, no log yet") == 0
    assert shop.champion() == "2"
    assert "not judged: there is no decision log" in shop.runs("gate")[0]["mlflow.note.content"]


def test_rollback_returns_to_the_champion_before(
    shop: Shop, told: Callable[[bool], None], capsys: pytest.CaptureFixture[str]
) -> None:
    """Rollback returns to the version that was champion before, is kept as a run, and has nothing to return to after the first."""
    told(True)
    assert shop.run("promote", "--version", "1") == 0
    assert shop.run("promote", "--version", "2") == 0

    assert shop.run("rollback") == 0

    assert shop.champion() == "1"
    assert "is version 1 again" in capsys.readouterr().out
    assert len(shop.runs("rollback")) == 1
    assert shop.run("rollback") == 2
    assert "version 1 of channel-choice is the first champion" in capsys.readouterr().err
    assert shop.champion() == "1"


def test_rollback_without_a_champion_is_refused(shop: Shop, capsys: pytest.CaptureFixture[str]) -> None:
    """Where nothing was promoted there is nothing to return to."""
    assert shop.run("rollback") == 2
    assert "has no champion; promote a version first" in capsys.readouterr().err


def test_champion_is_not_promoted_again(
    shop: Shop, told: Callable[[bool], None], capsys: pytest.CaptureFixture[str]
) -> None:
    """To promote the champion changes nothing, and does not put it before itself."""
    told(True)
    assert shop.run("promote", "--version", "1") == 0
    assert shop.run("promote", "--version", "1") == 0

    assert "version 1 of channel-choice is champion already" in capsys.readouterr().out
    assert shop.run("rollback") == 2


def test_second_of_two_people_is_refused(
    shop: Shop, told: Callable[[bool], None], capsys: pytest.CaptureFixture[str]
) -> None:
    """While one promotes, another is refused with who it is and what to do; afterwards the other may."""
    told(True)
    with shop.registry.promoting(NAME):
        assert shop.run("promote") == 2
        said = capsys.readouterr().err
        assert shop.run("rollback") == 2
    assert "has been promoting a version of channel-choice for" in said
    assert "delete the registered model channel-choice.promoting if nobody is" in said
    assert shop.champion() is None

    assert shop.run("promote") == 0
    assert shop.champion() == "2"


def test_lock_of_somebody_who_was_killed_is_taken_over(shop: Shop, told: Callable[[bool], None]) -> None:
    """A lock older than a quarter of an hour does not keep anybody from promoting."""
    told(True)
    shop.client.create_registered_model(f"{NAME}.promoting", description="gone")
    with closing(sqlite3.connect(shop.uri.removeprefix("sqlite:///"))) as connection, connection:
        connection.execute(
            "UPDATE registered_models SET creation_time = creation_time - 1000000 WHERE name = ?",
            (f"{NAME}.promoting",),
        )

    assert shop.run("promote") == 0
    assert [model.name for model in shop.client.search_registered_models()] == [NAME]


def test_failed_promotion_leaves_no_lock(shop: Shop, told: Callable[[bool], None]) -> None:
    """After a refusal the next one may promote at once."""
    told(False)
    assert shop.run("promote") == 2
    told(True)
    assert shop.run("promote") == 0


def test_registry_that_is_away_is_said(
    random_log: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A registry that does not answer is told with what to mend, by both commands."""
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    for command in (["promote", "--database", random_log], ["rollback"]):
        assert main([*command, "--mlflow", "http://127.0.0.1:9"]) == 2
        assert "the registry http://127.0.0.1:9 does not answer" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["train --log", "evaluate --database", "replay --policy rule_cascade --database"])
def test_server_that_is_away_is_said_before_any_work(
    command: str, random_log: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A tracking server that does not answer is told before the log is read, not after an hour's training."""
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setattr("training.dataset.find_log", lambda url: pytest.fail(f"{url} was read"))

    assert main([*command.split(), random_log, "--mlflow", "http://127.0.0.1:9"]) == 2

    assert "the registry http://127.0.0.1:9 does not answer" in capsys.readouterr().err


def test_day_of_training_is_left_out(fits: list[Fitted], shop: Shop) -> None:
    """Decisions count as not trained on from the day after the last that the bundle was trained on."""
    bundle: Bundle = shop.registry.fetch(shop.registry.find(NAME, "1"))
    day = fits[0].description.trained_on["last"]

    until = gate.trained_until(bundle)

    assert until is not None
    assert (until.date().isoformat() > day, until.hour) == (True, 0)


def test_milliseconds_are_of_decisions_that_were_logged(random_log: str, shop: Shop) -> None:
    """A bundle is timed on contexts of the log; each takes some time, and a log without any is refused."""
    bundle = shop.registry.fetch(shop.registry.find(NAME, "1"))
    log: Log = read_log(random_log, WINDOW)

    assert gate.milliseconds_of(bundle, log, RULES) > 0
    empty = replace(log, window=100_000 * WINDOW)
    with pytest.raises(LogUnusable, match="no decision to time a bundle by"):
        gate.milliseconds_of(bundle, empty, RULES)
