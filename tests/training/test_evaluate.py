"""`python -m training evaluate`: any policy judged by a log, with its figures, what they rest on, and what is refused."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mlflow.tracking import MlflowClient

from models.actions import ActionTable
from models.decide import Distribution
from models.errors import LogUnusable
from models.features import NO_SEND, Action
from models.rules import Rules
from tests.training.examples import NOW, RULES, RULES_TOML, WINDOW, closing, logged, run_sql, write
from tests.training.judged_logs import CHANNELS, caused, random_decisions, write_random
from training.__main__ import main
from training.evaluate import NOT_ENOUGH, Evaluation, evaluate_policies, table
from training.journal import LoggedDecision
from training.judged import draws_evenly, make_folds, read_log
from training.off_policy import Overlap, bootstrap, direct_method, find_overlap
from training.targets import make_target

pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy:sqlalchemy.exc.SADeprecationWarning")

ONE_STEP = replace(RULES, cascade=replace(RULES.cascade, max_steps=1))


def rules_of(order: tuple[str, ...]) -> Rules:
    return replace(ONE_STEP, cascade=replace(ONE_STEP.cascade, order=order))


@pytest.fixture(scope="module")
def random_log(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The URL of the small log of known truth."""
    url = f"sqlite:///{tmp_path_factory.mktemp('judged') / 'log.db'}"
    write_random(url)
    return url


@pytest.fixture(scope="module")
def evaluation(random_log: str) -> Evaluation:
    """Push first and email first, judged by it."""
    targets = [
        replace(make_target("rule_cascade", rules_of((first, "sms")), None), name=first) for first in ("push", "email")
    ]
    return evaluate_policies(random_log, targets, ONE_STEP, WINDOW, folds=2)


def with_distribution(decision: LoggedDecision, chances: dict[str, float]) -> LoggedDecision:
    """The decision with what it was drawn from."""
    send = decision.context.decide_time
    actions = tuple(Action(channel=c, send_time=None if c == NO_SEND else send) for c in chances)
    nothing = np.zeros(len(actions))
    values: dict[str, Any] = {
        name: nothing for name in ActionTable.__slots__ if name not in ("actions", "is_paid", "curves")
    }
    known = ActionTable(actions=actions, is_paid=np.zeros(len(actions), dtype=bool), **values)
    return replace(decision, distribution=Distribution(table=known, probabilities=np.array(list(chances.values()))))


@pytest.mark.parametrize("channel", ["push", "email"])
def test_truth_lies_in_the_interval(evaluation: Evaluation, channel: str) -> None:
    """What a policy's sends cause is within the interval of its margin, which does not reach down to nothing for push."""
    verdict = next(v for v in evaluation.verdicts if v.policy == channel)

    assert verdict.increment is not None
    low, high = verdict.increment.margin.interval()
    assert low <= caused(channel) <= high
    assert verdict.increment.cost.value == pytest.approx(0.0)
    assert verdict.sent_share == pytest.approx(1.0)
    assert verdict.increment.margin.interval()[0] > 0 or channel == "email"


def test_every_estimate_is_there(evaluation: Evaluation) -> None:
    """Beside the increment there are IPS, SNIPS, DM and DR of the total, which agree with each other within their errors."""
    totals = evaluation.verdicts[0].totals

    assert list(totals) == ["IPS", "SNIPS", "DM", "DR"]
    for name in ("IPS", "DR"):
        gap = abs(totals[name].value - totals["SNIPS"].value)
        assert gap < 4 * np.hypot(totals[name].standard_error, totals["SNIPS"].standard_error)


def test_table_says_what_it_rests_on(evaluation: Evaluation) -> None:
    """The table has a line for each policy, its overlap, and the estimates that its figure is made of."""
    text = table(evaluation)

    assert "increment over no send, RUB per 1000 messages" in text
    assert "| push |" in text
    assert "clicks, by slot" in text
    assert "effective sample" in text
    assert "with what is ordered anyway" in text


def test_policy_that_made_the_log_is_judged_by_its_distributions(log_url: str) -> None:
    """Where the log has distributions, the policy that made it is judged by them, and every weight is 1."""
    even = dict.fromkeys(CHANNELS, 1 / len(CHANNELS))
    write(log_url, [*(with_distribution(d, even) for d in random_decisions(1200)), closing(NOW + 1000 * WINDOW)])

    (verdict,) = evaluate_policies(log_url, [make_target("logged", RULES, None)], ONE_STEP, WINDOW, folds=2).verdicts

    assert verdict.overlap.effective_sample_size == pytest.approx(verdict.decisions)
    assert verdict.increment is not None
    low, high = verdict.increment.margin.interval()
    assert low <= np.mean([caused(c) for c in CHANNELS if c != NO_SEND]) * 3 / 4 <= high


