"""The whole loop on a log: import, train, promote, evaluate, replay, serve, decide over gRPC, report, judge. And the judging against known truth."""

import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from models.features import NO_SEND
from service.gen.channelchoice.v1.decision_pb2 import Decision
from tests.training.examples import run_sql
from tests.training.outside import BASKET, BUNDLES, SHARES, chance, lead_of, make_starbucks
from training.evaluate_log import Verdict, judge, table
from training.logs import starbucks

FloatArray = NDArray[np.float64]
CUSTOMERS = 600
WORLDS, ROWS = 200, 1500
PRICE = 3.0
ACTIONS = tuple(BUNDLES)


@dataclass(frozen=True, kw_only=True)
class Loop:
    """What one run of `evaluate-log` printed and left behind."""

    lines: list[str]
    work: Path

    def rows(self) -> dict[tuple[str, str], list[str]]:
        """The last table's cells by price and policy."""
        begin = next(i for i, line in enumerate(self.lines) if line.startswith("| price of social"))
        found = [[cell.strip() for cell in line.strip("|").split("|")] for line in self.lines[begin + 2 :]]
        return {(cells[0], cells[1]): cells[2:] for cells in found}

    def value(self, price: str, policy: str) -> tuple[float, float]:
        """Value and half of its interval."""
        value, half = self.rows()[price, policy][0].split(" ± ")
        return float(value), float(half)


@pytest.fixture(scope="module")
def loop(mlflow_template: Path, tmp_path_factory: pytest.TempPathFactory, root: Path) -> Loop:
    """The loop on 600 customers, at prices of 0 and 50 USD for a social send."""
    data = make_starbucks(CUSTOMERS, seed=2).write(tmp_path_factory.mktemp("data"))
    work = tmp_path_factory.mktemp("work")
    shutil.copy(mlflow_template, work / "mlflow.db")
    command = [sys.executable, "-m", "training", "evaluate-log", "--log", "starbucks", "--data", str(data)]
    command += ["--work", str(work), "--social-price", "0", "50"]

    run = subprocess.run(command, cwd=root, capture_output=True, text=True)

    assert run.returncode == 0, run.stdout + run.stderr
    return Loop(lines=run.stdout.splitlines(), work=work)


def test_loop_prints_a_table_of_every_policy(loop: Loop) -> None:
    """At each price the table has the service and six policies beside it, each with value, interval and effective sample size."""
    policies = {
        "service",
        "logging policy",
        "everything to everyone",
        "rule cascade, first step",
        "mobile to everyone",
        "social to everyone",
        "no send",
    }

    assert set(loop.rows()) == {(price, policy) for price in ("0", "50") for policy in policies}
    for (_, policy), cells in loop.rows().items():
        value, sample, difference, paid = cells
        assert re.fullmatch(r"-?\d+\.\d\d ± \d+\.\d\d", value)
        assert 50 < int(sample) <= CUSTOMERS
        assert (difference == "") == (policy == "service")
        assert re.fullmatch(r"\d+ %", paid)


def test_gate_evaluation_and_replay_are_printed(loop: Loop) -> None:
    """The gate tells each check by the last wave, and the policies are evaluated and replayed on it, with runs in MLflow."""
    checks = [line for line in loop.lines if re.match(r"  (pass|FAIL)  ", line)]

    assert [re.split(r"  +", line.strip())[1] for line in checks] == [
        "decisions not trained on",
        "overlap of the candidate",
        "net increment",
        "unsubscribes",
        "cost",
        "calibration error",
        "time of a decision",
    ]
    assert f"decisions not trained on  {CUSTOMERS};" in checks[0]
    told = [line for line in loop.lines if line.startswith(("starbucks@champion is", "version 1 of starbucks is not"))]
    assert len(told) == 1
    assert (told[0].startswith("starbucks@champion")) == all(check.startswith("  pass") for check in checks)
    assert sum("increment over no send, USD per 1000 messages" in line for line in loop.lines) == 2
    assert sum(line.startswith("| logged |") for line in loop.lines) == 2
    assert sum(line.startswith("run ") for line in loop.lines) == 2


