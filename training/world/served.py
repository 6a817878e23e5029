"""The real server as a policy: contexts become requests, outcomes are reported, and its clock follows the world's.

The server runs with `--clock request`, so that its time is that of the newest request or outcome. AdvanceCascade carries no time; where no
outcome has moved the clock far enough, a DRY_RUN request, which the server does not keep, moves it. Outcomes are reported in the order in
which they came, before the next call.

To begin where a log ended, let the server open the database that `write_bench_log` wrote, with `training.world.log.KEY` in hexadecimal
digits as its identity key.
"""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import grpc
from google.protobuf.timestamp_pb2 import Timestamp

from models.context import Context, FeatureValue
from models.context import Message as AskedMessage
from models.features import NO_SEND, Action
from service.gen.channelchoice.v1 import channel_choice_service_pb2 as choice_pb
from service.gen.channelchoice.v1 import customer_pb2 as customer_pb
from service.gen.channelchoice.v1 import decision_pb2 as decision_pb
from service.gen.channelchoice.v1 import feature_pb2 as feature_pb
from service.gen.channelchoice.v1 import message_pb2 as message_pb
from service.gen.channelchoice.v1 import money_pb2 as money_pb
from service.gen.channelchoice.v1 import outcome_pb2 as outcome_pb
from service.gen.channelchoice.v1 import outcome_service_pb2 as report_pb
from service.gen.channelchoice.v1.channel_choice_service_pb2_grpc import ChannelChoiceServiceStub
from service.gen.channelchoice.v1.outcome_service_pb2_grpc import OutcomeServiceStub
from training.world.protocol import Outcome, Reply, request_name

_TIMEOUT_SECONDS = 30
_MOST_OUTCOMES = 1000


class ServerRefused(Exception):
    """Raised when the server refuses an outcome that the world reports; the message is its own."""


