"""The starter bundle: trained on a built-in simulated log, so that the service decides with a model from its first start."""

import tempfile
from pathlib import Path

from tqdm import tqdm

from models.bundle import MANIFEST
from models.rules import Rules
from service.store.store import Store
from training.dataset import read_dataset
from training.fit import fit, save
from training.grow import Hyperparameters
from training.journal import write_log
from training.simulate import WINDOW, simulate_log

DECISIONS = 24_000
SEED = 1


def make_starter(folder: Path, rules: Rules) -> str:
    """Simulate a log, fit it, write the bundle, and return its version; the same rules give the same bytes."""
    with tempfile.TemporaryDirectory() as scratch:
        url = f"sqlite:///{scratch}/log.db"
        store = Store(url)
        try:
            with tqdm(total=DECISIONS, desc="simulate", unit=" decisions", disable=None) as bar:
                key = bytes(32)
                identities, decisions = simulate_log(DECISIONS, rules, key, SEED, bar.update)
                write_log(store, decisions, identities)
        finally:
            store.close()
        fitted = fit(read_dataset(url, WINDOW), Hyperparameters(), "simulated")
    return save(fitted, folder, "starter")


def has_bundle(folder: Path) -> bool:
    """Tell whether there is a bundle already."""
    return (folder / MANIFEST).is_file()