def test_loop_values_plain_policies_as_planted(loop: Loop) -> None:
    """What no model is needed for comes out at its planted value: within four standard errors of it."""
    planted = {"no send": "none", "rule cascade, first step": "base", "mobile to everyone": "mobile"}
    for policy, action in planted.items():
        value, half = loop.value("0", policy)
        truth = BASKET * chance(action, False)
        assert value == pytest.approx(truth, abs=4 * half / 1.96)


def test_service_finds_the_planted_effect(loop: Loop) -> None:
    """Where social is free the service beats no send and the rule cascade: it sends social to the young, whom alone it moves."""
    service, _ = loop.value("0", "service")

    assert service > loop.value("0", "no send")[0]
    assert service > loop.value("0", "rule cascade, first step")[0]
    assert 25 <= int(loop.rows()["0", "service"][3].removesuffix(" %")) <= 75


def test_service_sends_nothing_that_costs_more_than_it_earns(loop: Loop) -> None:
    """At 50 USD a social send costs more than any basket, and the service leaves it; sending it to everyone loses money."""
    assert loop.rows()["50", "service"][3] == "0 %"
    assert loop.value("50", "service")[0] > loop.value("50", "social to everyone")[0] + 20


def test_price_moves_only_who_pays_it(loop: Loop) -> None:
    """The price of social changes nothing for policies that never use it, and is taken off in full from one that always does."""
    for policy in ("no send", "rule cascade, first step", "mobile to everyone"):
        assert loop.rows()["0", policy][:2] == loop.rows()["50", policy][:2]
    free, dear = loop.value("0", "social to everyone")[0], loop.value("50", "social to everyone")[0]
    assert free - dear == pytest.approx(50.0, abs=0.02)


def test_every_customer_was_decided_and_matches_reported(loop: Loop) -> None:
    """Each copy of the log holds the last wave's decisions by the bundle, every customer's, and outcomes of those that matched."""
    for price in ("0", "50"):
        url = f"sqlite:///{loop.work / f'price-{price}.db'}"
        (decided,) = run_sql(
            url,
            "SELECT count(*), min(bundle_version), max(bundle_version) FROM decisions WHERE policy != 'starbucks_log'",
        )
        assert decided[0] == CUSTOMERS
        assert decided[1] == decided[2]
        assert str(decided[1]).startswith("starbucks-")
        (told,) = [line for line in loop.lines if line.startswith(f"price {price}: ")]
        matched = re.fullmatch(
            rf"price {price}: {CUSTOMERS} decided, outcomes of (\d+) matching logged actions reported", told
        )
        assert matched
        assert 0.1 * CUSTOMERS < int(matched[1]) < 0.6 * CUSTOMERS
        (reported,) = run_sql(
            url,
            "SELECT count(*) FROM outcomes o JOIN decisions d USING (decision_id) WHERE d.policy != 'starbucks_log'",
        )
        assert int(str(reported[0])) > 0


def test_model_of_the_loop_saw_earlier_waves_alone(loop: Loop) -> None:
    """The log that was learned from holds the first three waves, and nothing of the one that is judged."""
    url = f"sqlite:///{loop.work / 'log.db'}"

    (row,) = run_sql(url, "SELECT count(*), count(DISTINCT decide_time) FROM decisions")

    assert row == (3 * CUSTOMERS, 3)


def decision_of(shares: Mapping[str, float]) -> Decision:
    """A decision over the service's channels, as it answers them: no send is an action without a channel."""
    decision = Decision()
    for channel, propensity in shares.items():
        decision.actions.add(channel="" if channel == NO_SEND else channel, propensity=propensity)
    return decision


FOR_YOUNG = {NO_SEND: 0.05, "web": 0.02, "email": 0.03, "mobile": 0.1, "social": 0.8}
FOR_OLD = {NO_SEND: 0.1, "web": 0.1, "email": 0.1, "mobile": 0.6, "social": 0.1}


def value_of(action: str, is_young: bool) -> float:
    """The true value of an action at the price, in USD."""
    return BASKET * chance(action, is_young) - (PRICE if lead_of(action) == "social" else 0.0)


def lead_value(lead: str, is_young: bool) -> float:
    """The true value of a lead: of its bundles, as often as the log used them."""
    actions = [action for action in ACTIONS if lead_of(action) == lead]
    return float(np.mean([value_of(action, is_young) for action in actions]))