class ServedPolicy:
    """A server's decisions over gRPC. `currency` is that of its rules; `known_until` is when visits were last told to its database, by whoever wrote the log."""

    name = "service over gRPC"

    def __init__(self, channel: grpc.Channel, currency: str = "RUB", known_until: datetime | None = None) -> None:
        self._decisions = ChannelChoiceServiceStub(channel)
        self._outcomes = OutcomeServiceStub(channel)
        self._currency = currency
        self._ids: dict[str, str] = {}
        self._deferrals: dict[str, int] = {}
        self._waiting: list[Outcome] = []
        self._reported: dict[str, int] = {}
        self._known_hour = 0 if known_until is None else int(known_until.timestamp()) // 3600
        self._now = datetime(2000, 1, 1, tzinfo=UTC)
        self.answers: list[decision_pb.Decision] = []
        """Every decision that was answered, for who wants to look."""

    def decide(self, context: Context) -> Reply:
        self.flush(self._activity(context))
        if context.step == 1:
            deferrals = self._deferrals.get(context.decision_id, 0)
            if deferrals:
                self._move_clock(context)
            request = self._request(context, request_name(context.decision_id, deferrals))
            self._now = max(self._now, context.decide_time)
            decision = self._decisions.ChooseChannel(request, timeout=_TIMEOUT_SECONDS).decision
            self._ids[context.decision_id] = decision.decision_id
            if decision.verdict == decision_pb.VERDICT_DEFER:
                self._deferrals[context.decision_id] = deferrals + 1
        else:
            self._move_clock(context)
            asked = choice_pb.AdvanceCascadeRequest(
                decision_id=self._ids[context.decision_id], completed_step=context.step - 1
            )
            decision = self._decisions.AdvanceCascade(asked, timeout=_TIMEOUT_SECONDS).decision
        self.answers.append(decision)
        return _reply(decision)

    def observe(self, outcome: Outcome) -> None:
        """Keep an outcome until the next call; what follows no decision names the customer."""
        self._waiting.append(outcome)

    def flush(self, visits: Sequence[outcome_pb.Outcome] = ()) -> None:
        """Report what was observed, and then these visits, in as few calls as take them.

        Raises
        ------
        ServerRefused: the server took one of the outcomes for wrong.
        """
        waiting = [*(self._outcome(outcome) for outcome in self._waiting), *visits]
        self._now = max([self._now, *(outcome.occur_time for outcome in self._waiting)])
        self._waiting.clear()
        for first in range(0, len(waiting), _MOST_OUTCOMES):
            self._send(waiting[first : first + _MOST_OUTCOMES])

    def _activity(self, context: Context) -> list[outcome_pb.Outcome]:
        """Return the hours in which the customer was active and that were not reported before, as visits."""
        customer = context.customer
        newest = self._reported.get(customer.key, self._known_hour)
        hours = [hour for hour in customer.active_hours if hour > newest]
        if not hours:
            return []
        self._reported[customer.key] = hours[-1]
        visit = outcome_pb.OUTCOME_TYPE_VISIT
        return [
            outcome_pb.Outcome(
                event_id=f"{customer.key}-visit-{hour}",
                type=visit,
                occur_time=_stamp(datetime.fromtimestamp(3600 * hour, UTC)),
                customer=customer_pb.CustomerRef(customer_id=customer.key),
            )
            for hour in hours
        ]

    def _send(self, outcomes: list[outcome_pb.Outcome]) -> None:
        request = report_pb.ReportOutcomesRequest(outcomes=outcomes)
        for result in self._outcomes.ReportOutcomes(request, timeout=_TIMEOUT_SECONDS).results:
            if result.status == outcome_pb.OUTCOME_STATUS_REJECTED:
                raise ServerRefused(f"{result.event_id}: {result.error}")

    def _move_clock(self, context: Context) -> None:
        if self._now >= context.decide_time:
            return
        request = self._request(context, f"{context.decision_id}/clock-{self._now:%Y%m%dT%H}")
        request.mode = decision_pb.DECISION_MODE_DRY_RUN
        request.message.earliest_time.CopyFrom(_stamp(context.decide_time))
        self._decisions.ChooseChannel(request, timeout=_TIMEOUT_SECONDS)
        self._now = context.decide_time

    def _request(self, context: Context, request_id: str) -> choice_pb.ChooseChannelRequest:
        customer = customer_pb.CustomerRef(
            customer_id=context.customer.key,
            time_zone=context.customer.time_zone,
            country=context.customer.country,
        )
        return choice_pb.ChooseChannelRequest(
            request_id=request_id,
            customer=customer,
            message=self._message(context.message),
            channels=[
                message_pb.ChannelOption(
                    channel=option.channel,
                    reachability=customer_pb.REACHABILITY_REACHABLE
                    if option.is_reachable
                    else customer_pb.REACHABILITY_UNREACHABLE,
                    consent=customer_pb.CONSENT_STATE_GRANTED
                    if option.has_consent
                    else customer_pb.CONSENT_STATE_DENIED,
                )
                for option in context.options
            ],
            features={name: _feature(value) for name, value in context.features.items()},
        )

    def _message(self, message: AskedMessage) -> message_pb.Message:
        asked = message_pb.Message(
            campaign=message.campaign,
            priority=message.priority,
            kind=message.kind,
            topic=message.topic,
            offer=message.offer,
            category=message_pb.MessageCategory.Value(f"MESSAGE_CATEGORY_{message.category.upper()}"),
            journey_stage=message.journey_stage,
            order_margin=money_pb.Money(micros=message.order_margin_micros, currency=self._currency),
            earliest_time=_stamp(message.earliest_time),
            expire_time=_stamp(message.expire_time),
            content=message_pb.Content(
                length_characters=message.content.size.characters,
                encoding=message_pb.TEXT_ENCODING_UCS2,
                has_image=message.content.has_image,
            ),
        )
        if message.relevance_half_life_seconds is not None:
            asked.relevance_half_life.FromTimedelta(timedelta(seconds=message.relevance_half_life_seconds))
        return asked

    def _outcome(self, outcome: Outcome) -> outcome_pb.Outcome:
        kind = outcome_pb.OutcomeType.Value(f"OUTCOME_TYPE_{outcome.type.upper()}")
        found = outcome_pb.Outcome(event_id=outcome.event_id, type=kind, occur_time=_stamp(outcome.occur_time))
        if outcome.step > 0:
            found.decision_id = self._ids[outcome.decision_id]
            found.step = outcome.step
        else:
            found.customer.customer_id = outcome.customer_id
        if outcome.value_micros is not None:
            found.value.micros, found.value.currency = outcome.value_micros, self._currency
        return found


def _reply(decision: decision_pb.Decision) -> Reply:
    nothing = Action(channel=NO_SEND)
    if decision.verdict == decision_pb.VERDICT_DEFER:
        return Reply(action=nothing, ask_time=decision.retry_time.ToDatetime(tzinfo=UTC), is_deferred=True)
    if decision.verdict != decision_pb.VERDICT_SEND:
        return Reply(action=nothing, propensity=decision.propensity)
    advance = (
        decision.cascade.advance_time.ToDatetime(tzinfo=UTC) if decision.cascade.HasField("advance_time") else None
    )
    return Reply(
        action=Action(channel=decision.channel, send_time=decision.send_time.ToDatetime(tzinfo=UTC)),
        propensity=decision.propensity,
        ask_time=advance,
    )


def _stamp(moment: datetime) -> Timestamp:
    found = Timestamp()
    found.FromDatetime(moment)
    return found


def _feature(value: FeatureValue) -> feature_pb.FeatureValue:
    if isinstance(value, bool):
        return feature_pb.FeatureValue(flag=value)
    if isinstance(value, str):
        return feature_pb.FeatureValue(text=value)
    return feature_pb.FeatureValue(number=value)
