"""Settings of the process: the one place that reads the environment.

Business rules (prices, caps, quiet hours) are not here: they are versioned data in the rules file.
"""

import os
import re
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError

from models.errors import SettingsInvalid, Violation

PREFIX = "CHANNEL_CHOICE_"
DEFAULT_RULES = Path(__file__).parent / "rules" / "default.toml"
_PASSWORD = re.compile(r"^(\w[\w+]*://[^:/@]*:).*@")
Seconds = Annotated[float, Field(gt=0, le=86_400, allow_inf_nan=False)]


class Settings(BaseModel):
    """Each is set by an environment variable of its name under CHANNEL_CHOICE_, or by the option of that name."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True, use_attribute_docstrings=True)

    address: str = "127.0.0.1:50051"
    """Host and port to listen on; port 0 takes a free one."""
    metrics_address: str = ""
    """Host and port on which GET /metrics answers Prometheus, over plain HTTP; empty: none."""
    allow_plaintext: bool = False
    """Whether to serve, decisions or metrics, without TLS on an address that is not loopback, as behind a mesh that encrypts."""
    shared_port: bool = False
    """Whether other processes may listen on the same port of this machine, among which the kernel divides connections; on PostgreSQL alone."""
    tls_certificate_file: Path | None = None
    """PEM certificate chain of the server; with tls_key_file it turns TLS on."""
    tls_key_file: Path | None = None
    """PEM private key of the server."""
    tls_client_ca_file: Path | None = None
    """PEM certificates of the authorities of clients; given, every client must show a certificate."""
    tokens_file: Path | None = None
    """TOML file of bearer tokens with their permissions; none: anyone who reaches the port may decide, nobody may administer."""
    database_url: Annotated[str, Field(repr=False)] = "sqlite:///var/channel_choice.db"
    """Where everything is kept: sqlite:///FILE for one process, postgresql://USER@HOST/DATABASE for any number of them."""
    database_connections: Annotated[int, Field(ge=1, le=256)] = 8
    """Connections to PostgreSQL that reads share; one more writes."""
    retention_days: Annotated[int, Field(ge=90, le=36_500)] | None = None
    """How long decisions are kept, by `maintain` alone; outcomes for a year at least, since orders of a year are looked at; none: for ever."""
    identity_key_file: Path | None = None
    """Key under which identities are hashed, the same for every process of a database; none: identity.key beside an SQLite file, or
    var/identity.key; made at the first start."""
    identity_previous_key_file: Path | None = None
    """The key before it, while it is replaced: identities are looked up under both."""
    rules_file: Path = DEFAULT_RULES
    """Business rules."""
    bundle: str = ""
    """What serves: a bundle's directory, or models:/NAME@ALIAS of the MLflow registry; empty: the rule cascade."""
    mlflow_uri: str = "sqlite:///mlflow.db"
    """The registry that models:/ is looked up in: sqlite:/// or http(s)://."""
    mlflow_token: SecretStr | None = None
    """Bearer token for a registry over http(s)."""
    bundle_cache: Path = Path("var/bundles")
    """Where bundles fetched over http(s) are kept."""
    bundle_poll_seconds: Seconds = 30
    """How often the alias is looked up."""
    bundle_limit_ms: Annotated[float, Field(gt=0, le=60_000, allow_inf_nan=False)] = 250
    """How long a bundle may take to score its golden rows and questions, the fastest of three rounds; a slower one is refused."""
    shadow_bundle: str = ""
    """A challenger that decides beside the bundle without sending: a directory, or models:/NAME@ALIAS; empty: none."""
    shadow_share: Annotated[float, Field(gt=0, le=1, allow_inf_nan=False)] = 0.25
    """The most of a core that the challenger takes; what is decided meanwhile waits."""
    shadow_queue: Annotated[int, Field(ge=1, le=100_000)] = 256
    """Decisions that wait for the challenger; further ones are counted and left out."""
    shadow_log_seconds: Seconds = 300
    """How often the comparison is logged."""
    correction_poll_seconds: Seconds = 10
    """How often what was learned since the bundle was trained is read again; at each new hour it is in any case."""
    clock: Literal["system", "request"] = "system"
    """Where the time comes from; request: from earliest_time and occur_time of what is sent, for simulation."""
    workers: Annotated[int, Field(ge=1, le=256)] = 16
    """Threads that answer all methods but ChooseChannel, whose calls are decided together in one of their own."""
    streams: Annotated[int, Field(ge=1, le=256)] = 8
    """Streams that may be open at once."""
    max_message_bytes: Annotated[int, Field(ge=1024, le=64 << 20)] = 4 << 20
    """The largest request taken, and the largest answer given."""
    drain_seconds: Seconds = 10
    """How long calls in flight may go on after SIGTERM."""
    log_format: Literal["console", "json"] = "console"
    """How log lines are written."""
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    """The least level that is written."""

    @property
    def is_encrypted(self) -> bool:
        return self.tls_certificate_file is not None

    def public(self) -> dict[str, str]:
        """Return the settings as they may be shown: without secrets."""
        shown = {name: str(value) for name, value in self.model_dump().items() if value is not None}
        return shown | {"database_url": _PASSWORD.sub(r"\1***@", self.database_url)}


