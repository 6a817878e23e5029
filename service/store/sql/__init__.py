"""The SQL of every statement of the store by name, one file for each engine, as `python -m service.store.statements` writes it.

The server reads it here, so that it does not pay for SQLAlchemy, in whose terms the statements are written (service.store.statements).
"""

import re
from collections.abc import Mapping
from pathlib import Path

_FOLDER = Path(__file__).parent
_NAME = re.compile(r"^-- (\w+)\n", re.MULTILINE)


def read_statements(engine: str) -> dict[str, str]:
    """Return the SQL of every statement by name, for sqlite or postgresql."""
    _, *parts = _NAME.split(path_of(engine).read_text())
    return {name: sql.strip() for name, sql in zip(parts[::2], parts[1::2], strict=True)}


def write_statements(engine: str, statements: Mapping[str, str]) -> None:
    path_of(engine).write_text("\n".join(f"-- {name}\n{sql}\n" for name, sql in statements.items()))


def path_of(engine: str) -> Path:
    return _FOLDER / f"{engine}.sql"
