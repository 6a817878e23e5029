"""The URL of a database, read and written as SQLAlchemy does, which the server itself does not import."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import parse_qsl, quote, quote_plus, unquote

from models.errors import SettingsInvalid, Violation

_URL = re.compile(
    r"(?P<driver>[\w+]+)://"
    r"(?:(?P<user>[^:/]*)(?::(?P<password>[^@]*))?@)?"
    r"(?:(?:\[(?P<ipv6>[^/?]+)\]|(?P<ipv4>[^/:?]+))?(?::(?P<port>[^/?]*))?)?"
    r"(?:/(?P<database>[^?]*))?"
    r"(?:\?(?P<query>.*))?"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Url:
    """A database's URL in its parts, None for those that it does not have."""

    text: str = field(repr=False)
    """All of it, as it was given."""
    driver: str
    """The engine, and the library to reach it where it is named: postgresql+psycopg."""
    user: str | None
    password: str | None = field(repr=False)
    host: str | None
    port: str | None
    """Digits, or nothing."""
    database: str | None
    query: tuple[tuple[str, str], ...]

    @property
    def engine(self) -> str:
        return self.driver.partition("+")[0]

    def render(self, *, is_shown: bool = True) -> str:
        """Return it without its password, since it is shown to somebody; or, where it is not, with it, to connect by."""
        user = "" if self.user is None else quote(self.user, safe=" +")
        if self.user is not None:
            if self.password is not None:
                user += ":" + ("***" if is_shown else quote(self.password, safe=" +"))
            user += "@"
        host = "" if self.host is None else f"[{self.host}]" if ":" in self.host else self.host
        port = f":{int(self.port)}" if self.port else ""
        database = "" if self.database is None else "/" + quote(self.database, safe=" +/")
        pairs = sorted(self.query, key=lambda pair: pair[0])
        query = "?" + "&".join(f"{quote_plus(name)}={quote_plus(value)}" for name, value in pairs) if pairs else ""
        return f"{self.driver}://{user}{host}{port}{database}{query}"


def parse_url(url: str) -> Url:
    """Parse a database URL.

    Raises
    ------
    SettingsInvalid: it is not the URL of a database that the store runs on.
    """
    match = _URL.match(url)
    if match is None:
        problem = "Could not parse SQLAlchemy URL from given URL string"
        raise _refuse(f"{problem}; write one such as sqlite:///var/channel_choice.db")
    parsed = _url_of(url, match.groupdict())
    if parsed.driver in ("postgresql", "postgresql+psycopg"):
        if not parsed.database:
            raise _refuse("name a database, such as postgresql://user@host/channel_choice")
        return parsed
    if parsed.engine != "sqlite":
        raise _refuse(
            f"the store runs on SQLite and PostgreSQL, not on {parsed.driver}; "
            "write sqlite:///path/to/file.db or postgresql://user@host/database"
        )
    if not parsed.database or parsed.database == ":memory:":
        raise _refuse("name a file, such as sqlite:///var/channel_choice.db, so that decisions are kept")
    return parsed


def _url_of(text: str, parts: Mapping[str, str | None]) -> Url:
    def plain(name: str) -> str | None:
        part = parts[name]
        return None if part is None else unquote(part)

    port = parts["port"]
    if port and not port.isdecimal():
        raise _refuse(f"its port {port!r} is no number; write one such as postgresql://user@host:5432/channel_choice")
    return Url(
        text=text,
        driver=str(parts["driver"]),
        user=plain("user"),
        password=plain("password"),
        host=parts["ipv4"] or parts["ipv6"],
        port=port,
        database=plain("database"),
        query=tuple(parse_qsl(parts["query"] or "")),
    )


def is_postgres(url: Url) -> bool:
    return url.engine == "postgresql"


def folder_beside(url: str) -> Path:
    """Return the folder for files that go with a database: the file's own, or var where the database is a server's."""
    parsed = parse_url(url)
    return Path("var") if is_postgres(parsed) else Path(str(parsed.database)).parent


def describe(url: Url) -> str:
    """Return what a database is called in messages: without its password."""
    return url.render() if is_postgres(url) else str(url.database)


def _refuse(problem: str) -> SettingsInvalid:
    return SettingsInvalid([Violation(field="database_url", description=problem)], "settings")
