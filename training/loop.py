"""The steps of the whole loop that are the same on every real log: promote by the gate, serve, decide over gRPC, evaluate, replay."""

import argparse
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from pathlib import Path

import grpc
from tqdm import tqdm

from models.context import FeatureValue, Message
from models.errors import LogUnusable
from service.gen.channelchoice.v1 import channel_choice_service_pb2 as pb
from service.gen.channelchoice.v1 import channel_choice_service_pb2_grpc as choice_grpc
from service.gen.channelchoice.v1 import outcome_pb2
from service.gen.channelchoice.v1 import outcome_service_pb2 as report_pb
from service.gen.channelchoice.v1 import outcome_service_pb2_grpc as outcome_grpc
from service.gen.channelchoice.v1.customer_pb2 import CONSENT_STATE_GRANTED, REACHABILITY_REACHABLE, CustomerRef
from service.gen.channelchoice.v1.decision_pb2 import DECISION_VIEW_FULL, Decision
from service.gen.channelchoice.v1.message_pb2 import MESSAGE_CATEGORY_MARKETING, ChannelOption, Content
from service.gen.channelchoice.v1.message_pb2 import Message as SentMessage
from service.gen.channelchoice.v1.money_pb2 import Money
from service.store.store import Store
from training.bounds import Bounds
from training.dataset import read_dataset
from training.fit import fit
from training.grow import Hyperparameters
from training.journal import LoggedDecision, write_log
from training.judging import evaluate_command, promote_command
from training.registry import CHALLENGER, CHAMPION, MlflowRegistry, Registered
from training.replay_report import replay_command
from training.server import serving

CURRENCY = "USD"
_CALLERS = 16
_REPORT = 500


