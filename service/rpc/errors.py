"""One table from our errors to gRPC's: code, stable reason, details. Only UNAVAILABLE invites a retry."""

from collections.abc import Callable
from functools import wraps
from typing import Any, NoReturn, TypeVar

import grpc
import structlog
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
    ChannelChoiceError,
    InvalidInput,
    NotFound,
    StoreUnavailable,
)
from service.gen.channelchoice.v1 import status_pb2 as status_pb

_log = structlog.get_logger(__name__)
F = TypeVar("F", bound=Callable[..., Any])
DOMAIN = "channelchoice.v1"
_TABLE: tuple[tuple[type[ChannelChoiceError], grpc.StatusCode, str], ...] = (
    (InvalidInput, grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELDS"),
    (NotFound, grpc.StatusCode.NOT_FOUND, "NOT_FOUND"),
    (AlreadyExists, grpc.StatusCode.ALREADY_EXISTS, "ID_USED_WITH_ANOTHER_BODY"),
    (StoreUnavailable, grpc.StatusCode.UNAVAILABLE, "STORE_UNAVAILABLE"),
    (BundleMissing, grpc.StatusCode.FAILED_PRECONDITION, "BUNDLE_MISSING"),
    (BundleCorrupt, grpc.StatusCode.FAILED_PRECONDITION, "BUNDLE_CORRUPT"),
    (BundleIncompatible, grpc.StatusCode.FAILED_PRECONDITION, "BUNDLE_INCOMPATIBLE"),
    (BundleError, grpc.StatusCode.FAILED_PRECONDITION, "BUNDLE_UNUSABLE"),
    (ChannelChoiceError, grpc.StatusCode.INTERNAL, "INTERNAL"),
)


def code_and_reason(error: ChannelChoiceError) -> tuple[grpc.StatusCode, str]:
    """Return the gRPC code and the stable reason of an error."""
    return next((code, reason) for kind, code, reason in _TABLE if isinstance(error, kind))


def _metadata(error: ChannelChoiceError) -> dict[str, str]:
    names = ("kind", "key", "source")
    return {name: str(getattr(error, name)) for name in names if hasattr(error, name)}


def to_status(error: ChannelChoiceError) -> Any:
    """Return what a call is aborted with."""
    code, reason = code_and_reason(error)
    details: list[Message] = [ErrorInfo(reason=reason, domain=DOMAIN, metadata=_metadata(error))]
    if isinstance(error, InvalidInput):
        bad = BadRequest()
        for violation in error.violations:
            bad.field_violations.add(field=violation.field, description=violation.description)
        details.append(bad)
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
    return rpc_status.to_status(Status(code=number, message=str(error), details=packed))


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


def answering(method: F) -> F:
    """Turn our errors that leave a unary method into gRPC's; anything else is logged and becomes INTERNAL."""

    @wraps(method)
    def wrapped(self: Any, request: Any, context: grpc.ServicerContext) -> Any:
        try:
            return method(self, request, context)
        except Exception as error:
            _end(context, error, method.__name__)

    return wrapped  # type: ignore[return-value]  # same signature as the method


def streaming(method: F) -> F:
    """Do for a streaming method what `answering` does for a unary one."""

    @wraps(method)
    def wrapped(self: Any, requests: Any, context: grpc.ServicerContext) -> Any:
        try:
            yield from method(self, requests, context)
        except Exception as error:
            _end(context, error, method.__name__)

    return wrapped  # type: ignore[return-value]  # same signature as the method


def _end(context: grpc.ServicerContext, error: Exception, method: str) -> NoReturn:
    if isinstance(error, ChannelChoiceError):
        context.abort_with_status(to_status(error))
    if not context.is_active():
        raise error  # the caller has gone
    _log.error("call failed", method=method, kind=type(error).__name__, exc_info=error)
    context.abort(grpc.StatusCode.INTERNAL, f"{type(error).__name__} in {method}; see the server's log")
    raise AssertionError("abort raises")
