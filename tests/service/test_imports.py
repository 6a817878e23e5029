"""What the server does not pay for at its start."""

import subprocess
import sys
from pathlib import Path

import pytest

from service.store.store import Store
from tests.service import served
from tests.service.examples import RULES

HEAVY = ("lightgbm", "mlflow", "pandas", "pyarrow", "sklearn", "matplotlib", "scipy", "sqlalchemy", "alembic")
SERVE = f"""
import sys
from service.app import open_app
from service.settings import load_settings
with open_app(load_settings(dict(argument.split("=", 1) for argument in sys.argv[1:]))) as app:
    app.server.start()
    app.server.stop(0)
print([name for name in {HEAVY} if name in sys.modules])
"""


@pytest.mark.usefixtures("engine")
def test_server_imports_no_library_that_it_does_not_need(tmp_path: Path) -> None:
    """A process that serves a database whose schema is current has imported neither LightGBM's Python package, nor MLflow, nor SQLAlchemy."""
    url = served.database_in(tmp_path)
    Store(url).close()
    rules = tmp_path / "rules.toml"
    rules.write_text(RULES)
    options = (
        f"database_url={url}",
        f"identity_key_file={tmp_path / 'key'}",
        f"rules_file={rules}",
        "address=127.0.0.1:0",
    )

    told = subprocess.run([sys.executable, "-c", SERVE, *options], capture_output=True, text=True, check=True)

    assert told.stdout.strip() == "[]"