def test_log_without_distributions_has_no_policy_to_judge(random_log: str) -> None:
    """The policy that made a log cannot be judged where the log does not say what else it might have done."""
    with pytest.raises(LogUnusable, match="has no distribution, so that the policy that made the log is not known"):
        evaluate_policies(random_log, [make_target("logged", RULES, None)], ONE_STEP, WINDOW, folds=2)


def test_slots_are_taken_as_they_were_drawn(random_log: str) -> None:
    """A log whose sends all went out at once is not taken for one that drew a slot."""
    assert not draws_evenly(read_log(random_log, WINDOW), ONE_STEP)


def test_decisions_not_sent_are_judged_too(log_url: str, random_log: str) -> None:
    """A decision that NOT_SENT takes out of training stays among those that policies are judged by."""
    decisions = random_decisions(400)
    write(log_url, [*decisions, closing(NOW + 1000 * WINDOW)])
    send = next(d for d in decisions if d.action.channel != NO_SEND)
    statement = "UPDATE decisions SET trainable = 0 WHERE decision_id = ?"
    before = len(read_log(log_url, WINDOW))
    run_sql(log_url, statement, send.context.decision_id)
    assert len(read_log(log_url, WINDOW)) == before - 1

    columns = (
        "event_id, digest, decision_id, step, customer_key, type, occur_time, receive_time, status, machine_generated"
    )
    values = "'ns', x'00', decision_id, step, customer_key, 'not_sent', decide_time, decide_time, 'accepted', 0"
    run_sql(
        log_url,
        f"INSERT INTO outcomes ({columns}) SELECT {values} FROM decisions WHERE decision_id = ?",
        send.context.decision_id,
    )

    assert len(read_log(log_url, WINDOW)) == before


def test_customers_stay_in_one_fold(random_log: str) -> None:
    """All decisions of one customer are in one fold, and every fold has some."""
    data = read_log(random_log, WINDOW).data
    data = replace(data, customer=np.array([f"c-{i % 50}" for i in range(len(data))]))

    fold = make_folds(data, 3, 0)

    assert set(fold.tolist()) == {0, 1, 2}
    assert all(len(set(fold[data.customer == name].tolist())) == 1 for name in np.unique(data.customer))


def overlap(**changes: float) -> Overlap:
    known = {
        "decisions": 5000,
        "effective_sample_size": 1000.0,
        "effective_events": 60.0,
        "largest_share": 0.01,
        "thin_share": 0.0,
        "mean_weight": 1.0,
        "mean_weight_error": 0.01,
    }
    return Overlap(**(known | changes))  # type: ignore[arg-type]  # one of them is a count


def test_enough_overlap_has_no_problem() -> None:
    """A log that holds what the policy would do has nothing to say against it."""
    assert overlap().problems == ()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"effective_sample_size": 150.0}, "effective sample size 150, at least 200"),
        ({"effective_events": 9.0}, "9 effective events, at least 25"),
        ({"largest_share": 0.2}, "one decision has 20.0% of the weight"),
        ({"thin_share": 0.3}, "30.0% of what the policy would do has a logged probability below 0.002"),
        ({"mean_weight": 0.5}, "weights have a mean of 0.50 where it should be 1"),
    ],
)
def test_each_lack_of_overlap_is_said(changes: dict[str, float], said: str) -> None:
    """Every way in which overlap can lack is told with its figure and bound."""
    (problem,) = overlap(**changes).problems

    assert said in problem


def test_without_overlap_there_is_no_figure(evaluation: Evaluation) -> None:
    """Where the overlap is not enough the table says so in the place of a number."""
    first = evaluation.verdicts[0]
    refused = replace(
        first, overlap=overlap(effective_sample_size=20.0), increment=None, totals={}, snips_bootstrap=None
    )

    text = table(replace(evaluation, verdicts=(refused,)))

    assert f"| push | {NOT_ENOUGH} |" in text
    assert f"{NOT_ENOUGH}: effective sample size 20" in text


def test_overlap_of_nothing() -> None:
    """Weights that are all 0 have no effective sample."""
    nothing = np.zeros(10)

    assert find_overlap(nothing, nothing, nothing > 0).effective_sample_size == 0


def test_bootstrap_agrees_with_the_normal_interval() -> None:
    """Where nothing is skewed, drawing customers anew gives the interval of the influence function within a tenth of its width."""
    rng = np.random.default_rng(0)
    values = rng.normal(5.0, 2.0, 4000)

    low, high = bootstrap(values, np.ones(4000), np.arange(4000), rng)

    half = 1.96 * 2.0 / np.sqrt(4000)
    assert (low, high) == pytest.approx((values.mean() - half, values.mean() + half), abs=0.2 * half)


def test_direct_method_is_the_mean() -> None:
    """The direct method is the model's mean, with the error of its contexts alone."""
    found = direct_method(np.array([1.0, 2.0, 3.0]))

    assert found.value == pytest.approx(2.0)
    assert found.standard_error == pytest.approx(np.sqrt(2 / 3) / np.sqrt(3))