def true_values() -> dict[str, float]:
    """The true value of each judged policy, half of the customers being young."""
    both = (False, True)
    target = {is_young: FOR_YOUNG if is_young else FOR_OLD for is_young in both}
    service = [sum(p * lead_value(starbucks.LEADS[c], y) for c, p in target[y].items()) for y in both]
    logging = [sum(share * value_of(a, y) for a, share in zip(ACTIONS, SHARES, strict=True)) for y in both]
    plain = {
        "everything to everyone": "social",
        "rule cascade, first step": "base",
        "mobile to everyone": "mobile",
        "social to everyone": "social",
        "no send": NO_SEND,
    }
    found = {policy: float(np.mean([lead_value(lead, y) for y in both])) for policy, lead in plain.items()}
    return found | {"service": float(np.mean(service)), "logging policy": float(np.mean(logging))}


def random_wave(rng: np.random.Generator) -> tuple[starbucks.Wave, NDArray[np.bool_]]:
    """A wave of the world, and who in it is young."""
    young = rng.random(ROWS) < 0.5
    action = rng.choice(len(ACTIONS), p=SHARES, size=ROWS)
    names = np.array(ACTIONS)[action]
    lead = np.where(names == "everything", "social", names)
    p = np.array([[chance(a, y) for a in ACTIONS] for y in (False, True)])[young.astype(int), action]
    spend = (rng.random(ROWS) < p) * rng.exponential(BASKET, size=ROWS)
    shares = {name: float((lead == name).mean()) for name in np.unique(lead)}
    is_everything = names == "everything"
    wave = starbucks.Wave(
        hour=408,
        customer_id=np.arange(ROWS),
        lead=lead,
        is_everything=is_everything,
        propensity_lead=np.array([shares[str(name)] for name in lead]),
        propensity_everything=np.full(ROWS, is_everything.mean()),
        view_hours=np.full(ROWS, np.nan),
        orders=(spend > 0).astype(np.int64),
        spend=spend,
        first_order_hours=np.full(ROWS, np.nan),
        features=({},) * ROWS,
    )
    return wave, young


@pytest.fixture(scope="module")
def judged() -> list[list[Verdict]]:
    """The same policy judged in 200 worlds."""
    rng = np.random.default_rng(7)
    young_decision, old_decision = decision_of(FOR_YOUNG), decision_of(FOR_OLD)
    found = []
    for _ in range(WORLDS):
        wave, young = random_wave(rng)
        found.append(judge(wave, [young_decision if y else old_decision for y in young], PRICE))
    return found


@pytest.mark.parametrize("policy", list(true_values()))
def test_judged_value_is_the_true_one(policy: str, judged: list[list[Verdict]]) -> None:
    """Of 200 worlds the 95 % interval of each policy holds its true value in at least 90 %, and the mean is on it.

    A true coverage of 0.95 is seen with a binomial error of 0.0154, three of which are allowed; it may be higher, since propensities
    are measured in the same wave.
    """
    truth = true_values()[policy]
    estimates = [v.estimate for verdicts in judged for v in verdicts if v.policy == policy]
    values = np.array([estimate.value for estimate in estimates])

    covered = np.mean([low <= truth <= high for low, high in (estimate.interval() for estimate in estimates)])

    assert covered >= 0.90
    assert abs(values.mean() - truth) < 4 * values.std() / np.sqrt(WORLDS)


def test_judged_difference_is_the_true_one(judged: list[list[Verdict]]) -> None:
    """What the service gains on each other policy is held by its interval in at least 90 % of the worlds."""
    truth = true_values()
    for policy in set(truth) - {"service"}:
        differences = [v.service_less_this for verdicts in judged for v in verdicts if v.policy == policy]
        gain = truth["service"] - truth[policy]
        covered = np.mean([low <= gain <= high for low, high in (d.interval() for d in differences)])
        assert covered >= 0.90, policy


