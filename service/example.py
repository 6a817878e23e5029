"""One example request, as any caller would send it, and its answer in words."""

from datetime import UTC, datetime
from uuid import uuid4

import grpc

from service.gen.channelchoice.v1 import channel_choice_service_pb2 as pb
from service.gen.channelchoice.v1 import channel_choice_service_pb2_grpc as rpc
from service.gen.channelchoice.v1.customer_pb2 import CONSENT_STATE_GRANTED, CustomerRef
from service.gen.channelchoice.v1.decision_pb2 import DECISION_VIEW_FULL, Decision, SuppressionReason, Verdict
from service.gen.channelchoice.v1.message_pb2 import MESSAGE_CATEGORY_MARKETING, ChannelOption, Content, Message
from service.gen.channelchoice.v1.money_pb2 import Money

_CHANNELS = ("in_app", "push", "email", "viber", "sms")


def example_request() -> pb.ChooseChannelRequest:
    """Return a request about an abandoned cart, for a customer whom the service has not seen before."""
    customer = CustomerRef(customer_id=f"customer-{uuid4()}", time_zone="Europe/Moscow")
    customer.features["app_sessions_30d"].number = 6
    customer.features["email_opens_90d"].number = 2
    customer.features["orders_365d"].number = 3
    return pb.ChooseChannelRequest(
        request_id=f"example-{uuid4()}",
        customer=customer,
        message=Message(
            campaign="spring",
            kind="abandoned_cart",
            topic="cart",
            category=MESSAGE_CATEGORY_MARKETING,
            journey_stage="active",
            order_margin=Money(micros=900_000_000, currency="RUB"),
            content=Content(text="Ваша корзина ждёт: бесплатная доставка до пятницы."),
        ),
        channels=[ChannelOption(channel=key, consent=CONSENT_STATE_GRANTED) for key in _CHANNELS],
        view=DECISION_VIEW_FULL,
    )


def ask(address: str) -> str:
    """Send the example to a server and return request and answer in words, or why there is none, as where a token is needed."""
    with grpc.insecure_channel(address) as channel:
        request = example_request()
        try:
            answer = rpc.ChannelChoiceServiceStub(channel).ChooseChannel(request, timeout=10, wait_for_ready=True)
        except grpc.RpcError as error:
            return f"The example was not answered: {error.code().name}, {error.details()}"
    return describe(request, answer.decision)


def describe(request: pb.ChooseChannelRequest, decision: Decision) -> str:
    """Return a request and its decision in words."""
    margin = request.message.order_margin
    offered = ", ".join(option.channel for option in request.channels)
    lines = [
        f"ChooseChannel {request.message.kind}, an order earns {_money(margin)}, through {offered}",
        f"  verdict     {Verdict.Name(decision.verdict).removeprefix('VERDICT_')}"
        + (f" through {decision.channel} for {_money(decision.price)}" if decision.channel else ""),
    ]
    if decision.HasField("send_time"):
        start, end = decision.send_time.ToDatetime(UTC), decision.send_window_end_time.ToDatetime(UTC)
        lines.append(f"  send        {start:%Y-%m-%d %H:%M} to {end:%H:%M} UTC")
    lines.append(
        f"  propensity  {decision.propensity:.4f} under {decision.versions.policy}, bundle {decision.versions.bundle or 'none'}"
    )
    for step in decision.cascade.steps[1:]:
        when = _clock(step.not_before_time.ToDatetime(UTC))
        lines.append(f"  if ignored  {step.channel} for {_money(step.price)}, not before {when}")
    lines.extend(f"  why         {sentence}" for sentence in decision.explanation.sentences)
    for suppressed in decision.suppressed:
        reason = SuppressionReason.Name(suppressed.reason).removeprefix("SUPPRESSION_REASON_")
        lines.append(f"  suppressed  {suppressed.channel}: {reason}")
    lines.append(f"  decision_id {decision.decision_id}")
    return "\n".join(lines)


def _money(amount: Money) -> str:
    return f"{amount.micros / 1e6:.2f} {amount.currency}" if amount.micros else "nothing"


def _clock(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M} UTC"
