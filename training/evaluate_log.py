"""The whole loop on a real log: import, train, promote, serve, decide over gRPC, report, and judge what was decided.

The waves before the last are imported and learned from. Then a server decides every customer of the last wave, and the value of what
it chose is estimated from what the log randomised in that wave (SNIPS), beside policies that need no model. The service chooses a
channel; the log holds bundles of channels, so a channel stands for the bundles of its lead (see training.logs.starbucks).
"""

import shutil
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import grpc
import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from models.errors import LogUnusable
from models.features import NO_SEND
from service.gen.channelchoice.v1 import channel_choice_service_pb2 as pb
from service.gen.channelchoice.v1 import channel_choice_service_pb2_grpc as choice_grpc
from service.gen.channelchoice.v1 import outcome_pb2
from service.gen.channelchoice.v1 import outcome_service_pb2 as report_pb
from service.gen.channelchoice.v1 import outcome_service_pb2_grpc as outcome_grpc
from service.gen.channelchoice.v1.customer_pb2 import CONSENT_STATE_GRANTED, REACHABILITY_REACHABLE, CustomerRef
from service.gen.channelchoice.v1.decision_pb2 import DECISION_VIEW_FULL, Decision
from service.gen.channelchoice.v1.message_pb2 import MESSAGE_CATEGORY_MARKETING, ChannelOption, Content, Message
from service.gen.channelchoice.v1.money_pb2 import Money
from service.store.identity import load_key
from service.store.store import Store
from training.dataset import read_dataset
from training.fit import fit
from training.grow import Hyperparameters
from training.journal import customer_hash, write_log
from training.logs import starbucks
from training.margins import MarginModel, fit_margins
from training.off_policy import Estimate, snips
from training.registry import MlflowRegistry
from training.server import serving

FloatArray = NDArray[np.float64]
_CALLERS = 16
_REPORT = 500
_CURRENCY = "USD"
_MODEL = "starbucks"
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
    """Run the loop in a work folder and return every policy's value at every price.

    Raises
    ------
    LogUnusable: a file of the log is missing, or it cannot teach or judge.
    """
    work.mkdir(parents=True, exist_ok=True)
    *earlier, last = starbucks.read_waves(folder)
    database = work / "log.db"
    key_file = work / "identity.key"
    url = f"sqlite:///{database}"
    key = load_key(key_file)
    store = Store(url)
    try:
        total = sum(map(len, earlier))
        with tqdm(total=total, desc="import", unit=" decisions", disable=None) as bar:
            identities = [customer_hash(key, str(c)) for c in earlier[0].customer_id]
            write_log(store, starbucks.logged_decisions(earlier, key, bar.update), identities)
    finally:
        store.close()
    mlflow_uri = f"sqlite:///{work / 'mlflow.db'}"
    data = read_dataset(url, starbucks.WINDOW, until=last.time, exclude=EXCLUDED, as_of=last.time)
    hyper = Hyperparameters(seed=seed)
    fitted = fit(data, hyper, "starbucks waves " + ", ".join(str(w.hour) for w in earlier), _say)
    registry = MlflowRegistry(mlflow_uri, "starbucks", work / "mlruns")
    registered = registry.keep(fitted, data, hyper, starbucks.WINDOW, _MODEL)
    registry.promote(_MODEL, registered.version)
    _say(
        f"{registered.bundle_version} is champion; later log loss {fitted.metrics['later.logloss']:.4f}, AUC {fitted.metrics['later.auc']:.3f}"
    )
    margins = _fit_margins(earlier, seed)
    _say(f"margin of a caused order: kappa {margins.kappa:.2f}")
    margin = margins.predict(last.features)
    verdicts: list[Verdict] = []
    for price in prices:
        copy = work / f"price-{price:g}.db"
        _copy_database(database, copy)
        with _server(work, copy, key_file, mlflow_uri) as address:
            decisions = _decide_all(address, last, margin, price)
            matched = _report_matching(address, last, decisions)
        _say(f"price {price:g}: {len(decisions)} decided, outcomes of {matched} matching logged actions reported")
        verdicts.extend(judge(last, decisions, price))
    return verdicts


def _say(text: str) -> None:
    print(text, flush=True)


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


@contextmanager
def _server(work: Path, database: Path, key_file: Path, mlflow_uri: str) -> Iterator[str]:
    """Serve the champion from a database, yield the address, and stop."""
    options = ["--database-url", f"sqlite:///{database}", "--identity-key-file", str(key_file)]
    options += ["--rules-file", str(starbucks.rules_path()), "--mlflow-uri", mlflow_uri]
    with serving([*options, "--bundle", f"models:/{_MODEL}@champion"], work / "service.log") as address:
        yield address


def _request(wave: starbucks.Wave, row: int, margin: float, price: float) -> pb.ChooseChannelRequest:
    customer = CustomerRef(customer_id=str(wave.customer_id[row]))
    for name, value in wave.features[row].items():
        if isinstance(value, str):
            customer.features[name].text = value
        else:
            customer.features[name].number = float(value)
    request = pb.ChooseChannelRequest(
        request_id=f"evaluate-{wave.hour}-{wave.customer_id[row]}",
        customer=customer,
        message=Message(
            campaign="offers",
            kind="offer",
            category=MESSAGE_CATEGORY_MARKETING,
            order_margin=Money(micros=round(margin * 1e6), currency=_CURRENCY),
            content=Content(length_characters=100),
        ),
        view=DECISION_VIEW_FULL,
    )
    request.message.earliest_time.FromDatetime(wave.time)
    request.message.expire_time.FromDatetime(wave.time + starbucks.WINDOW)
    for key in starbucks.CHANNELS:
        option = ChannelOption(channel=key, reachability=REACHABILITY_REACHABLE, consent=CONSENT_STATE_GRANTED)
        if key == "social":
            option.price_override.CopyFrom(Money(micros=round(price * 1e6), currency=_CURRENCY))
        request.channels.append(option)
    return request


def _decide_all(address: str, wave: starbucks.Wave, margin: FloatArray, price: float) -> list[Decision]:
    """Send every customer through ChooseChannel; decisions come in the customers' order."""
    with grpc.insecure_channel(address) as channel, ThreadPoolExecutor(_CALLERS) as callers:
        stub = choice_grpc.ChannelChoiceServiceStub(channel)

        def decide(row: int) -> Decision:
            answer = stub.ChooseChannel(_request(wave, row, float(margin[row]), price), timeout=60, wait_for_ready=True)
            return answer.decision

        rows = range(len(wave))
        return list(
            tqdm(
                callers.map(decide, rows), total=len(wave), desc=f"decide, price {price:g}", unit=" calls", disable=None
            )
        )


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
                outcome.value.CopyFrom(Money(micros=logged.value_micros, currency=_CURRENCY))
            outcomes.append(outcome)
    outcomes.sort(key=lambda outcome: outcome.occur_time.seconds)
    with grpc.insecure_channel(address) as channel:
        stub = outcome_grpc.OutcomeServiceStub(channel)
        for begin in range(0, len(outcomes), _REPORT):
            request = report_pb.ReportOutcomesRequest(outcomes=outcomes[begin : begin + _REPORT])
            for result in stub.ReportOutcomes(request, timeout=60).results:
                if result.status != outcome_pb2.OUTCOME_STATUS_ACCEPTED:
                    raise LogUnusable(f"outcome {result.event_id} was not accepted: {result}")
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
