"""The gRPC server: services, health, reflection, TLS, limits.

On an event loop, which receives and sends for all calls in one thread; what they ask for is done in others (`service.rpc.handlers`).
"""

import asyncio
import ssl
import threading
from collections.abc import Coroutine, Sequence
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from models.errors import SettingsInvalid, Violation
from service.gen.channelchoice.v1 import (
    admin_service_pb2,
    admin_service_pb2_grpc,
    channel_choice_service_pb2,
    channel_choice_service_pb2_grpc,
    customer_service_pb2,
    customer_service_pb2_grpc,
    outcome_service_pb2,
    outcome_service_pb2_grpc,
)
from service.rpc.auth import AuthInterceptor, load_tokens
from service.rpc.servicers import AdminServicer, ChannelChoiceServicer, CustomerServicer, OutcomeServicer
from service.settings import Settings

SERVICES = (
    channel_choice_service_pb2.DESCRIPTOR.services_by_name["ChannelChoiceService"].full_name,
    outcome_service_pb2.DESCRIPTOR.services_by_name["OutcomeService"].full_name,
    customer_service_pb2.DESCRIPTOR.services_by_name["CustomerService"].full_name,
    admin_service_pb2.DESCRIPTOR.services_by_name["AdminService"].full_name,
)
BUNDLE_HEALTH = "bundle"
"""The name under which health tells of the bundle: NOT_SERVING while the last load failed, whatever serves meanwhile."""


T = TypeVar("T")


@cache
def _loop() -> asyncio.AbstractEventLoop:
    """Return the event loop of this process, in a thread of its own: grpc.aio's loops would take what comes for each other."""
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, name="rpc", daemon=True).start()
    return loop


def _run(coroutine: Coroutine[Any, Any, T]) -> T:
    """Return what a coroutine returns on the event loop, of which this is another thread."""
    return asyncio.run_coroutine_threadsafe(coroutine, _loop()).result()


class _Handlers:
    """Stands in for a server where a service is added to it: keeps its handlers."""

    def __init__(self) -> None:
        self.found: dict[str, dict[str, Any]] = {}

    def add_generic_rpc_handlers(self, handlers: Any) -> None:
        """Do nothing: these are the same."""

    def add_registered_method_handlers(self, service: str, handlers: dict[str, Any]) -> None:
        self.found[service] = handlers


class Server:
    """A bound server; `port` is the one it listens on."""

    def __init__(
        self,
        settings: Settings,
        choice: ChannelChoiceServicer,
        outcomes: OutcomeServicer,
        customers: CustomerServicer,
        admin: AdminServicer,
        interceptors: Sequence[grpc.aio.ServerInterceptor] = (),
    ) -> None:
        """Those `interceptors` see a call before its token is looked at."""
        tokens = None if settings.tokens_file is None else load_tokens(settings.tokens_file)
        handlers: Any = _Handlers()
        channel_choice_service_pb2_grpc.add_ChannelChoiceServiceServicer_to_server(choice, handlers)
        outcome_service_pb2_grpc.add_OutcomeServiceServicer_to_server(outcomes, handlers)
        customer_service_pb2_grpc.add_CustomerServiceServicer_to_server(customers, handlers)
        admin_service_pb2_grpc.add_AdminServiceServicer_to_server(admin, handlers)
        choosing = handlers.found[SERVICES[0]]
        choosing["ChooseChannel"] = grpc.unary_unary_rpc_method_handler(choice.ChooseChannel)  # bytes to bytes
        self._is_bundle_good: bool | None = None
        self.port = _run(self._open(settings, handlers, [*interceptors, AuthInterceptor(tokens)]))

    async def _open(self, settings: Settings, handlers: _Handlers, interceptors: Sequence[Any]) -> int:
        """Make the server and bind it."""
        self._server = grpc.aio.server(
            interceptors=interceptors,
            options=[
                ("grpc.max_receive_message_length", settings.max_message_bytes),
                ("grpc.max_send_message_length", settings.max_message_bytes),
                ("grpc.so_reuseport", int(settings.shared_port)),
            ],
        )
        for service, methods in handlers.found.items():
            self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, methods),))
        self._health = health.aio.HealthServicer()
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        reflection.enable_server_reflection((*SERVICES, health.SERVICE_NAME, reflection.SERVICE_NAME), self._server)
        return self._bind(settings)

    def start(self) -> None:
        """Begin to answer, and say so in health."""
        _run(self._start())

    async def _start(self) -> None:
        await self._server.start()
        for name in ("", *SERVICES):
            await self._health.set(name, health_pb2.HealthCheckResponse.SERVING)

    def show_bundle(self, is_good: bool) -> None:
        """Say in health whether the bundle that the settings name is the one that serves; who watches is told of changes alone."""
        if is_good is not self._is_bundle_good:
            self._is_bundle_good = is_good
            status = health_pb2.HealthCheckResponse.SERVING if is_good else health_pb2.HealthCheckResponse.NOT_SERVING
            _run(self._health.set(BUNDLE_HEALTH, status))

    def stop(self, drain_seconds: float) -> None:
        """Say so in health, take no new calls, and let those in flight end; one that is cut off is still at work until its thread ends, which the store is open for."""
        _run(self._stop(drain_seconds))

    async def _stop(self, drain_seconds: float) -> None:
        await self._health.enter_graceful_shutdown()
        await self._server.stop(drain_seconds)

    def _bind(self, settings: Settings) -> int:
        try:
            if settings.is_encrypted:
                return int(self._server.add_secure_port(settings.address, _credentials(settings)))
            return int(self._server.add_insecure_port(settings.address))
        except RuntimeError as error:
            problem = f"cannot listen on {settings.address}: in use, or not of this machine"
            raise SettingsInvalid([Violation(field="address", description=problem)], "settings") from error


def _credentials(settings: Settings) -> grpc.ServerCredentials:
    def read(path: Path | None) -> bytes:
        return b"" if path is None else path.read_bytes()

    _check_tls(settings)
    authority = read(settings.tls_client_ca_file) or None
    return grpc.ssl_server_credentials(
        [(read(settings.tls_key_file), read(settings.tls_certificate_file))],
        root_certificates=authority,
        require_client_auth=authority is not None,
    )


def _check_tls(settings: Settings) -> None:
    """Let OpenSSL read the files: grpc takes broken ones, then refuses every caller, or with no authority in the file none."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    field = "tls_certificate_file"
    try:
        context.load_cert_chain(str(settings.tls_certificate_file), str(settings.tls_key_file), password="")
        if settings.tls_client_ca_file is not None:
            field = "tls_client_ca_file"
            context.load_verify_locations(settings.tls_client_ca_file)
    except (OSError, ValueError) as error:
        problem = f"{getattr(settings, field)} and what belongs to it cannot be used: {error}; it is to be PEM"
        raise SettingsInvalid([Violation(field=field, description=problem)], "settings") from error