def test_shares_are_those_of_the_policy() -> None:
    """Paid and sent shares are what the policy would do, not what the log happened to hold."""
    wave, young = random_wave(np.random.default_rng(8))
    decisions = [decision_of(FOR_YOUNG if y else FOR_OLD) for y in young]

    found = {v.policy: (v.paid_share, v.sent_share) for v in judge(wave, decisions, PRICE)}

    share = float(young.mean())
    assert found["service"][0] == pytest.approx(share * 0.8 + (1 - share) * 0.1)
    assert found["service"][1] == pytest.approx(share * 0.95 + (1 - share) * 0.9)
    assert found["social to everyone"] == found["everything to everyone"] == (1.0, 1.0)
    assert found["no send"] == (0.0, 0.0)
    assert found["logging policy"][0] == pytest.approx(float((wave.lead == "social").mean()))
    assert found["logging policy"][1] == pytest.approx(float((wave.lead != NO_SEND).mean()))


def test_logging_policy_is_worth_the_mean_reward() -> None:
    """The logging policy's value is what the log earned, and all of the sample tells it."""
    wave, _ = random_wave(np.random.default_rng(9))
    decisions = [decision_of(FOR_OLD)] * ROWS

    (logging,) = [v.estimate for v in judge(wave, decisions, PRICE) if v.policy == "logging policy"]

    assert logging.value == pytest.approx(float((wave.spend - PRICE * (wave.lead == "social")).mean()))
    assert logging.effective_sample_size == pytest.approx(ROWS)


def test_table_shows_differences_with_their_sign() -> None:
    """The table has a header and a line a verdict; what the service gains has a sign, and the service no difference from itself."""
    wave, young = random_wave(np.random.default_rng(10))
    verdicts = judge(wave, [decision_of(FOR_YOUNG if y else FOR_OLD) for y in young], PRICE)

    lines = table(verdicts).splitlines()

    assert len(lines) == 2 + len(verdicts)
    assert {line.count("|") for line in lines} == {7}
    assert re.match(r"\| 3 \| service \| \d+\.\d\d ± \d\.\d\d \| \d+ \|  \| \d+ % \|$", lines[2])
    assert all(re.search(r"\| [+-]\d+\.\d\d ± \d\.\d\d \|", line) for line in lines[3:])


@pytest.mark.outside_log
def test_real_last_wave_is_judged(outside_logs: Path) -> None:
    """On the real last wave plain policies are worth what their rows earned, social more than none, and the price is taken off."""
    (wave,) = starbucks.read_waves(outside_logs, (408,))
    rng = np.random.default_rng(11)
    mixed = [decision_of(FOR_YOUNG if rng.random() < 0.5 else FOR_OLD) for _ in range(len(wave))]

    free = {v.policy: v for v in judge(wave, mixed, 0.0)}
    dear = {v.policy: v for v in judge(wave, mixed, 4.0)}

    for policy, lead in (("no send", NO_SEND), ("mobile to everyone", "mobile"), ("social to everyone", "social")):
        assert free[policy].estimate.value == pytest.approx(float(wave.spend[wave.lead == lead].mean()))
    low, high = free["social to everyone"].service_less_this.interval()
    assert low < high < 0
    assert free["no send"].estimate.interval()[1] < free["everything to everyone"].estimate.interval()[0]
    assert free["social to everyone"].estimate.value - dear["social to everyone"].estimate.value == pytest.approx(4.0)
    assert dear["no send"].estimate.value == free["no send"].estimate.value
    assert free["service"].estimate.effective_sample_size > 3000


@pytest.mark.outside_log
def test_real_judgement_does_not_depend_on_order(outside_logs: Path) -> None:
    """Customers may come in any order as long as decisions come in theirs."""
    (wave,) = starbucks.read_waves(outside_logs, (408,))
    decisions = [decision_of(FOR_YOUNG if i % 3 else FOR_OLD) for i in range(len(wave))]
    order = np.random.default_rng(12).permutation(len(wave))
    arrays = {
        name: getattr(wave, name)[order]
        for name in ("customer_id", "lead", "is_everything", "propensity_lead", "propensity_everything", "spend")
    }

    shuffled = judge(replace(wave, **arrays), [decisions[i] for i in order], 2.0)

    for before, after in zip(judge(wave, decisions, 2.0), shuffled, strict=True):
        assert after.estimate.value == pytest.approx(before.estimate.value)
        assert after.estimate.standard_error == pytest.approx(before.estimate.standard_error)
