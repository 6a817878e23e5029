"""The health check that a container's keeper runs."""

from pathlib import Path

import grpc
import pytest

from service import healthcheck
from tests.service.security import make_certificate
from tests.service.served import serve


def test_a_service_that_serves_is_healthy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While the service answers, the check exits with 0."""
    with serve(tmp_path) as service:
        monkeypatch.setenv("CHANNEL_CHOICE_ADDRESS", service.address)

        assert healthcheck.main() == 0


def test_a_service_that_has_stopped_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Where nobody answers, the check exits with 1 and says why."""
    with serve(tmp_path) as service:
        monkeypatch.setenv("CHANNEL_CHOICE_ADDRESS", service.address)

    assert healthcheck.main() == 1
    assert capsys.readouterr().err.strip()


def test_with_tls_the_certificate_is_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With TLS the check is content with the certificate of the settings alone."""
    own, other = make_certificate(tmp_path, "own"), make_certificate(tmp_path, "other")
    trusting = grpc.ssl_channel_credentials(own.pem)
    with serve(
        tmp_path, credentials=trusting, tls_certificate_file=own.certificate_file, tls_key_file=own.key_file
    ) as service:
        monkeypatch.setenv("CHANNEL_CHOICE_ADDRESS", service.address)
        monkeypatch.setenv("CHANNEL_CHOICE_TLS_CERTIFICATE_FILE", str(own.certificate_file))
        monkeypatch.setenv("CHANNEL_CHOICE_TLS_KEY_FILE", str(own.key_file))
        same = healthcheck.main()
        monkeypatch.setenv("CHANNEL_CHOICE_TLS_CERTIFICATE_FILE", str(other.certificate_file))
        another = healthcheck.main()

    assert (same, another) == (0, 1)


def test_settings_that_are_wrong_are_not_healthy(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Settings under which no service could start fail the check by name."""
    monkeypatch.setenv("CHANNEL_CHOICE_ADDRESS", "nowhere")

    assert healthcheck.main() == 1
    assert "address" in capsys.readouterr().err
