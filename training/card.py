"""The model card of a fit: what it is for, what it was taught by, how good it is, and what it does not know.

After Mitchell et al. (2019), "Model Cards for Model Reporting".
"""

import subprocess
from datetime import timedelta
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np

from models.features import NO_SEND
from training.dataset import Dataset
from training.doubts import find_doubts
from training.fit import Fitted, told_uplifts


def code_version() -> str:
    """Return the commit of the code, with + where files differ from it; the package's version where there is no repository."""
    here = Path(__file__).parent
    try:
        commit = _git(here, "rev-parse", "HEAD")
        return commit + ("+" if _git(here, "status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.CalledProcessError):
        try:
            return version("channel-choice")
        except PackageNotFoundError:
            return "unknown"


def _git(folder: Path, *arguments: str) -> str:
    asked = subprocess.run(["git", "-C", str(folder), *arguments], check=True, capture_output=True, text=True)  # noqa: S603, S607 - fixed words
    return asked.stdout.strip()


def model_card(fitted: Fitted, bundle: str, data: Dataset, window: timedelta) -> str:
    """Return the card as Markdown."""
    told, metrics = fitted.description.trained_on, fitted.metrics
    sent = data.channel != NO_SEND
    lines = [
        f"# {bundle}",
        "",
        f"P(order within {window / timedelta(hours=1):g} h) of a customer for each channel and send time, and without a send; for choosing channel, time and cascade of marketing messages "
        "by what a message adds. It is not for judging people, nor for messages that are owed.",
        "",
        "## Taught by",
        "",
        f"- {told['decisions']} decisions from {told['first']} to {told['last']} of {told['log']}, digest `{data.digest}`, seed {told['seed']}, code {code_version()}",
        f"- sends: {', '.join(f'{name} {int((data.channel == name).sum())}' for name in np.unique(data.channel[sent]))}; no sends: {int((~sent).sum())}",
        f"- {data.response.mean():.2%} of decisions followed by an order, {data.seen[sent].mean():.1%} of sends seen, {data.clicked[sent].mean():.1%} clicked, "
        f"{data.unsubscribed[sent].mean():.2%} unsubscribed",
        f"- features: {', '.join(column.name for column in fitted.description.columns)}",
        "",
        f"## How good, on {metrics['later.decisions']:.0f} later decisions that it did not see",
        "",
        f"- log loss {metrics['later.logloss']:.4f}; of the plain rate {metrics['later.logloss_of_rate']:.4f}",
        f"- AUC {metrics['later.auc']:.3f}",
        f"- calibration error {metrics['later.calibration_error']:.4f}, over tenths",
        *(f"- {name}: observed uplift {text} (95 %, by chance alone)" for name, text in told_uplifts(metrics).items()),
        "",
        "What it would earn is not in these figures: `python -m training evaluate` and the gate of `promote` tell.",
        "",
        "## What it does not know",
        "",
    ]
    doubts = find_doubts(data)
    if fitted.funnel is None:
        doubts.append("response curves: the one model serves, so that waits and times are of the channel's usual wait")
    else:
        doubts += [f"stage {stage}: {note}" for stage, note in fitted.funnel.notes.items()]
        doubts.append(f"how interest in one message spreads is set, not learned: {fitted.funnel.interest_deviation:g}")
    doubts.append(
        "what changed after the last day that it was taught by; the service corrects it by what is seen since"
    )
    return "\n".join([*lines, *(f"- {doubt}" for doubt in doubts), ""])
