"""Settings: what is refused, by name and with a way out, and that nothing secret is shown."""

from pathlib import Path

import pytest

from models.errors import RulesInvalid, SettingsInvalid
from service.rpc.auth import load_tokens
from service.settings import load_settings
from service.store.identity import load_key
from tests.service.examples import RULES, choose_request
from tests.service.served import serve


def refusal(options: dict[str, object]) -> dict[str, str]:
    """The violations that these options are refused with, by setting."""
    with pytest.raises(SettingsInvalid) as error:
        load_settings(options)
    return {violation.field: violation.description for violation in error.value.violations}


@pytest.fixture
def pem(tmp_path: Path) -> Path:
    """A file that is there; what is in it is looked at when the server binds."""
    path = tmp_path / "file.pem"
    path.write_text("")
    return path


def test_the_defaults_serve_on_loopback() -> None:
    """Out of the box the service is reached from its own machine alone."""
    assert load_settings().address == "127.0.0.1:50051"


@pytest.mark.parametrize("address", ["127.0.0.1:1", "[::1]:50051", "localhost:0", "127.8.9.1:65535"])
def test_loopback_needs_no_tls(address: str) -> None:
    """Every form of loopback may be served in plain text."""
    assert load_settings({"address": address}).address == address


@pytest.mark.parametrize(
    "address", ["0.0.0.0:50051", "[::]:50051", "10.0.0.1:1", "example.org:443", "unix.example.org:443", "localhost.x:1"]
)
def test_plain_text_off_loopback_is_refused(address: str) -> None:
    """Off loopback there is TLS, or a flag that says why not; names that only look local are not loopback."""
    assert "allow_plaintext" in refusal({"address": address})["address"]
    assert load_settings({"address": address, "allow_plaintext": True}).allow_plaintext


@pytest.mark.parametrize("address", ["", "50051", "localhost", ":50051", "localhost:port", "localhost:65536", "a:-1"])
def test_an_address_is_host_and_port(address: str) -> None:
    """What is not HOST:PORT is refused as such."""
    assert "HOST:PORT" in refusal({"address": address})["address"]


def test_half_of_tls_is_refused(pem: Path) -> None:
    """A certificate without key, a key without certificate, and a client authority without both are refused."""
    assert "both" in refusal({"tls_certificate_file": pem})["tls_key_file"]
    assert "both" in refusal({"tls_key_file": pem})["tls_key_file"]
    assert "tls_certificate_file" in refusal({"tls_client_ca_file": pem})["tls_client_ca_file"]


def test_a_shared_port_needs_postgresql() -> None:
    """Several processes on one SQLite file are refused; on PostgreSQL they are not."""
    assert "PostgreSQL" in refusal({"shared_port": True})["shared_port"]
    assert load_settings({"shared_port": True, "database_url": "postgresql://shop@db/choice"}).shared_port


def test_off_loopback_callers_must_be_known(pem: Path) -> None:
    """TLS alone lets everyone in who reaches the port, so tokens or client certificates are asked for."""
    options: dict[str, object] = {"address": "0.0.0.0:1", "tls_certificate_file": pem, "tls_key_file": pem}

    assert "callers must be known" in refusal(options)["tokens_file"]
    assert load_settings(options | {"tokens_file": pem}).is_encrypted
    assert load_settings(options | {"tls_client_ca_file": pem}).is_encrypted


@pytest.mark.parametrize(
    "name", ["tls_certificate_file", "tls_key_file", "tls_client_ca_file", "tokens_file", "rules_file"]
)
def test_a_file_that_is_not_there_is_named(tmp_path: Path, name: str) -> None:
    """A path to nothing, or to a folder, is refused under its setting's name."""
    for path in (tmp_path / "nothing", tmp_path):
        with pytest.raises(SettingsInvalid, match=f"there is no file {path}") as error:
            load_settings({name: path})
        assert name in {violation.field for violation in error.value.violations}


def test_a_misspelt_variable_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """A variable of our prefix that is no setting is a mistake, not a wish that is ignored."""
    monkeypatch.setenv("CHANNEL_CHOICE_ADRESS", "127.0.0.1:1")

    assert "mend its spelling" in refusal({})["CHANNEL_CHOICE_ADRESS"]


