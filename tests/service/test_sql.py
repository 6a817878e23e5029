"""What the server has of SQLAlchemy without importing it: the SQL of its statements, and how a database's URL is read."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy.engine import make_url

from models.errors import SettingsInvalid
from service.store import postgres, schema
from service.store.sql import read_statements
from service.store.statements import compile_statements
from service.store.url import describe, parse_url

PART = st.text("ab1 +%:@&=é._-", max_size=6)
HOST = st.sampled_from(["", "host", "10.0.0.1", "[::1]", "host:5432", "[::1]:5432", ":5432"])
QUERY = st.lists(st.tuples(st.sampled_from(["host", "sslmode", "a"]), PART), max_size=3)


@pytest.mark.parametrize("engine", ["sqlite", "postgresql"])
def test_the_sql_is_what_the_statements_compile_to(engine: str) -> None:
    """The files of SQL are those that `python -m service.store.statements` would write."""
    assert read_statements(engine) == compile_statements(engine)


def test_inserts_name_every_column() -> None:
    """What is copied into a table of PostgreSQL, whose columns are read off its insert, is whole rows of every table."""
    columns = {name: ", ".join(table.columns.keys()) for name, table in schema.metadata.tables.items()}

    assert postgres._columns() == columns


@given(user=PART, password=PART, host=HOST, database=PART.filter(bool), query=QUERY)
def test_urls_are_read_as_sqlalchemy_reads_them(
    user: str, password: str, host: str, database: str, query: list[tuple[str, str]]
) -> None:
    """A URL has the same parts, for connecting and for messages, as it has for migrations and training, which use SQLAlchemy."""
    asked = "&".join(f"{name}={value}" for name, value in query)
    url = f"postgresql://{user}:{password}@{host}/{database}?{asked}"

    try:
        expected = make_url(url)
    except ValueError:
        with pytest.raises(SettingsInvalid, match="its port"):
            parse_url(url)
        return
    found = parse_url(url)

    assert (found.driver, found.user, found.password) == (expected.drivername, expected.username, expected.password)
    assert (found.host, found.database) == (expected.host, expected.database)
    assert found.render() == expected.render_as_string()
    assert found.render(is_shown=False) == expected.render_as_string(hide_password=False)


def test_a_password_is_never_shown() -> None:
    """Neither a message about a database nor the URL's own text form has its password."""
    url = parse_url("postgresql://shop:hunter2@host/shop")

    assert describe(url) == "postgresql://shop:***@host/shop"
    assert "hunter2" not in repr(url)


@pytest.mark.parametrize("url", ["sqlite:///a/b.db", "sqlite:////a/b%20c.db", "sqlite:///b.db?mode=ro"])
def test_files_are_read_as_sqlalchemy_reads_them(url: str) -> None:
    """The file of a URL is the one that SQLAlchemy would open."""
    assert parse_url(url).database == make_url(url).database


def test_a_port_that_is_no_number_is_refused() -> None:
    """A URL with a mistake in its port is refused with one that has none."""
    with pytest.raises(SettingsInvalid, match="its port 'x1' is no number; write one such as postgresql://"):
        parse_url("postgresql://user@host:x1/shop")
