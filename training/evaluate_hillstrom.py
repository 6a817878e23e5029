"""The whole loop on the Hillstrom log, where there is hardly anything personal to learn: import, train, promote, evaluate, replay, serve, decide over gRPC, judge.

Half of the customers, drawn by a hash, are learned from; everything is judged by the other half. Two versions are trained: one that knows nothing of a customer, and so
sends everybody the same, and one that knows all that the log has. The first asks the gate without a champion, the second with the first as champion. Then a server decides every customer of the
judged half by each of them, and the value of what it chose is estimated from what the log randomised (SNIPS). Value is USD of spend within two weeks; an e-mail costs nothing.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from models.features import CUSTOM_PREFIX, NO_SEND
from models.rules import read_rules
from service.gen.channelchoice.v1.decision_pb2 import Decision
from service.store.identity import load_key
from training.journal import customer_hash
from training.logs import hillstrom
from training.loop import Loop, decide_all, request_of, say
from training.off_policy import Estimate, snips

FloatArray = NDArray[np.float64]
OF_CUSTOMERS = tuple(CUSTOM_PREFIX + name for name in hillstrom.FEATURES)
SAME, PERSONAL = "the same for everybody", "personal"
_USUAL = "men's to everybody"
_Rows = Sequence[Mapping[str, Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """One policy: its value in USD per customer, less that of men's e-mail to everybody, and the share that it sends to."""

    policy: str
    estimate: Estimate
    over_usual: Estimate
    sent_share: float


def evaluate_hillstrom(folder: Path, work: Path, seed: int = 0) -> list[Verdict]:
    """Run the loop in a work folder, printing what each step says, and return every policy's value.

    Raises
    ------
    LogUnusable: the file of the log is missing, or it cannot teach or judge.
    """
    work.mkdir(parents=True, exist_ok=True)
    rows = hillstrom.read_rows(folder)
    learned, judged = ([row for row in rows if hillstrom.is_later(row) == is_later] for is_later in (False, True))
    loop = Loop(
        name="hillstrom",
        work=work,
        rules=hillstrom.rules_path(),
        window=hillstrom.WINDOW,
        since=hillstrom.LATER,
        seed=seed,
    )
    margin = _margin(learned)
    say(f"{len(learned)} customers are learned from, {len(judged)} judge; an order is worth {margin / 1e6:.2f} USD")
    key = load_key(loop.key_file)
    with tqdm(total=len(rows), desc="import", unit=" decisions", disable=None) as bar:
        both = [
            decision
            for half, moment in ((learned, hillstrom.START), (judged, hillstrom.LATER))
            for decision in hillstrom.logged_decisions(half, key, bar.update, moment, margin)
        ]
        url = loop.write("log", [customer_hash(key, str(row["customer_id"])) for row in rows], both)
    rules = read_rules(loop.rules)
    versions, decided = [], {}
    for label, exclude in ((SAME, OF_CUSTOMERS), (PERSONAL, ())):
        version = loop.train(url, f"half of the customers, {label}", exclude)
        alias = loop.promote(version, url)
        versions.append(version)
        served = loop.url(f"served-{version.version}")
        with loop.serve(served, alias) as address:
            decided[label] = _decide_all(address, judged, margin, label)
    loop.evaluate(url, (rules.policy.name, "rule_cascade"), versions)
    loop.replay(url, ("logged", rules.policy.name, "rule_cascade"), versions)
    return judge(judged, decided)


def _margin(rows: _Rows) -> int:
    """Return the mean spend of an order, in micros."""
    spent = [float(row["spend"]) for row in rows if row["conversion"]]
    return round(1e6 * float(np.mean(spent)))


def _decide_all(address: str, rows: _Rows, margin: int, what: str) -> list[Decision]:
    """Send every customer through ChooseChannel; decisions come in the customers' order."""
    message = hillstrom.message(hillstrom.LATER, margin)
    channels = [channel for channel in hillstrom.CHANNELS.values() if channel != NO_SEND]
    requests = [
        request_of(
            f"evaluate-{row['customer_id']}",
            str(row["customer_id"]),
            hillstrom.features_of(row),
            message,
            channels,
        )
        for row in rows
    ]
    return decide_all(address, requests, f"decide, {what}")


def judge(rows: _Rows, decided: Mapping[str, Sequence[Decision]]) -> list[Verdict]:
    """Estimate what policies earn by the log's own randomisation; decisions of a policy are in the order of the rows."""
    channel = np.array([hillstrom.CHANNELS[row["segment"]] for row in rows])
    spend = np.array([float(row["spend"]) for row in rows])
    propensity = np.array([float(row["propensity"]) for row in rows])
    chances = {f"service, {label}": _chances(decisions) for label, decisions in decided.items()}
    chances |= {
        name: {chosen: np.ones(len(rows))}
        for name, chosen in (
            (_USUAL, "mens_email"),
            ("women's to everybody", "womens_email"),
            ("nothing to anybody", NO_SEND),
        )
    }
    chances["logging policy"] = dict.fromkeys(np.unique(channel).tolist(), propensity)
    estimates = {
        name: snips(spend, propensity, np.select([channel == c for c in of], list(of.values()), 0.0).clip(0.0, 1.0))
        for name, of in chances.items()
    }
    return [
        Verdict(
            policy=name,
            estimate=estimate,
            over_usual=estimate.minus(estimates[_USUAL]),
            sent_share=1.0 - float(np.mean(chances[name].get(NO_SEND, 0.0))),
        )
        for name, estimate in estimates.items()
    ]


def _chances(decisions: Sequence[Decision]) -> dict[str, FloatArray]:
    """Return P(channel) of each decision, by channel."""
    found = {name: np.zeros(len(decisions)) for name in hillstrom.CHANNELS.values()}
    for place, decision in enumerate(decisions):
        for action in decision.actions:
            found[action.channel or NO_SEND][place] += action.propensity
    return found


def table(verdicts: Sequence[Verdict]) -> str:
    """Return the verdicts as a Markdown table."""
    lines = [
        f"| policy | spend per customer, USD (95 %) | effective sample size | less {_USUAL} (95 %) | sends |",
        "|---|---:|---:|---:|---:|",
    ]
    for v in verdicts:
        half, gap = ((high - low) / 2 for low, high in (v.estimate.interval(), v.over_usual.interval()))
        over = "" if v.policy == _USUAL else f"{v.over_usual.value:+.2f} ± {gap:.2f}"
        lines.append(
            f"| {v.policy} | {v.estimate.value:.2f} ± {half:.2f} | {v.estimate.effective_sample_size:.0f} | {over} | {100 * v.sent_share:.0f} % |"
        )
    return "\n".join(lines)
