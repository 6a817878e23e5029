"""Decisions as rows of the log, and back."""

import hmac
from datetime import datetime
from uuid import UUID

from models.context import Verdict
from models.decide import Decision
from models.features import NO_SEND
from models.record import (
    choice_from_json,
    choice_to_json,
    context_from_json,
    context_to_json,
    features_to_json,
    pack_actions,
    to_micros,
    unpack_actions,
)
from service.store.store import DecisionRow


def decision_of(row: DecisionRow) -> Decision:
    """Read a decision back from its log row."""
    context = context_from_json(row.context)
    choice = choice_from_json(row.choice)
    return Decision(context=context, choice=choice, distribution=unpack_actions(context, row.actions))


def row_of(decision: Decision, request_id: str, digest: bytes) -> DecisionRow:
    """Return the log row of a decision."""
    context, choice = decision.context, decision.choice
    is_send = choice.verdict is Verdict.SEND and choice.action is not None and choice.action.send_time is not None
    return DecisionRow(
        decision_id=context.decision_id,
        step=context.step,
        request_id=request_id,
        request_digest=digest,
        customer_key=context.customer.key,
        decide_time=to_micros(context.decide_time),
        campaign=context.message.campaign,
        mode=context.mode,
        verdict=choice.verdict,
        channel=choice.action.channel if is_send and choice.action else NO_SEND,
        send_time=to_micros(choice.action.send_time) if choice.action and choice.action.send_time else None,
        propensity=choice.propensity,
        price_micros=choice.price_micros,
        order_margin_micros=context.message.order_margin_micros,
        policy=choice.policy,
        bundle_version=choice.bundle_version,
        rules_name=choice.rules_name,
        trainable=choice.trainable,
        features=features_to_json(decision),
        context=context_to_json(context),
        choice=choice_to_json(choice),
        actions=pack_actions(decision),
    )


def new_decision_id(now: datetime, request_id: str) -> str:
    """Return a UUID of version 7: 48 bits of milliseconds, then bits that depend on the request alone (RFC 9562)."""
    milliseconds = to_micros(now) // 1000
    noise = int.from_bytes(hmac.digest(b"decision_id", request_id.encode(), "sha256")[:10])
    value = (milliseconds & (1 << 48) - 1) << 80 | noise
    value = value & ~(0xF << 76) | 7 << 76
    value = value & ~(0x3 << 62) | 2 << 62
    return str(UUID(int=value))
