"""The whole loop on the Starbucks log: import, train, promote, evaluate, replay, serve, decide over gRPC, report, and judge what was decided.

The waves before the last are imported and learned from. The gate, `evaluate` and `replay` judge by the last wave as it was logged. Then a server decides every customer of the last
wave, and the value of what it chose is estimated from what the log randomised in that wave (SNIPS), beside policies that need no model. The service chooses a
channel; the log holds bundles of channels, so a channel stands for the bundles of its lead (see training.logs.starbucks).
"""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from models.features import NO_SEND
from models.rules import read_rules
from service.gen.channelchoice.v1 import outcome_pb2
from service.gen.channelchoice.v1.decision_pb2 import Decision
from service.gen.channelchoice.v1.money_pb2 import Money
from service.store.identity import load_key
from training.journal import customer_hash
from training.logs import starbucks
from training.loop import CURRENCY, Loop, decide_all, report_all, request_of, say
from training.margins import MarginModel, fit_margins
from training.off_policy import Estimate, snips

FloatArray = NDArray[np.float64]
EXCLUDED = ("order_margin",)
"""Features left out of the model: the margin is the caller's, and the imported log has none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """One policy at one price: its value in USD per customer, against the service's, and what it does."""

    price: float
    policy: str
    estimate: Estimate
    service_less_this: Estimate
    paid_share: float
    """Share of customers sent through the paid channel."""
    sent_share: float


def evaluate_starbucks(folder: Path, prices: Sequence[float], work: Path, seed: int = 0) -> list[Verdict]:
    """Run the loop in a work folder, printing what each step says, and return every policy's value at every price.

    Raises
    ------
    LogUnusable: a file of the log is missing, or it cannot teach or judge.
    """
    work.mkdir(parents=True, exist_ok=True)
    *earlier, last = waves = starbucks.read_waves(folder)
    rules = read_rules(starbucks.rules_path())
    loop = Loop(
        name="starbucks",
        work=work,
        rules=starbucks.rules_path(),
        window=starbucks.WINDOW,
        since=last.time,
        seed=seed,
    )
    key = load_key(loop.key_file)
    identities = [customer_hash(key, str(c)) for c in last.customer_id]
    with tqdm(total=sum(map(len, earlier)), desc="import", unit=" decisions", disable=None) as bar:
        url = loop.write("log", identities, starbucks.logged_decisions(earlier, key, bar.update))
    say(
        "ordered within the window, by wave: "
        + ", ".join(f"{wave.hour} {(wave.orders > 0).mean():.0%}" for wave in waves)
    )
    registered = loop.train(url, "waves " + ", ".join(str(w.hour) for w in earlier), EXCLUDED)
    margins = _fit_margins(earlier, seed)
    say(f"margin of a caused order: kappa {margins.kappa:.2f}")
    said = [margins.predict(wave.features) for wave in waves]
    paid = next(price.price for price in rules.prices if price.channel == "social")
    with tqdm(total=sum(map(len, waves)), desc="import to judge by", unit=" decisions", disable=None) as bar:
        told = starbucks.logged_decisions(waves, key, bar.update, said, paid)
        judged = loop.write("judged", identities, told)
    alias = loop.promote(registered, judged)
    policies = (rules.policy.name, "rule_cascade")
    loop.evaluate(judged, policies, [registered])
    loop.replay(judged, ("logged", *policies), [registered])
    verdicts: list[Verdict] = []
    for price in prices:
        copy = f"price-{price:g}"
        _copy_database(work / "log.db", work / f"{copy}.db")
        with loop.serve(loop.url(copy), alias) as address:
            decisions = _decide_all(address, last, said[-1], price)
            matched = _report_matching(address, last, decisions)
        say(f"price {price:g}: {len(decisions)} decided, outcomes of {matched} matching logged actions reported")
        verdicts.extend(judge(last, decisions, price))
    return verdicts


def _fit_margins(waves: Sequence[starbucks.Wave], seed: int) -> MarginModel:
    return fit_margins(
        [values for wave in waves for values in wave.features],
        np.concatenate([wave.lead for wave in waves]),
        np.concatenate([wave.propensity_lead for wave in waves]),
        np.concatenate([wave.spend for wave in waves]),
        "social",
        seed,
    )


def _copy_database(source: Path, target: Path) -> None:
    for suffix in ("-wal", "-shm"):
        Path(f"{target}{suffix}").unlink(missing_ok=True)
    shutil.copyfile(source, target)


