"""Replaying a log under other policies: what was logged is repeated, caps and budgets couple, and the rest comes from the response model."""

from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
from mlflow.tracking import MlflowClient

from models.bundle import Bundle, load_bundle
from models.context import Context, Verdict
from models.decide import Decision, decide
from models.errors import LogUnusable
from models.features import NO_SEND
from models.rules import Budget, Cap, Rules, parse_rules
from service.requests import AdvanceRequest
from tests.funnels import write_funnel
from tests.training.examples import (
    DAY,
    HOUR,
    NOW,
    RULES,
    RULES_TOML,
    UNIT,
    WINDOW,
    InProcess,
    ask,
    closing,
    happened,
    in_process,
    logged,
    order,
    write,
)
from tests.training.judged_logs import caused, random_decisions, write_random
from training.__main__ import main
from training.dataset import read_dataset
from training.fit import fit, save
from training.grow import Hyperparameters
from training.journal import LoggedDecision, LoggedOutcome
from training.replay import Replayed, replay
from training.replay_log import ReplayLog, open_replay_log
from training.replay_report import summarise
from training.response import expect
from training.targets import make_target

# MLflow 3.17 declares a relationship with a loader that SQLAlchemy 2.1 calls deprecated.
pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy:sqlalchemy.exc.SADeprecationWarning")

ONE_STEP = replace(RULES, cascade=replace(RULES.cascade, max_steps=1))
SMS_ONLY = replace(ONE_STEP, cascade=replace(ONE_STEP.cascade, order=("sms", "push", "email")))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("bundle") / "funnel"


@pytest.fixture(scope="module")
def bundle(folder: Path) -> Bundle:
    """A bundle that expects 30 % of what is noticed to be clicked, and 30 % of that to lead to an order."""
    write_funnel(folder)
    return load_bundle(folder)


def opened(url: str, since: datetime | None = None, until: datetime | None = None) -> ReplayLog:
    return open_replay_log(url, WINDOW, since, until, None)


def run(url: str, policy: str, rules: Rules, bundle: Bundle, seed: int = 0) -> Replayed:
    return replay(opened(url), make_target(policy, rules, bundle), bundle, rules, seed)


def total(found: dict[str, np.ndarray]) -> float:
    return float(sum(column.sum() for column in found.values()))


def serve_some(service: InProcess, messages: int) -> None:
    """Let the service decide messages of a few people, a third of whom click, and advance what they leave; the last closes all windows."""
    rng, due = np.random.default_rng(3), list[tuple[datetime, str, int]]()

    def watch(decision: Decision) -> None:
        if decision.choice.verdict is not Verdict.SEND or decision.choice.slot is None:
            return
        send, name, step = decision.choice.slot.start, decision.context.decision_id, decision.context.step
        draw = rng.random()
        if draw < 0.3:
            service.clock.moment = max(service.clock.moment, send + HOUR)
            seen = happened(f"{name}-{step}", "clicked", send + HOUR, decision_id=name)
            service.outcomes.report([replace(seen, step=step)])
        elif len(decision.choice.steps) > 1:
            due.append((send + decision.choice.steps[0].wait, name, step))

    def advance_until(moment: datetime) -> None:
        while due and min(due)[0] <= moment:
            wait_over, name, step = due.pop(due.index(min(due)))
            service.clock.moment = max(service.clock.moment, wait_over)
            asked = AdvanceRequest(decision_id=name, completed_step=step, channels=())
            watch(service.decisions.advance(asked).decision)

    for number in range(messages):
        moment = max(service.clock.moment, NOW + number * 5 * HOUR)
        advance_until(moment)
        service.clock.moment = max(service.clock.moment, moment)
        watch(service.decisions.choose(ask(f"r-{number}", customer=f"c-{number % 7}")).decision)
    advance_until(NOW + 365 * DAY)
    service.clock.moment += 40 * DAY
    service.decisions.choose(ask("last", customer="nobody"))


def test_the_policy_that_made_the_log_repeats_it(tmp_path: Path, folder: Path, bundle: Bundle) -> None:
    """Replayed by the rules and bundle that decided it, a served log comes out as it was, step by step, and earns and costs what it did."""
    rules = replace(RULES, caps=(Cap(name="day", limit=2, window_hours=24),))
    with in_process(tmp_path, rules, str(folder)) as service:
        serve_some(service, 60)
        url = service.url

    again = run(url, rules.policy.name, rules, bundle)
    as_it_was = replay(opened(url), make_target("logged", rules, None), bundle, rules)

    assert again.steps_as_logged == again.steps > 65
    for name in ("margin", "cost", "unsubscribes"):
        assert getattr(again, name) == pytest.approx(getattr(as_it_was, name))
    assert {c: n.sum() for c, n in again.sends.items()} == {c: n.sum() for c, n in as_it_was.sends.items()}
    assert total(again.costs) > 0


