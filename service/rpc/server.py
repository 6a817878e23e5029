"""The gRPC server: services, health, reflection, TLS, limits.

Synchronous, on a pool of threads: a decision computes and waits for its commit, and per call this costs less CPU than grpc.aio
(`python -m tests.benchmarks` measures both).
"""

import ssl
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

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


class Server:
    """A bound server; `port` is the one it listens on."""

    def __init__(
        self,
        settings: Settings,
        choice: ChannelChoiceServicer,
        outcomes: OutcomeServicer,
        customers: CustomerServicer,
        admin: AdminServicer,
        interceptors: Sequence[grpc.ServerInterceptor] = (),
    ) -> None:
        """Those `interceptors` see a call before its token is looked at."""
        tokens = None if settings.tokens_file is None else load_tokens(settings.tokens_file)
        self._threads = ThreadPoolExecutor(settings.workers + settings.streams, thread_name_prefix="call")
        self._server = grpc.server(
            self._threads,
            interceptors=[*interceptors, AuthInterceptor(tokens)],
            options=[
                ("grpc.max_receive_message_length", settings.max_message_bytes),
                ("grpc.max_send_message_length", settings.max_message_bytes),
                ("grpc.so_reuseport", int(settings.shared_port)),
            ],
        )
        channel_choice_service_pb2_grpc.add_ChannelChoiceServiceServicer_to_server(choice, self._server)
        outcome_service_pb2_grpc.add_OutcomeServiceServicer_to_server(outcomes, self._server)
        customer_service_pb2_grpc.add_CustomerServiceServicer_to_server(customers, self._server)
        admin_service_pb2_grpc.add_AdminServiceServicer_to_server(admin, self._server)
        self._health = health.HealthServicer()
        self._is_bundle_good: bool | None = None
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        reflection.enable_server_reflection((*SERVICES, health.SERVICE_NAME, reflection.SERVICE_NAME), self._server)
        self.port = self._bind(settings)

    def start(self) -> None:
        """Begin to answer, and say so in health."""
        self._server.start()
        for name in ("", *SERVICES):
            self._health.set(name, health_pb2.HealthCheckResponse.SERVING)

    def show_bundle(self, is_good: bool) -> None:
        """Say in health whether the bundle that the settings name is the one that serves; who watches is told of changes alone."""
        if is_good is not self._is_bundle_good:
            self._is_bundle_good = is_good
            status = health_pb2.HealthCheckResponse.SERVING if is_good else health_pb2.HealthCheckResponse.NOT_SERVING
            self._health.set(BUNDLE_HEALTH, status)

    def stop(self, drain_seconds: float) -> None:
        """Say so in health, take no new calls, and let those in flight end; one that is cut off is still at work until its thread ends, which the store is open for."""
        self._health.enter_graceful_shutdown()
        self._server.stop(drain_seconds).wait()
        self._threads.shutdown()

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
