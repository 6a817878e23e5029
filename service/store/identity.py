"""Identities as keyed hashes, so that no address, number or id of a person is ever stored."""

import hashlib
import hmac
import os
import secrets
from dataclasses import dataclass, field
from pathlib import Path

from models.errors import SettingsInvalid, Violation
from service.store.store import Store
from service.store.url import folder_beside

_KEY_BYTES = 32


def hash_identity(key: bytes, kind: str, value: str) -> bytes:
    """Return HMAC-SHA256 of type and value under the deployment's key."""
    return hmac.digest(key, f"{kind}\x1f{value}".encode(), hashlib.sha256)


@dataclass(frozen=True, slots=True, kw_only=True)
class Keys:
    """The key of a deployment, and the one before it while that is being replaced: an identity then counts under both."""

    current: bytes = field(repr=False)
    previous: bytes | None = field(default=None, repr=False)

    @property
    def _all(self) -> tuple[bytes, ...]:
        return (self.current,) if self.previous is None else (self.current, self.previous)

    def hashes(self, kind: str, value: str) -> tuple[bytes, ...]:
        """Return the hashes of an identity, that of the current key first."""
        return tuple(hash_identity(key, kind, value) for key in self._all)

    def digest(self, body: bytes) -> bytes:
        """Return HMAC-SHA256 of a request's body under the current key."""
        return hmac.digest(self.current, body, "sha256")

    def is_digest(self, digest: bytes, body: bytes) -> bool:
        """Tell whether a digest is of this body, under any of the keys."""
        return any(hmac.compare_digest(digest, hmac.digest(key, body, "sha256")) for key in self._all)


def load_key(path: Path) -> bytes:
    """Read the key from a file of 64 hexadecimal digits; where there is none, make it, readable by its owner alone.

    Raises
    ------
    SettingsInvalid: the file holds no such key, or can be neither read nor made.
    """
    try:
        text = _read_or_make(path)
    except OSError as error:
        problem = f"cannot be read or made: {error}"
        raise SettingsInvalid([Violation(field="identity_key_file", description=problem)], "settings") from error
    try:
        key = bytes.fromhex(text)
    except ValueError:
        key = b""
    if len(key) != _KEY_BYTES:
        problem = f"{path} must hold {2 * _KEY_BYTES} hexadecimal digits; restore it from a backup, since a new key forgets all customers"
        raise SettingsInvalid([Violation(field="identity_key_file", description=problem)], "settings")
    return key


def _read_or_make(path: Path) -> str:
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return path.read_text(errors="replace").strip()
    text = secrets.token_hex(_KEY_BYTES)
    with os.fdopen(descriptor, "w") as file:
        file.write(text + "\n")
    return text


def key_path_beside(database_url: str) -> Path:
    """Return where the key of a database is kept unless something else is said: beside it."""
    return folder_beside(database_url) / "identity.key"


def load_keys(store: Store, database_url: str, path: Path | None = None, previous: Path | None = None) -> Keys:
    """Load the key of a database out of a file, by default the one beside it, which is made with a new database.

    With a previous key, one that the database knows customers by, the key becomes the database's.

    Raises
    ------
    SettingsInvalid: neither is the key that the database knows customers by, or none is there while customers are.
    """
    if path is None:
        path = key_path_beside(database_url)
        path.parent.mkdir(parents=True, exist_ok=True)
    if not path.exists() and store.read(lambda reader: reader.count_all_identities()):
        raise _refuse(
            f"{path} is not there, but the database knows customers by it, with what they withdrew; restore it from a backup"
        )
    keys = Keys(current=load_key(path), previous=None if previous is None else load_key(previous))
    if not store.claim_key(keys.current, keys.previous):
        raise _refuse(
            f"{path} is another key than the database knows customers by; give every process of the database a copy of one file, "
            "and the key before it as identity_previous_key_file while it is replaced"
        )
    return keys


def _refuse(problem: str) -> SettingsInvalid:
    return SettingsInvalid([Violation(field="identity_key_file", description=problem)], "settings")
