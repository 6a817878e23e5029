"""Tokens and certificates that the tests make for themselves."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

Metadata = tuple[tuple[str, str], ...]
EVERYTHING = ("decide", "report", "customers", "admin")


def bearer(name: str) -> Metadata:
    """The metadata by which the caller of that name shows its token."""
    return (("authorization", f"Bearer {name}-token"),)


ADMIN = bearer("admin")


def write_tokens(folder: Path, permissions: Mapping[str, Sequence[str]] | None = None) -> Path:
    """Write a tokens file in which each caller has the token NAME-token; by itself "admin" may do everything."""
    path = folder / "tokens.toml"
    entries = permissions if permissions is not None else {"admin": EVERYTHING}
    path.write_text(
        "".join(
            f'[[tokens]]\nname = "{name}"\nsha256 = "{hashlib.sha256(f"{name}-token".encode()).hexdigest()}"\n'
            f"permissions = {list(allowed)}\n"
            for name, allowed in entries.items()
        )
    )
    return path


@dataclass(frozen=True, kw_only=True)
class Certificate:
    """A certificate with its key, in memory and as PEM files."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey
    certificate_file: Path
    key_file: Path

    @property
    def pem(self) -> bytes:
        return self.certificate_file.read_bytes()

    @property
    def key_pem(self) -> bytes:
        return self.key_file.read_bytes()


def make_certificate(folder: Path, name: str, issuer: Certificate | None = None) -> Certificate:
    """Make a certificate for localhost, signed by its issuer, or an authority where there is none."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.now(UTC)
    names = x509.SubjectAlternativeName([x509.DNSName("localhost"), x509.IPAddress(ip_address("127.0.0.1"))])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer.certificate.subject if issuer else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(names, critical=False)
        .add_extension(x509.BasicConstraints(ca=issuer is None, path_length=None), critical=True)
        .sign(issuer.key if issuer else key, hashes.SHA256())
    )
    certificate_file, key_file = folder / f"{name}.pem", folder / f"{name}.key"
    certificate_file.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    key_file.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return Certificate(certificate=certificate, key=key, certificate_file=certificate_file, key_file=key_file)
