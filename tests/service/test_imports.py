"""What the server does not pay for at its start."""

import subprocess
import sys

HEAVY = ("lightgbm", "mlflow", "pandas", "pyarrow", "sklearn", "matplotlib")


def test_server_imports_no_training_library() -> None:
    """A process that serves has imported neither LightGBM's Python package, nor MLflow, nor what they bring along."""
    code = f"import service.__main__, service.app, sys; print([name for name in {HEAVY} if name in sys.modules])"

    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert told.stdout.strip() == "[]"
