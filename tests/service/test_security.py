"""Who may call what: bearer tokens, TLS, client certificates."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from grpc_health.v1.health_pb2_grpc import HealthStub
from grpc_reflection.v1alpha.reflection_pb2 import ServerReflectionRequest
from grpc_reflection.v1alpha.reflection_pb2_grpc import ServerReflectionStub

from models.errors import SettingsInvalid
from service.gen.channelchoice.v1.admin_service_pb2 import GetServingStatusRequest, PauseChannelRequest
from service.gen.channelchoice.v1.channel_choice_service_pb2 import GetDecisionRequest, StreamChooseChannelRequest
from service.gen.channelchoice.v1.customer_pb2 import CustomerRef
from service.gen.channelchoice.v1.customer_service_pb2 import EraseCustomerRequest, GetCustomerRequest
from service.gen.channelchoice.v1.outcome_service_pb2 import ReportOutcomesRequest, StreamOutcomesRequest
from tests.service.examples import choose_request
from tests.service.security import ADMIN, Certificate, Metadata, bearer, make_certificate, write_tokens
from tests.service.served import Refusal, Served, refused, serve

Call = Callable[[Served, Metadata], object]
CALLS: dict[str, tuple[str, Call]] = {
    "ChooseChannel": ("decide", lambda s, m: s.decisions.ChooseChannel(choose_request(), metadata=m)),
    "GetDecision": ("decide", lambda s, m: s.decisions.GetDecision(GetDecisionRequest(), metadata=m)),
    "StreamChooseChannel": (
        "decide",
        lambda s, m: list(
            s.decisions.StreamChooseChannel(iter([StreamChooseChannelRequest()]), metadata=m, timeout=10)
        ),
    ),
    "ReportOutcomes": ("report", lambda s, m: s.outcomes.ReportOutcomes(ReportOutcomesRequest(), metadata=m)),
    "StreamOutcomes": (
        "report",
        lambda s, m: list(s.outcomes.StreamOutcomes(iter([StreamOutcomesRequest()]), metadata=m, timeout=10)),
    ),
    "GetCustomer": (
        "customers",
        lambda s, m: s.customers.GetCustomer(GetCustomerRequest(customer=CustomerRef(customer_id="x")), metadata=m),
    ),
    "EraseCustomer": ("customers", lambda s, m: s.customers.EraseCustomer(EraseCustomerRequest(), metadata=m)),
    "GetServingStatus": ("admin", lambda s, m: s.admin.GetServingStatus(GetServingStatusRequest(), metadata=m)),
    "PauseChannel": ("admin", lambda s, m: s.admin.PauseChannel(PauseChannelRequest(), metadata=m)),
}
REFUSED = (grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED)


def ask_health(channel: grpc.Channel) -> int:
    health: Any = HealthStub(channel)  # its type stubs lack the methods
    answer: HealthCheckResponse = health.Check(HealthCheckRequest(), timeout=10)
    return answer.status


def attempt(call: Call, service: Served, metadata: Metadata) -> Refusal | None:
    """Make a call and return what it was refused with, None where it was answered."""
    found: list[Refusal] = []
    try:
        with refused() as found:
            call(service, metadata)
    except AssertionError:
        return None
    return found[0]


def permitted(folder: Path) -> Path:
    """A tokens file with one caller for each permission."""
    return write_tokens(folder, {name: [name] for name in ("decide", "report", "customers", "admin")})


@pytest.mark.parametrize(
    "metadata",
    [
        (),
        (("authorization", "Bearer wrong"),),
        (("authorization", "Basic admin-token"),),
        (("authorization", "admin-token"),),
        (("authorization", "Bearer "),),
        (("authorization", "Bearer admin-token "),),
        (("x-authorization", "Bearer admin-token"),),
    ],
    ids=["none", "wrong", "basic", "bare", "empty", "padded", "elsewhere"],
)
@pytest.mark.parametrize("name", CALLS)
def test_without_a_known_token_nothing_is_answered(tokens_served: Served, name: str, metadata: Metadata) -> None:
    """With a tokens file each method refuses a missing or wrong token, and says how to send one."""
    refusal = attempt(CALLS[name][1], tokens_served, metadata)

    assert refusal is not None
    assert refusal.code is grpc.StatusCode.UNAUTHENTICATED
    assert "authorization: Bearer" in refusal.message


@pytest.mark.parametrize("caller", ["decide", "report", "customers", "admin"])
@pytest.mark.parametrize("name", CALLS)
def test_a_token_opens_the_services_of_its_permissions_alone(tokens_served: Served, name: str, caller: str) -> None:
    """A token answers for its own service; any other is PERMISSION_DENIED, and names what is lacking."""
    permission, call = CALLS[name]

    refusal = attempt(call, tokens_served, bearer(caller))

    if permission == caller:
        assert refusal is None or refusal.code not in REFUSED
    else:
        assert refusal is not None
        assert refusal.code is grpc.StatusCode.PERMISSION_DENIED
        assert f"'{caller}'" in refusal.message
        assert f"'{permission}'" in refusal.message


@pytest.fixture(scope="module")
def tokens_served(tmp_path_factory: pytest.TempPathFactory) -> Served:  # type: ignore[misc]  # a generator, as fixtures are
    """One service with a token for each permission."""
    folder = tmp_path_factory.mktemp("tokens")
    with serve(folder, tokens_file=permitted(folder)) as served:
        yield served


def test_without_a_tokens_file_admin_methods_are_refused(service: Served) -> None:
    """Where nobody can be known nobody administers, whatever token is shown; decisions are open."""
    for metadata in ((), ADMIN):
        refusal = attempt(CALLS["PauseChannel"][1], service, metadata)
        assert refusal is not None
        assert refusal.code is grpc.StatusCode.PERMISSION_DENIED
        assert "tokens_file" in refusal.message

    assert service.decide(choose_request()).decision_id


def test_health_is_open_to_all(tokens_served: Served) -> None:
    """A load balancer needs no token to ask for health."""
    assert ask_health(tokens_served.grpc_channel) == HealthCheckResponse.SERVING


def test_reflection_needs_a_token_and_no_permission(tokens_served: Served) -> None:
    """With a tokens file the contract is shown to known callers alone."""
    stub: Any = ServerReflectionStub(  # its type stubs lack the methods
        tokens_served.grpc_channel
    )

    def list_services(metadata: Metadata) -> list[str]:
        request = ServerReflectionRequest(list_services="")
        (answer,) = stub.ServerReflectionInfo(iter([request]), metadata=metadata, timeout=10)
        return [service.name for service in answer.list_services_response.service]

    with refused() as refusal:
        list_services(())

    assert refusal[0].code is grpc.StatusCode.UNAUTHENTICATED
    assert "channelchoice.v1.ChannelChoiceService" in list_services(bearer("report"))


def test_a_method_that_is_not_there_is_unimplemented(tokens_served: Served) -> None:
    """A misspelt method answers UNIMPLEMENTED, as gRPC has it."""
    call: Any = tokens_served.grpc_channel.unary_unary("/channelchoice.v1.ChannelChoiceService/Chose")

    with refused() as refusal:
        call(b"", metadata=bearer("decide"), timeout=10)

    assert refusal[0].code is grpc.StatusCode.UNIMPLEMENTED


# --- TLS


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    return make_certificate(tmp_path_factory.mktemp("authority"), "authority")


def test_over_tls_a_caller_that_trusts_the_authority_is_answered(tmp_path: Path, authority: Certificate) -> None:
    """With certificate and key the service speaks TLS, and only TLS."""
    server = make_certificate(tmp_path, "server", authority)
    credentials = grpc.ssl_channel_credentials(authority.pem)
    files: dict[str, Any] = {"tls_certificate_file": server.certificate_file, "tls_key_file": server.key_file}
    with serve(tmp_path, credentials=credentials, **files) as service:
        assert service.decide(choose_request()).decision_id
        assert ask_health(service.grpc_channel) == HealthCheckResponse.SERVING
        with grpc.insecure_channel(service.address) as plain, refused() as refusal:
            ask_health(plain)

    assert refusal[0].code is grpc.StatusCode.UNAVAILABLE


def test_with_a_client_authority_a_certificate_is_required(tmp_path: Path, authority: Certificate) -> None:
    """Under mutual TLS a caller with a certificate of the authority is answered; one with another's or none is not."""
    server, caller = make_certificate(tmp_path, "server", authority), make_certificate(tmp_path, "caller", authority)
    foreign_authority = make_certificate(tmp_path, "foreign-authority")
    foreign = make_certificate(tmp_path, "foreign", foreign_authority)
    known = grpc.ssl_channel_credentials(authority.pem, caller.key_pem, caller.pem)
    strangers = [
        grpc.ssl_channel_credentials(authority.pem),
        grpc.ssl_channel_credentials(authority.pem, foreign.key_pem, foreign.pem),
    ]
    files: dict[str, Any] = {
        "tls_certificate_file": server.certificate_file,
        "tls_key_file": server.key_file,
        "tls_client_ca_file": authority.certificate_file,
    }
    codes = []
    with serve(tmp_path, credentials=known, **files) as service:
        assert service.decide(choose_request()).decision_id
        for credentials in strangers:
            with grpc.secure_channel(f"localhost:{service.app.server.port}", credentials) as channel:
                with refused() as refusal:
                    ask_health(channel)
                codes.append(refusal[0].code)

    assert codes == [grpc.StatusCode.UNAVAILABLE] * 2


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("tls_client_ca_file", b""),
        ("tls_client_ca_file", b"no certificate"),
        ("tls_certificate_file", b""),
        ("tls_certificate_file", b"no certificate"),
        ("tls_key_file", b"no key"),
    ],
)
def test_a_broken_certificate_file_is_refused_at_start(
    tmp_path: Path, authority: Certificate, name: str, content: bytes
) -> None:
    """An empty or broken file stops the start: an empty authority must never mean that everybody may come in."""
    server = make_certificate(tmp_path, "server", authority)
    files: dict[str, Any] = {
        "tls_certificate_file": server.certificate_file,
        "tls_key_file": server.key_file,
        "tls_client_ca_file": authority.certificate_file,
    }
    files[name] = tmp_path / "broken.pem"
    files[name].write_bytes(content)

    with pytest.raises(SettingsInvalid, match=r"broken\.pem|belongs to it") as refusal, serve(tmp_path, **files):
        pass

    assert refusal.value.violations[0].field in (name, "tls_certificate_file")


def test_a_key_of_another_certificate_is_refused_at_start(tmp_path: Path, authority: Certificate) -> None:
    """Certificate and key that do not belong together stop the start."""
    server, other = make_certificate(tmp_path, "server", authority), make_certificate(tmp_path, "other", authority)

    with (
        pytest.raises(SettingsInvalid, match="tls_certificate_file"),
        serve(tmp_path, tls_certificate_file=server.certificate_file, tls_key_file=other.key_file),
    ):
        pass