def test_every_mistake_comes_at_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Misspelt variables and contradictions are told together."""
    monkeypatch.setenv("CHANNEL_CHOICE_WORKER", "1")
    options: dict[str, object] = {"address": "0.0.0.0:1", "tokens_file": tmp_path / "nothing"}

    assert set(refusal(options)) == {"CHANNEL_CHOICE_WORKER", "address", "tokens_file"}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("workers", "0"),
        ("workers", "many"),
        ("max_message_bytes", "10"),
        ("drain_seconds", "0"),
        ("drain_seconds", "nan"),
        ("bundle_poll_seconds", "-1"),
        ("log_format", "xml"),
        ("log_level", "loud"),
        ("clock", "sundial"),
    ],
)
def test_a_value_out_of_range_is_named(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    """A value that its setting does not take is refused under the setting's name, from variable and option alike."""
    assert name in refusal({name: value})
    monkeypatch.setenv(f"CHANNEL_CHOICE_{name.upper()}", value)
    assert name in refusal({})


def test_the_environment_is_read_in_any_case(monkeypatch: pytest.MonkeyPatch) -> None:
    """Variables of upper and of lower case set what they name, each checked like an option."""
    monkeypatch.setenv("CHANNEL_CHOICE_WORKERS", "3")
    monkeypatch.setenv("channel_choice_log_level", "debug")
    settings = load_settings()
    monkeypatch.setenv("CHANNEL_CHOICE_STREAMS", "none")

    assert (settings.workers, settings.log_level) == (3, "debug")
    assert "valid integer" in refusal({})["streams"]