def test_another_policy_leaves_what_was_logged(log_url: str, bundle: Bundle) -> None:
    """A policy that sends otherwise has steps drawn, earns what the model expects of them, and the same again with the same seed."""
    write(log_url, [logged("a", channel="push"), logged("b", channel=NO_SEND, customer="boris"), closing()])

    one, same = (run(log_url, "rule_cascade", SMS_ONLY, bundle, seed=4) for _ in range(2))

    assert (one.steps, one.steps_as_logged) == (2, 0)
    assert one.cost == pytest.approx([5.3, 5.3])
    assert one.margin == pytest.approx(same.margin)
    assert one.margin == pytest.approx([900 * 0.3 * 0.3 * 0.5] * 2, rel=0.6)


def spree(count: int, gap: timedelta, *, customers: int = 1) -> list[LoggedDecision]:
    """Messages, one after the other, of a few customers, nothing of which was sent."""
    return [
        logged(f"s-{i}", moment=NOW + i * gap, channel=NO_SEND, customer=f"c-{i % customers}") for i in range(count)
    ]


def test_caps_count_what_the_replay_has_sent(each_log_url: str, bundle: Bundle) -> None:
    """Where the log sent nothing, a cap of one a week lets the replay send one message a week to each customer, and no more."""
    write(each_log_url, [*spree(20, 12 * HOUR, customers=2), closing()])
    rules = replace(SMS_ONLY, caps=(Cap(name="week", limit=1, window_hours=168),))

    found = run(each_log_url, "rule_cascade", rules, bundle)

    assert found.sends["sms"].tolist() == [1, 1] + [0] * 12 + [1, 1] + [0] * 4


def test_what_the_log_sent_does_not_count_in_caps(log_url: str, bundle: Bundle) -> None:
    """A contact of a message that is replayed counts as the replay made it, not as it was logged."""
    first, second = spree(2, 12 * HOUR)
    sent = replace(first, action=replace(logged("x").action, channel="push", send_time=NOW), price_micros=0)
    write(log_url, [sent, second, closing()])
    rules = replace(SMS_ONLY, caps=(Cap(name="push", limit=1, window_hours=168, channel="push"),))

    found = run(log_url, "rule_cascade", rules, bundle)

    assert found.sends["sms"].tolist() == [1, 1]
    assert "push" not in found.sends


@pytest.mark.parametrize(("period", "days"), [("day", 10), ("week", 2)])
def test_no_budget_is_overspent(log_url: str, bundle: Bundle, period: str, days: int) -> None:
    """In no period does a replay spend more than a budget, and each period begins with its full amount."""
    write(log_url, [*spree(80, 3 * HOUR, customers=80), closing()])
    budget = Budget(name="sms", amount=16 * UNIT, period=period, channel="sms")  # type: ignore[arg-type]  # a period
    rules = replace(SMS_ONLY, budgets=(budget,), cascade=replace(SMS_ONLY.cascade, order=("sms",)))

    found = run(log_url, "rule_cascade", rules, bundle)

    assert 0 < found.cost.sum() <= 16.0 * (days + 1)
    by_day = [float(found.cost[i : i + 8].sum()) for i in range(0, 80, 8)]
    assert max(by_day) <= 16.0 + 16.0 * (period == "day")
    assert found.sends["sms"].sum() >= 3


def test_an_order_before_the_send_cancels_it(log_url: str, bundle: Bundle) -> None:
    """A customer who orders anyway before the send gets no message, and it costs nothing; one who orders after it does."""
    night = NOW + 11 * HOUR  # 20:00 UTC is 23:00 in Moscow
    quiet = parse_rules(RULES_TOML + '[quiet_hours]\nstart = "21:30"\nend = "09:00"\n')
    rules = replace(SMS_ONLY, quiet_hours=quiet.quiet_hours)
    early, late = (
        logged(f"n-{i}", moment=night, channel=NO_SEND, customer=f"c-{i}", outcomes=[order(night + wait)])
        for i, wait in enumerate((2 * HOUR, 20 * HOUR))
    )
    write(log_url, [early, late, closing()])

    found = run(log_url, "rule_cascade", rules, bundle)

    assert sorted(found.cost) == [0.0, pytest.approx(5.3)]


