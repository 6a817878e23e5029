"""One table from our errors to gRPC's: code, stable reason, details. Only UNAVAILABLE invites a retry."""

from collections.abc import Sequence
from typing import Any

import grpc
from google.protobuf.any_pb2 import Any as AnyProto
from google.protobuf.message import Message
from google.rpc.code_pb2 import Code
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo, RetryInfo
from google.rpc.status_pb2 import Status
from grpc_status import rpc_status

from models.errors import (
    AlreadyExists,
    BundleCorrupt,
    BundleError,
    BundleIncompatible,
    BundleMissing,
    BundleSlow,
    ChannelChoiceError,
    InvalidInput,
    NotFound,
    StoreUnavailable,
    Violation,
)
from service.gen.channelchoice.v1 import status_pb2 as status_pb

DOMAIN = "channelchoice.v1"
_MOST_TEXT = 200
_MOST_VIOLATIONS = 4000
"""Characters of one text, and bytes of all violations. A status travels in trailers, of which clients take 8 KiB; with more they see
RESOURCE_EXHAUSTED instead of the error."""
_TABLE: tuple[tuple[type[ChannelChoiceError], grpc.StatusCode, str], ...] = (
    (InvalidInput, grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELDS"),
    (NotFound, grpc.StatusCode.NOT_FOUND, "NOT_FOUND"),
    (AlreadyExists, grpc.StatusCode.ALREADY_EXISTS, "ID_USED_WITH_ANOTHER_BODY"),
    (StoreUnavailable, grpc.StatusCode.UNAVAILABLE, "STORE_UNAVAILABLE"),
    (BundleMissing, grpc.StatusCode.FAILED_PRECONDITION, "BUNDLE_MISSING"),
    (BundleCorrupt, grpc.StatusCode.FAILED_PRECONDITION, "BUNDLE_CORRUPT"),
    (BundleIncompatible, grpc.StatusCode.FAILED_PRECONDITION, "BUNDLE_INCOMPATIBLE"),
    (BundleSlow, grpc.StatusCode.FAILED_PRECONDITION, "BUNDLE_SLOW"),
    (BundleError, grpc.StatusCode.FAILED_PRECONDITION, "BUNDLE_UNUSABLE"),
    (ChannelChoiceError, grpc.StatusCode.INTERNAL, "INTERNAL"),
)


def code_and_reason(error: ChannelChoiceError) -> tuple[grpc.StatusCode, str]:
    """Return the gRPC code and the stable reason of an error."""
    return next((code, reason) for kind, code, reason in _TABLE if isinstance(error, kind))


def _metadata(error: ChannelChoiceError) -> dict[str, str]:
    names = ("kind", "key", "source")
    return {name: _cut(str(getattr(error, name))) for name in names if hasattr(error, name)}


def _cut(text: str) -> str:
    return text if len(text) <= _MOST_TEXT else f"{text[: _MOST_TEXT - 1]}…"


def _bad_request(violations: Sequence[Violation]) -> BadRequest:
    """Return the violations, as many as a status carries; where there are more, the last entry counts them."""
    bad = BadRequest()
    for index, violation in enumerate(violations):
        bad.field_violations.add(field=_cut(violation.field), description=_cut(violation.description))
        if bad.ByteSize() > _MOST_VIOLATIONS and index + 1 < len(violations):
            more = f"{len(violations) - index} more fields are refused, this one first; mend these and ask again"
            bad.field_violations[-1].description = more
            break
    return bad


def to_status(error: ChannelChoiceError) -> Any:
    """Return what a call is aborted with."""
    code, reason = code_and_reason(error)
    details: list[Message] = [ErrorInfo(reason=reason, domain=DOMAIN, metadata=_metadata(error))]
    if isinstance(error, InvalidInput):
        details.append(_bad_request(error.violations))
    if isinstance(error, StoreUnavailable):
        retry = RetryInfo()
        retry.retry_delay.FromMilliseconds(500)
        details.append(retry)
    packed = []
    for detail in details:
        any_detail = AnyProto()
        any_detail.Pack(detail)
        packed.append(any_detail)
    number = Code.Value(code.name)
    return rpc_status.to_status(Status(code=number, message=_cut(str(error)), details=packed))


def to_item(error: ChannelChoiceError) -> status_pb.ItemStatus:
    """Return what one item of a batch failed with."""
    code, reason = code_and_reason(error)
    violations = error.violations if isinstance(error, InvalidInput) else []
    return status_pb.ItemStatus(
        code=Code.Value(code.name),
        reason=reason,
        message=str(error),
        field_violations=[status_pb.FieldViolation(field=v.field, description=v.description) for v in violations],
    )