def say(text: str) -> None:
    """Print at once."""
    print(text, flush=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Loop:
    """Where a loop keeps what it makes, and by what it judges."""

    name: str
    """Of the log, the experiment and the registered model."""
    work: Path
    rules: Path
    window: timedelta
    since: datetime
    """Decisions from then on were not trained on, and are what is judged by."""
    seed: int = 0

    @property
    def registry(self) -> MlflowRegistry:
        return MlflowRegistry(self.mlflow, self.name, self.work / "mlruns")

    @property
    def mlflow(self) -> str:
        return f"sqlite:///{self.work / 'mlflow.db'}"

    @property
    def key_file(self) -> Path:
        return self.work / "identity.key"

    def url(self, name: str) -> str:
        """Return the URL of a log of the loop."""
        return f"sqlite:///{self.work / name}.db"

    def write(self, name: str, identities: Sequence[bytes], decisions: Iterable[LoggedDecision]) -> str:
        """Write a log, and return its URL."""
        store = Store(self.url(name))
        try:
            write_log(store, decisions, identities)
        finally:
            store.close()
        return self.url(name)

    def train(self, url: str, what: str, exclude: Sequence[str]) -> Registered:
        """Train on the decisions before `since`, with what was known then."""
        data = read_dataset(url, self.window, until=self.since, exclude=exclude, as_of=self.since, with_early=True)
        hyper = Hyperparameters(seed=self.seed)
        fitted = fit(data, hyper, what, say)
        registered = self.registry.keep(fitted, data, hyper, self.window, self.name)
        metrics = fitted.metrics
        say(
            f"version {registered.version} is {registered.bundle_version}, trained on {what}: later log loss {metrics['later.logloss']:.4f}, AUC {metrics['later.auc']:.3f}"
        )
        return registered

    def promote(self, registered: Registered, url: str) -> str:
        """Ask the gate, as `python -m training promote` does; return the alias that the version has then: champion, or challenger where it is refused."""
        options = self._options(url, **asdict(Bounds()), version=registered.version, force=None)
        try:
            for line in promote_command(options, say):
                say(line)
        except LogUnusable as error:
            say(str(error))
            self.registry.challenge(self.name, registered.version)
            return CHALLENGER
        return CHAMPION

    def evaluate(self, url: str, policies: Sequence[str], versions: Sequence[Registered]) -> None:
        """Judge policies by what was not trained on, as `python -m training evaluate` does."""
        given = {"policy": policies, "bundle": [self.source(v) for v in versions], "no_mlflow": False}
        say(evaluate_command(self._options(url, **given, since=self.since, until=None)))

    def replay(self, url: str, policies: Sequence[str], versions: Sequence[Registered]) -> None:
        """Live through what was not trained on again, as `python -m training replay` does."""
        given = {"policy": policies, "bundle": [self.source(v) for v in versions], "no_mlflow": False, "response": None}
        say(replay_command(self._options(url, **given, since=self.since, until=None, no_off_policy=False)))

    def source(self, version: Registered) -> str:
        """Return how a version is named on the command line."""
        return f"models:/{self.name}/{version.version}"

    def _options(self, url: str, **given: object) -> argparse.Namespace:
        return argparse.Namespace(
            database=url,
            rules=self.rules,
            window_hours=self.window / timedelta(hours=1),
            as_of=self.since + self.window,
            most_decisions=None,
            folds=3,
            seed=self.seed,
            mlflow=self.mlflow,
            experiment=self.name,
            name=self.name,
            **given,
        )

    @contextmanager
    def serve(self, url: str, alias: str) -> Iterator[str]:
        """Serve the version of an alias from a log, yield the address, and stop."""
        options = ["--database-url", url, "--identity-key-file", str(self.key_file)]
        options += ["--rules-file", str(self.rules), "--mlflow-uri", self.mlflow]
        options += ["--bundle", f"models:/{self.name}@{alias}"]
        with serving(options, self.work / "service.log") as address:
            yield address


def request_of(
    request_id: str,
    customer_id: str,
    features: Mapping[str, FeatureValue],
    message: Message,
    channels: Iterable[str],
    prices: Mapping[str, int] | None = None,
) -> pb.ChooseChannelRequest:
    """Return what a caller would ask for a customer who can be reached through all channels; `prices` are in micros, where they are not the rules'."""
    customer = CustomerRef(customer_id=customer_id)
    for name, value in features.items():
        if isinstance(value, str):
            customer.features[name].text = value
        else:
            customer.features[name].number = float(value)
    request = pb.ChooseChannelRequest(
        request_id=request_id,
        customer=customer,
        message=SentMessage(
            campaign=message.campaign,
            kind=message.kind,
            category=MESSAGE_CATEGORY_MARKETING,
            order_margin=Money(micros=message.order_margin_micros, currency=CURRENCY),
            content=Content(length_characters=message.content.size.characters),
        ),
        view=DECISION_VIEW_FULL,
    )
    request.message.earliest_time.FromDatetime(message.earliest_time)
    request.message.expire_time.FromDatetime(message.expire_time)
    for key in channels:
        option = ChannelOption(channel=key, reachability=REACHABILITY_REACHABLE, consent=CONSENT_STATE_GRANTED)
        if prices and key in prices:
            option.price_override.CopyFrom(Money(micros=prices[key], currency=CURRENCY))
        request.channels.append(option)
    return request


def decide_all(address: str, requests: Sequence[pb.ChooseChannelRequest], what: str) -> list[Decision]:
    """Send every request through ChooseChannel; decisions come in their order."""
    with grpc.insecure_channel(address) as channel, ThreadPoolExecutor(_CALLERS) as callers:
        stub = choice_grpc.ChannelChoiceServiceStub(channel)

        def decide(request: pb.ChooseChannelRequest) -> Decision:
            return stub.ChooseChannel(request, timeout=60, wait_for_ready=True).decision

        found = callers.map(decide, requests)
        return list(tqdm(found, total=len(requests), desc=what, unit=" calls", disable=None))


def report_all(address: str, outcomes: Sequence[outcome_pb2.Outcome]) -> None:
    """Report outcomes in the order of time.

    Raises
    ------
    LogUnusable: one is not accepted.
    """
    ordered = sorted(outcomes, key=lambda outcome: outcome.occur_time.seconds)
    with grpc.insecure_channel(address) as channel:
        stub = outcome_grpc.OutcomeServiceStub(channel)
        for begin in range(0, len(ordered), _REPORT):
            request = report_pb.ReportOutcomesRequest(outcomes=ordered[begin : begin + _REPORT])
            for result in stub.ReportOutcomes(request, timeout=60).results:
                if result.status != outcome_pb2.OUTCOME_STATUS_ACCEPTED:
                    raise LogUnusable(f"outcome {result.event_id} was not accepted: {result}")