def _decide_all(address: str, wave: starbucks.Wave, margin: FloatArray, price: float) -> list[Decision]:
    """Send every customer through ChooseChannel; decisions come in the customers' order."""
    requests = [
        request_of(
            f"evaluate-{wave.hour}-{wave.customer_id[row]}",
            str(wave.customer_id[row]),
            wave.features[row],
            starbucks.message(wave.time, round(float(margin[row]) * 1e6)),
            starbucks.CHANNELS,
            {"social": round(price * 1e6)},
        )
        for row in range(len(wave))
    ]
    return decide_all(address, requests, f"decide, price {price:g}")


def _report_matching(address: str, wave: starbucks.Wave, decisions: Sequence[Decision]) -> int:
    """Report what followed within the window wherever the service chose what the log did; return how many decisions that were."""
    outcomes: list[outcome_pb2.Outcome] = []
    matched = 0
    for row, decision in enumerate(decisions):
        if starbucks.LEADS[decision.channel or NO_SEND] != wave.lead[row]:
            continue
        matched += 1
        seen = [o for o in starbucks.outcomes_of(wave, row) if o.occur_time <= wave.time + starbucks.WINDOW]
        for number, logged in enumerate(seen):
            outcome = outcome_pb2.Outcome(
                event_id=f"{decision.decision_id}/{number}",
                decision_id=decision.decision_id,
                type=outcome_pb2.OutcomeType.Value(f"OUTCOME_TYPE_{logged.type.upper()}"),
            )
            outcome.occur_time.FromDatetime(logged.occur_time)
            if logged.value_micros is not None:
                outcome.value.CopyFrom(Money(micros=logged.value_micros, currency=CURRENCY))
            outcomes.append(outcome)
    report_all(address, outcomes)
    return matched


def judge(wave: starbucks.Wave, decisions: Sequence[Decision], price: float) -> list[Verdict]:
    """Estimate each policy's value in USD per customer: spend within 72 hours less the price of social sends."""
    shares = {lead: np.zeros(len(wave)) for lead in set(starbucks.LEADS.values())}
    for row, decision in enumerate(decisions):
        for action in decision.actions:
            shares[starbucks.LEADS[action.channel or NO_SEND]][row] += action.propensity
    reward = wave.spend - price * (wave.lead == "social")

    def of_leads(target: dict[str, FloatArray]) -> Estimate:
        chosen = np.select([wave.lead == lead for lead in target], list(target.values()))
        return snips(reward, wave.propensity_lead, np.clip(chosen, 0.0, 1.0))

    ones, zeros = np.ones(len(wave)), np.zeros(len(wave))
    logged = {lead: wave.lead == lead for lead in shares}
    logging = {lead: np.full(len(wave), logged[lead].mean()) for lead in shares}
    everything = snips(reward, wave.propensity_everything, wave.is_everything.astype(np.float64))
    service = of_leads(shares)
    judged: list[tuple[str, Estimate, float, float]] = [
        ("service", service, float(shares["social"].mean()), float(1 - shares[NO_SEND].mean())),
        ("logging policy", of_leads(logging), float(logged["social"].mean()), float(1 - logged[NO_SEND].mean())),
        ("everything to everyone", everything, 1.0, 1.0),
        ("rule cascade, first step", of_leads({lead: ones if lead == "base" else zeros for lead in shares}), 0.0, 1.0),
        ("mobile to everyone", of_leads({lead: ones if lead == "mobile" else zeros for lead in shares}), 0.0, 1.0),
        ("social to everyone", of_leads({lead: ones if lead == "social" else zeros for lead in shares}), 1.0, 1.0),
        ("no send", of_leads({lead: ones if lead == NO_SEND else zeros for lead in shares}), 0.0, 0.0),
    ]
    return [
        Verdict(
            price=price,
            policy=name,
            estimate=estimate,
            service_less_this=service.minus(estimate),
            paid_share=paid,
            sent_share=sent,
        )
        for name, estimate, paid, sent in judged
    ]


def table(verdicts: Sequence[Verdict]) -> str:
    """Return the verdicts as a Markdown table."""
    lines = [
        "| price of social, USD | policy | value per customer, USD (95 %) | effective sample size | service less this (95 %) | paid sends |",
        "|---:|---|---:|---:|---:|---:|",
    ]
    for v in verdicts:
        half = (v.estimate.interval()[1] - v.estimate.interval()[0]) / 2
        gap = (v.service_less_this.interval()[1] - v.service_less_this.interval()[0]) / 2
        difference = "" if v.policy == "service" else f"{v.service_less_this.value:+.2f} ± {gap:.2f}"
        lines.append(
            f"| {v.price:g} | {v.policy} | {v.estimate.value:.2f} ± {half:.2f} | {v.estimate.effective_sample_size:.0f}"
            f" | {difference} | {100 * v.paid_share:.0f} % |"
        )
    return "\n".join(lines)