def test_orders_that_logged_messages_caused_go_with_them(
    log_url: str, bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of orders after a click on what the replay does not send, the share that the model says were caused are taken away; the others stay."""
    clicked = LoggedOutcome(type="clicked", occur_time=NOW + HOUR)
    first = [logged(f"m-{i}", customer=f"c-{i}", outcomes=[clicked, order(NOW + 2 * HOUR)]) for i in range(300)]
    second = [logged(f"l-{i}", moment=NOW + DAY, channel=NO_SEND, customer=f"c-{i}") for i in range(300)]
    write(log_url, [*first, *second, closing()])
    known = list[int]()

    def watch(context: Context, rules: Rules, bundle: Bundle | None) -> Decision:
        if context.decide_time == NOW + DAY:
            known.append(len(context.customer.order_times))
        return decide(context, rules, bundle)

    monkeypatch.setattr("training.replay.decide", watch)
    expected = expect(bundle, first[0].context, first[0].action, RULES)
    run(log_url, "rule_cascade", replace(SMS_ONLY, caps=(Cap(name="none", limit=0, window_hours=24),)), bundle)

    kept = expected.organic / (expected.organic + expected.gain)
    assert np.mean(known) == pytest.approx(kept, abs=4 * (kept * (1 - kept) / 300) ** 0.5)


def test_being_noticed_earns_where_the_model_knows_no_clicks(log_url: str, tmp_path: Path) -> None:
    """By a bundle that was taught no clicks, a logged send that was noticed earns what one notice is expected to, and one that was not earns nothing."""
    write_funnel(tmp_path / "unclicked", clicked=0.99999)
    model = load_bundle(tmp_path / "unclicked")
    noticed = LoggedOutcome(type="seen", occur_time=NOW + HOUR)
    sends = [logged("a", outcomes=[noticed]), logged("b", customer="boris"), closing()]
    write(log_url, sends)

    found = replay(opened(log_url), make_target("logged", RULES, None), model, RULES)

    gain = expect(model, sends[0].context, sends[0].action, RULES).gain
    assert 0 < gain < 1
    assert found.margin == pytest.approx([900 * gain, 0.0])


def test_a_replay_earns_what_is_true(log_url: str, tmp_path: Path) -> None:
    """With a model fitted on a log of known truth, a policy that the log hardly followed comes out within a third of what it truly causes, and costs what it must."""
    write_random(log_url, 4000)
    fitted = fit(read_dataset(log_url, WINDOW), Hyperparameters(trees=20), log_url, lambda _: None)
    save(fitted, tmp_path / "fitted", "fitted")
    model = load_bundle(tmp_path / "fitted")
    rules = {name: replace(ONE_STEP, cascade=replace(ONE_STEP.cascade, order=(name,))) for name in ("push", "sms")}

    found = {name: run(log_url, "rule_cascade", mine, model) for name, mine in rules.items()}

    for name, one in found.items():
        assert one.margin.mean() == pytest.approx(caused(name), rel=1 / 3)
    assert found["push"].cost.sum() == 0
    assert found["sms"].cost.mean() == pytest.approx(5.3, rel=0.02)


def test_intervals_are_of_customers(log_url: str, bundle: Bundle) -> None:
    """Intervals hold the mean; of a log of few customers with many messages each they are wider than of as many customers."""
    widths = []
    for customers in (200, 10):
        url = log_url.replace("log.db", f"{customers}.db")
        messages = [
            logged(
                f"w-{i}",
                moment=NOW + i * HOUR,
                channel="sms",
                customer=f"c-{i % customers}",
                price_micros=UNIT * (i % customers % 2),
            )
            for i in range(200)
        ]
        write(url, [*messages, closing()])
        one = replay(opened(url), make_target("logged", RULES, None), bundle, RULES)
        (figures,) = summarise([one], 0.0, np.random.default_rng(0), [None]).figures
        assert figures["cost"].low < 0.5 < figures["cost"].high
        assert figures["net"].value == pytest.approx(figures["margin"].value - figures["cost"].value)
        widths.append(figures["cost"].high - figures["cost"].low)

    assert widths[1] > 3 * widths[0]


def test_only_messages_of_the_time_named_are_replayed(log_url: str, bundle: Bundle) -> None:
    """From is inclusive, to is not; open windows, deferrals and what was not LIVE are left out; a time without messages is refused."""
    write(log_url, [*spree(10, DAY, customers=10), closing()])

    assert len(opened(log_url)) == 10
    assert len(opened(log_url, NOW + 2 * DAY, NOW + 5 * DAY)) == 3
    assert len(open_replay_log(log_url, WINDOW, None, None, NOW + 5 * DAY)) == 3
    with pytest.raises(LogUnusable, match=r"no live decision of .* from --from to --to has its window"):
        opened(log_url, NOW + 300 * DAY)


def refused(command: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    assert main(command) == 2
    return capsys.readouterr().err


def test_command_prints_a_simulation_beside_the_estimate(
    log_url: str,
    folder: Path,
    mlflow_uri: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The command says that it is a simulation and of which model, has the off-policy estimate beside it, and keeps all of it as an MLflow run."""
    monkeypatch.chdir(tmp_path)
    write_random(log_url)
    rules = tmp_path / "rules.toml"
    rules.write_text(RULES_TOML)
    command = ["replay", "--database", log_url, "--rules", str(rules), "--folds", "2", "--mlflow", mlflow_uri]

    code = main([*command, "--policy", "logged", "rule_cascade", "--bundle", str(folder)])

    assert code == 0
    text = capsys.readouterr().out
    assert "a simulation: budgets and caps couple customers" in text
    assert f"response model {load_bundle(folder).version}" in text
    assert "| logged | " in text
    client = MlflowClient(tracking_uri=mlflow_uri)
    experiment = client.get_experiment_by_name("channel-choice")
    assert experiment is not None
    (run,) = client.search_runs([experiment.experiment_id])
    metrics = run.data.metrics
    assert metrics["policy1.net.low"] < metrics["policy1.net"] < metrics["policy1.net.high"]
    assert metrics["policy1.net_over"] == pytest.approx(metrics["policy1.net"] - metrics["policy0.net"])
    assert metrics["policy1.off_policy.net.low"] < metrics["policy1.off_policy.net.high"]
    assert metrics["policy1.sends.push"] > 0.9
    assert run.data.tags["figure"] == "simulation"
    assert [f.path for f in client.list_artifacts(run.info.run_id)] == ["replay.md"]


def test_parquet_is_replayed_as_the_database(
    log_url: str, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The export of a log gives the figures of the log itself, whatever a bundle's policy is named by."""
    write(log_url, [*random_decisions(400), closing()])
    rules = tmp_path / "rules.toml"
    rules.write_text(RULES_TOML)
    assert main(["export", "--log", log_url, "--to", str(tmp_path / "parquet")]) == 0
    capsys.readouterr()
    tables = []
    for log in (log_url, str(tmp_path / "parquet")):
        assert (
            main(
                [
                    "replay",
                    "--log",
                    log,
                    "--rules",
                    str(rules),
                    "--policy",
                    str(folder),
                    "--no-off-policy",
                    "--no-mlflow",
                ]
            )
            == 0
        )
        tables.append(capsys.readouterr().out)

    assert tables[0] == tables[1]
    assert "| greedy_floor, by-hand-" in tables[0]


def test_logs_that_say_nothing_of_policies_are_replayed_all_the_same(
    log_url: str, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without overlap there is no off-policy estimate, and it is said; where the log cannot judge at all, so is why."""
    rules = tmp_path / "rules.toml"
    rules.write_text(RULES_TOML)
    command = ["replay", "--database", log_url, "--rules", str(rules), "--no-mlflow", "--policy", "rule_cascade"]
    write(log_url, [*(replace(d, propensity=1.0) for d in random_decisions(400)), closing(NOW + 365 * DAY)])

    assert main([*command, "--bundle", str(folder)]) == 0

    text = capsys.readouterr().out
    assert "| not judged |" in text
    assert "off-policy: not judged: every propensity of the log is 1" in text


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--policy", "rule_cascade"], "no bundle says what would come of other sends; name one with --response"),
        (["--policy", "greedy"], "the policy greedy chooses by a bundle's values; name one with --bundle"),
        (["--policy", "fastest"], "there is no policy fastest"),
        (["--policy", "greedy", "--bundle", "absent"], "bundle absent: has no manifest.json"),
        (["--policy", "models:/shop@champion"], "there is no registry absent.db"),
    ],
)
def test_mistakes_are_told(
    arguments: list[str], said: str, log_url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each mistake on the command line is told with the way out."""
    write(log_url, [logged("a"), closing()])
    rules = tmp_path / "rules.toml"
    rules.write_text(RULES_TOML)

    told = refused(
        ["replay", "--database", log_url, "--rules", str(rules), "--mlflow", "sqlite:///absent.db", *arguments], capsys
    )

    assert said in told