@pytest.mark.parametrize(
    ("statement", "said"),
    [
        ("UPDATE decisions SET propensity = 1", "every propensity of the log is 1"),
        (
            "UPDATE decisions SET propensity = 0 WHERE rowid = 7",
            r"has propensity 0.0, which is not in \(0, 1\]; mend the log",
        ),
        (
            "UPDATE decisions SET propensity = 1.5 WHERE rowid = 7",
            r"has propensity 1.5, which is not in \(0, 1\]; mend the log",
        ),
        ("DELETE FROM outcomes", "0 of 400 decisions were followed by an order"),
        ("DELETE FROM decisions WHERE channel = 'none'", "no decision of the log is a no send"),
    ],
)
def test_logs_that_cannot_judge_are_refused(log_url: str, statement: str, said: str) -> None:
    """A log with impossible or certain propensities, of one class or one side is refused with what is missing."""
    write(log_url, [*random_decisions(400), closing(NOW + 1000 * WINDOW)])
    run_sql(log_url, statement)

    with pytest.raises(LogUnusable, match=said):
        read_log(log_url, WINDOW)


@pytest.mark.parametrize(
    ("chances", "said"),
    [
        ({NO_SEND: 0.5, "push": 0.4}, "does not sum to 1"),
        ({NO_SEND: 0.9, "push": 0.1}, "has propensity 0.5, but 0.1 in its distribution"),
        ({NO_SEND: 1.5, "push": -0.5}, "does not sum to 1"),
    ],
)
def test_distributions_that_are_none_are_refused(log_url: str, chances: dict[str, float], said: str) -> None:
    """A logged distribution that does not sum to 1, is negative or does not hold the logged propensity is refused by its decision."""
    odd = with_distribution(logged("odd", propensity=0.5), chances)
    write(log_url, [*random_decisions(400), odd, closing(NOW + 1000 * WINDOW)])
    log = read_log(log_url, WINDOW)

    with pytest.raises(LogUnusable, match=said):
        list(log.decisions())


def test_actions_that_are_unknown_to_the_rules_have_no_overlap(log_url: str) -> None:
    """A log of channels that the rules do not have cannot judge a policy by those rules: weights do not have a mean of 1."""
    decisions = random_decisions(1200)
    write(log_url, [*decisions, closing(NOW + 1000 * WINDOW)])
    run_sql(log_url, "UPDATE decisions SET channel = 'pigeon' WHERE channel = 'push'")

    (verdict,) = evaluate_policies(
        log_url, [make_target("rule_cascade", ONE_STEP, None)], ONE_STEP, WINDOW, folds=2
    ).verdicts

    assert verdict.increment is None
    assert any("weights have a mean of" in problem or "effective" in problem for problem in verdict.problems)


@pytest.mark.parametrize(
    ("policy", "said"),
    [
        ("telepathy", "there is no policy telepathy; name one of logged, "),
        ("absent.toml", "there is no rules file absent.toml"),
        ("greedy", "chooses by a bundle's values; name one with --bundle"),
        ("inverse_gap", "needs an exploration_budget"),
    ],
)
def test_policies_that_cannot_be_run_are_refused(policy: str, said: str) -> None:
    """A policy that does not exist, or lacks what it needs, is refused with what to name."""
    with pytest.raises(LogUnusable, match=said):
        make_target(policy, RULES, None)


def test_command_prints_and_logs(
    random_log: str,
    mlflow_uri: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The command prints the table and keeps it as an MLflow run, with every figure as a metric."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "rules.toml").write_text(RULES_TOML)

    command = ["evaluate", "--database", random_log, "--rules", "rules.toml", "--folds", "2"]
    code = main([*command, "--policy", "rule_cascade", "--mlflow", mlflow_uri])

    assert code == 0
    assert "| rule_cascade |" in capsys.readouterr().out
    client = MlflowClient(tracking_uri=mlflow_uri)
    experiment = client.get_experiment_by_name("channel-choice")
    assert experiment is not None
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.info.status == "FINISHED"
    assert run.data.params["policy0"] == "rule_cascade"
    assert run.data.metrics["policy0.net.low"] < run.data.metrics["policy0.net"] < run.data.metrics["policy0.net.high"]
    assert [f.path for f in client.list_artifacts(run.info.run_id)] == ["evaluation.md"]


def test_command_says_where_mlflow_is_away(
    random_log: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A tracking store that does not answer is told with what to mend; `--no-mlflow` goes without."""
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    (tmp_path / "rules.toml").write_text(RULES_TOML)
    command = ["evaluate", "--database", random_log, "--rules", str(tmp_path / "rules.toml"), "--folds", "2"]
    command += ["--policy", "rule_cascade", "--mlflow", "http://127.0.0.1:9"]

    assert main(command) == 2
    assert "the registry http://127.0.0.1:9 does not answer" in capsys.readouterr().err
    assert main([*command, "--no-mlflow"]) == 0
