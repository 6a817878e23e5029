"""What the server does not pay for at its start."""

import gc
import subprocess
import sys
from pathlib import Path

import pytest

from service.__main__ import no_search_for_garbage
from service.store.store import Store
from tests.service import served
from tests.service.examples import RULES

HEAVY = ("lightgbm", "mlflow", "pandas", "pyarrow", "sklearn", "matplotlib", "scipy", "sqlalchemy", "alembic", "rich")
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


def test_garbage_is_looked_for_once_the_start_is_over() -> None:
    """While a service starts nothing is searched; once it has, what was made by then is left out and what comes is searched."""
    thresholds = gc.get_threshold()
    try:
        with no_search_for_garbage() as settle:
            starting = gc.isenabled(), gc.get_freeze_count()
            settle()
            serving = gc.isenabled(), gc.get_freeze_count()
    finally:
        gc.set_threshold(*thresholds)
        gc.unfreeze()

    assert starting == (False, 0)
    assert serving[0]
    assert serving[1] > 0


def test_a_start_that_fails_leaves_the_search_for_garbage_on() -> None:
    """Whoever calls the command and goes on afterwards has its garbage collected."""
    with pytest.raises(KeyError), no_search_for_garbage():
        raise KeyError

    assert gc.isenabled()
