"""Who may call what: bearer tokens with permissions.

The tokens file holds sha256 digests, never tokens:

    [[tokens]]
    name = "shop"
    sha256 = "9f86d0..."          # printf %s "$TOKEN" | sha256sum
    permissions = ["decide", "report", "customers"]
"""

import hashlib
import hmac
import tomllib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import grpc
from pydantic import ConfigDict, Field, TypeAdapter, ValidationError

from models.errors import SettingsInvalid, Violation

Permission = Literal["decide", "report", "customers", "admin"]
_SERVICES: dict[str, Permission] = {
    "channelchoice.v1.ChannelChoiceService": "decide",
    "channelchoice.v1.OutcomeService": "report",
    "channelchoice.v1.CustomerService": "customers",
    "channelchoice.v1.AdminService": "admin",
}
_OPEN = frozenset({"grpc.health.v1.Health"})
_REFLECTION = "grpc.reflection."


@dataclass(frozen=True, slots=True, kw_only=True)
class Token:
    """A caller: name for the log, digest of the token, and what it may do."""

    __pydantic_config__ = ConfigDict(extra="forbid")

    name: str
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    permissions: frozenset[Permission]


@dataclass(frozen=True, slots=True, kw_only=True)
class TokensFile:
    """The whole tokens file."""

    __pydantic_config__ = ConfigDict(extra="forbid")

    tokens: Annotated[tuple[Token, ...], Field(min_length=1)]


def load_tokens(path: Path) -> tuple[Token, ...]:
    """Read a tokens file.

    Raises
    ------
    SettingsInvalid: with every mistake in it, by key.
    """
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
        return TypeAdapter(TokensFile).validate_python(document).tokens
    except OSError as error:
        raise SettingsInvalid(
            [Violation(field="tokens_file", description=f"cannot be read: {error}")], "settings"
        ) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        problem = f"{path} is not TOML: {error}"
        raise SettingsInvalid([Violation(field="tokens_file", description=problem)], "settings") from error
    except ValidationError as error:
        found = [
            Violation(field=f"tokens_file:{'.'.join(map(str, e['loc']))}", description=e["msg"]) for e in error.errors()
        ]
        raise SettingsInvalid(found, "settings") from error


class AuthInterceptor(grpc.aio.ServerInterceptor):
    """Lets a call through only where its token has the permission of its service.

    Without tokens anyone may call all but the admin methods; health is open always.
    """

    def __init__(self, tokens: tuple[Token, ...] | None) -> None:
        self._tokens = tokens

    async def intercept_service(self, continuation: Callable[[Any], Awaitable[Any]], details: Any) -> Any:
        handler = await continuation(details)
        problem = self._problem(details.method.split("/")[1], dict(details.invocation_metadata))
        return handler if problem is None else _refusing(handler, *problem)

    def _problem(self, service: str, metadata: dict[str, Any]) -> tuple[grpc.StatusCode, str] | None:
        """Return why a call is refused, None where it is not."""
        needed = _SERVICES.get(service)
        if service in _OPEN:
            return None
        if self._tokens is None:
            if needed == "admin":
                problem = "admin methods need a token with the admin permission; start the service with tokens_file"
                return grpc.StatusCode.PERMISSION_DENIED, problem
            return None
        token = self._find(str(metadata.get("authorization", "")))
        if token is None:
            problem = "send the metadata 'authorization: Bearer TOKEN' with a token of the service's tokens_file"
            return grpc.StatusCode.UNAUTHENTICATED, problem
        if (needed is None and service.startswith(_REFLECTION)) or needed in token.permissions:
            return None
        return grpc.StatusCode.PERMISSION_DENIED, f"the token {token.name!r} lacks the permission {needed!r}"

    def _find(self, header: str) -> Token | None:
        scheme, _, value = header.partition(" ")
        if scheme.lower() != "bearer" or not value:
            return None
        digest = hashlib.sha256(value.encode()).hexdigest()
        found = [token for token in self._tokens or () if hmac.compare_digest(token.sha256, digest)]
        return found[0] if found else None


def _refusing(handler: Any, code: grpc.StatusCode, problem: str) -> Any:
    """Return a handler of the same kind that refuses every call."""
    if handler is None:
        return None

    async def refuse(_request: Any, context: Any) -> Any:
        await context.abort(code, problem)

    make = {
        (False, False): grpc.unary_unary_rpc_method_handler,
        (False, True): grpc.unary_stream_rpc_method_handler,
        (True, False): grpc.stream_unary_rpc_method_handler,
        (True, True): grpc.stream_stream_rpc_method_handler,
    }[handler.request_streaming, handler.response_streaming]
    return make(
        refuse, request_deserializer=handler.request_deserializer, response_serializer=handler.response_serializer
    )
