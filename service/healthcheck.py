"""`python -m service.healthcheck`: ask the service of this machine how it is; exit 0 where it serves, 1 where it does not.

It reads the same settings as the service, so both are to be set by environment. Without TLS it asks grpc.health.v1. With TLS it has no
certificate of its own to show, so it makes the handshake only, and looks whether the certificate is the one of the settings.
"""

import re
import socket
import ssl
import sys
from pathlib import Path
from typing import Any

import grpc
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from grpc_health.v1.health_pb2_grpc import HealthStub

from models.errors import SettingsInvalid
from service.settings import load_settings

_TIMEOUT_SECONDS = 3
_CERTIFICATE = re.compile(r"-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----", re.DOTALL)
_EVERY_INTERFACE = {"0.0.0.0": "127.0.0.1", "[::]": "[::1]"}  # noqa: S104  # dialled by their loopback


def main() -> int:
    """Run the check and return its exit code."""
    try:
        settings = load_settings()
        host, _, port = settings.address.rpartition(":")
        host = _EVERY_INTERFACE.get(host, host)
        if settings.tls_certificate_file is None:
            problem = _ask(f"{host}:{port}")
        else:
            problem = _shake_hands(host.strip("[]"), int(port), settings.tls_certificate_file)
    except SettingsInvalid as error:
        problem = "; ".join(f"{violation.field}: {violation.description}" for violation in error.violations)
    if problem:
        print(problem, file=sys.stderr)
    return 1 if problem else 0


def _ask(address: str) -> str:
    """Return what is wrong with the answer of grpc.health.v1, nothing where it is SERVING."""
    try:
        with grpc.insecure_channel(address) as channel:
            health: Any = HealthStub(channel)  # its type stubs lack the methods
            answer: HealthCheckResponse = health.Check(HealthCheckRequest(), timeout=_TIMEOUT_SECONDS)
    except grpc.RpcError as error:
        return f"{address} does not answer: {error.details() if isinstance(error, grpc.Call) else error}"
    name = HealthCheckResponse.ServingStatus.Name(answer.status)
    return "" if name == "SERVING" else f"{address} is {name}"


def _shake_hands(host: str, port: int, certificate: Path) -> str:
    """Return what is wrong with the TLS handshake, nothing where the server shows the certificate of the settings."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE  # compared with the file instead
    context.set_alpn_protocols(["h2"])
    try:
        with (
            socket.create_connection((host, port), _TIMEOUT_SECONDS) as connection,
            context.wrap_socket(connection) as secure,
        ):
            shown = secure.getpeercert(binary_form=True)
        found = _CERTIFICATE.search(certificate.read_text())
        expected = None if found is None else ssl.PEM_cert_to_DER_cert(found[0])
    except (OSError, ValueError) as error:
        return f"{host}:{port} does not answer: {error}"
    return "" if shown == expected else f"{host}:{port} shows another certificate than {certificate}"


if __name__ == "__main__":
    sys.exit(main())