def test_an_option_goes_over_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is said on the command line holds."""
    monkeypatch.setenv("CHANNEL_CHOICE_WORKERS", "3")

    assert load_settings().workers == 3
    assert load_settings({"workers": "5"}).workers == 5


def test_secrets_are_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    """Settings as printed at start hold no secret."""
    monkeypatch.setenv("CHANNEL_CHOICE_MLFLOW_TOKEN", "hunter2")

    settings = load_settings()

    assert "hunter2" not in str(settings.public()) + repr(settings)


def test_the_database_password_is_not_shown() -> None:
    """Settings as printed say which database, and as whom, but not with what password."""
    settings = load_settings({"database_url": "postgresql://shop:hunter@2:x@host:5432/choice?sslmode=require"})

    assert settings.public()["database_url"] == "postgresql://shop:***@host:5432/choice?sslmode=require"
    assert "hunter" not in str(settings.public()) + repr(settings)


GOOD_TOKEN = f'[[tokens]]\nname = "shop"\nsha256 = "{"0" * 64}"\npermissions = ["decide"]\n'


@pytest.mark.parametrize(
    ("content", "field"),
    [
        (b"", "tokens_file:tokens"),
        (b"tokens = []", "tokens_file:tokens"),
        (b"[[tokens]", "tokens_file"),
        (b"\xff\xfe", "tokens_file"),
        (GOOD_TOKEN.replace("decide", "decied").encode(), "tokens_file:tokens.0.permissions.0"),
        (GOOD_TOKEN.replace("0" * 64, "secret").encode(), "tokens_file:tokens.0.sha256"),
        (GOOD_TOKEN.replace("name", "nmae").encode(), "tokens_file:tokens.0.name"),
    ],
)
def test_a_broken_tokens_file_is_refused_by_key(tmp_path: Path, content: bytes, field: str) -> None:
    """Each mistake in a tokens file is named by its key, and no digest or token is repeated."""
    path = tmp_path / "tokens.toml"
    path.write_bytes(content)

    with pytest.raises(SettingsInvalid) as error:
        load_tokens(path)

    assert field in {violation.field for violation in error.value.violations}
    assert error.value.subject == "settings"
    assert "secret" not in str(error.value)


def test_the_good_tokens_file_is_taken(tmp_path: Path) -> None:
    """What the table above breaks is taken as it is."""
    path = tmp_path / "tokens.toml"
    path.write_text(GOOD_TOKEN)

    assert [token.name for token in load_tokens(path)] == ["shop"]


@pytest.mark.parametrize("content", [b"", b"abc", b"0" * 63, b"g" * 64, b"\xff" * 64, b"0" * 66])
def test_a_broken_identity_key_is_refused(tmp_path: Path, content: bytes) -> None:
    """A key file that holds no key stops the start: another key would forget every customer."""
    path = tmp_path / "identity.key"
    path.write_bytes(content)

    with pytest.raises(SettingsInvalid, match="identity_key_file"):
        load_key(path)


def test_an_identity_key_that_can_be_neither_read_nor_made_is_refused(tmp_path: Path) -> None:
    """A key path in a folder that is not there, or that is a folder, is refused by name."""
    for path in (tmp_path / "nowhere" / "identity.key", tmp_path):
        with pytest.raises(SettingsInvalid, match="identity_key_file: cannot be read or made"):
            load_key(path)


def test_the_identity_key_is_made_once_for_its_owner_alone(tmp_path: Path) -> None:
    """The first start makes the key, readable by nobody else; later ones read it."""
    path = tmp_path / "identity.key"

    first, second = load_key(path), load_key(path)

    assert first == second
    assert len(first) == 32
    assert path.stat().st_mode & 0o077 == 0


@pytest.mark.usefixtures("engine")
def test_another_identity_key_stops_the_start(tmp_path: Path) -> None:
    """A process with a key of its own would not know the customers of the others: it is refused, also while there are none yet."""
    with serve(tmp_path):
        pass

    with (
        pytest.raises(SettingsInvalid, match="another key than the database") as error,
        serve(tmp_path, identity_key_file=tmp_path / "other.key"),
    ):
        pass

    assert error.value.violations[0].field == "identity_key_file"


@pytest.mark.usefixtures("engine")
def test_the_identity_key_can_be_replaced(tmp_path: Path) -> None:
    """Under a new key, with the old one as previous, persons and requests are known as before; those of that time are known when the old one is gone, which is then refused."""
    old, new = tmp_path / "identity.key", tmp_path / "new.key"
    new.write_text("1f" * 32)
    with serve(tmp_path) as service:
        stale = service.decide(choose_request("stale", customer="never back"))
        first = service.decide(choose_request())

    with serve(tmp_path, identity_key_file=new, identity_previous_key_file=old) as service:
        again = service.choose(choose_request())
        service.decide(choose_request("later"))
        service.decide(choose_request("fresh", customer="new"))
        assert service.rows("SELECT count(*) FROM customers") == [(3,)]
    with serve(tmp_path, identity_key_file=new) as service:
        service.decide(choose_request("last"))
        service.decide(choose_request("fresh again", customer="new"))
        assert service.rows("SELECT count(*) FROM customers") == [(3,)]
        service.decide(choose_request("forgotten", customer="never back"))
        assert service.rows("SELECT count(*) FROM customers") == [(4,)]

    assert again.replayed
    assert again.decision.decision_id == first.decision_id != stale.decision_id
    with pytest.raises(SettingsInvalid, match="another key than the database"), serve(tmp_path):
        pass


def test_a_lost_identity_key_stops_the_start(tmp_path: Path) -> None:
    """A database that knows customers is not served under a new key, which would forget what they withdrew."""
    with serve(tmp_path) as service:
        service.decide(choose_request())
    (tmp_path / "identity.key").unlink()

    with pytest.raises(SettingsInvalid, match=r"identity_key_file: .* restore it from a backup"), serve(tmp_path):
        pass

    assert not (tmp_path / "identity.key").exists()


def test_a_broken_rules_file_stops_the_start_by_key(tmp_path: Path) -> None:
    """A rules file that contradicts itself is refused with its keys."""
    rules = RULES.replace('price = "4.10"', 'price = "-4.10"').replace('time_zone = "Europe/Moscow"', 'time_zone = ""')

    with pytest.raises(RulesInvalid) as error, serve(tmp_path, rules):
        pass

    assert {violation.field for violation in error.value.violations} == {"prices[0].price", "time_zone"}


def test_a_taken_port_stops_the_start(tmp_path: Path) -> None:
    """Two services do not share a port: the second is told that it is in use."""
    (tmp_path / "first").mkdir()
    (tmp_path / "second").mkdir()
    with (
        serve(tmp_path / "first") as service,
        pytest.raises(SettingsInvalid, match=f"cannot listen on {service.address}: in use"),
        serve(tmp_path / "second", address=service.address),
    ):
        pass