def load_settings(options: dict[str, object] | None = None) -> Settings:
    """Read the settings: options over the environment over defaults.

    Raises
    ------
    SettingsInvalid: with every mistake, by the setting's name.
    """
    known = {PREFIX + name.upper() for name in Settings.model_fields}
    unknown = sorted(name for name in os.environ if name.startswith(PREFIX) and name not in known)
    violations = [Violation(field=name, description="no such setting; mend its spelling") for name in unknown]
    said = {name.lower(): value for name, value in os.environ.items()}
    found = {name: said[key] for name in Settings.model_fields if (key := f"{PREFIX}{name}".lower()) in said}
    try:
        settings = Settings.model_validate(found | (options or {}))
    except ValidationError as error:
        violations += [
            Violation(field=".".join(map(str, e["loc"])), description=f"{e['msg']}; it is {e['input']!r}")
            for e in error.errors()
        ]
        raise SettingsInvalid(violations, "settings") from error
    violations += _contradictions(settings)
    if violations:
        raise SettingsInvalid(violations, "settings")
    return settings


def _contradictions(settings: Settings) -> list[Violation]:
    found: list[Violation] = []
    if (settings.tls_certificate_file is None) != (settings.tls_key_file is None):
        found.append(
            Violation(field="tls_key_file", description="TLS needs both tls_certificate_file and tls_key_file")
        )
    if settings.shared_port and settings.database_url.startswith("sqlite"):
        problem = "several processes need PostgreSQL, an SQLite file is for one; set database_url, or leave it out"
        found.append(Violation(field="shared_port", description=problem))
    if settings.tls_client_ca_file is not None and not settings.is_encrypted:
        found.append(Violation(field="tls_client_ca_file", description="needs tls_certificate_file and tls_key_file"))
    for name in (
        "tls_certificate_file",
        "tls_key_file",
        "tls_client_ca_file",
        "tokens_file",
        "rules_file",
        "identity_previous_key_file",
    ):
        path = getattr(settings, name)
        if path is not None and not path.is_file():
            found.append(Violation(field=name, description=f"there is no file {path}"))
    if settings.metrics_address:
        found += _of_metrics(settings)
    host = _host(settings.address)
    if host is None:
        found.append(Violation(field="address", description=f"{settings.address!r} is not HOST:PORT"))
        return found
    if is_loopback(host):
        return found
    if not settings.is_encrypted and not settings.allow_plaintext:
        problem = f"{host} is not loopback, and there is no TLS; set tls_certificate_file and tls_key_file, or allow_plaintext"
        found.append(Violation(field="address", description=problem))
    if settings.is_encrypted and settings.tokens_file is None and settings.tls_client_ca_file is None:
        problem = f"{host} is not loopback, so callers must be known; set tokens_file or tls_client_ca_file"
        found.append(Violation(field="tokens_file", description=problem))
    return found


def _of_metrics(settings: Settings) -> list[Violation]:
    host = _host(settings.metrics_address)
    if host is None:
        problem = f"{settings.metrics_address!r} is not HOST:PORT"
    elif not is_loopback(host) and not settings.allow_plaintext:
        problem = f"{host} is not loopback, and metrics have no TLS; take a loopback address, or set allow_plaintext"
    else:
        return []
    return [Violation(field="metrics_address", description=problem)]


def _host(address: str) -> str | None:
    """Return the host of HOST:PORT, None where it is not that."""
    host, separator, port = address.rpartition(":")
    return host if separator and host and port.isdigit() and int(port) <= 65535 else None


def is_loopback(host: str) -> bool:
    """Tell whether a host can be reached from this machine alone."""
    if host == "localhost":
        return True
    try:
        return ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False
