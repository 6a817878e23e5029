"""The command `monitor`: an experiment while it runs, look after look, with alarms that may stop it by themselves.

Alarms are what no further data will put right: customers who do not come in the shares set, and a guardrail whose always-valid interval lies beyond
its margin. Both hold at every look, so that looking often raises no false alarms beyond the level that was set.
"""

import argparse
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import grpc

from models.errors import LogUnusable
from models.rules import Experiment, Rules, read_rules
from service.gen.channelchoice.v1.admin_service_pb2 import EXPERIMENT_STATE_STOPPED, UpdateExperimentRequest
from service.gen.channelchoice.v1.admin_service_pb2_grpc import AdminServiceStub
from service.store.url import describe, parse_url
from training.experiments.analysis import Analysis, analyse
from training.experiments.people import read_people
from training.experiments.report import find_experiment, read_changes, summary
from training.experiments.statistics import ReasonCode

_TIMEOUT_SECONDS = 30
Stop = Callable[[str, str], None]
"""Stops an experiment, by its name and a reason."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """One look at an experiment."""

    text: str
    alarms: tuple[str, ...]
    is_stopped: bool = False
    """Whether it was stopped, now or before."""


def alarms_of(analysis: Analysis) -> tuple[str, ...]:
    """Return what is wrong beyond chance."""
    found = []
    if analysis.ratio.is_mismatch:
        counts = ", ".join(f"{name} {count}" for name, count in analysis.people.exposed.items())
        found.append(f"shares of variants are not as set: {counts}, p = {analysis.ratio.p_value:.2g}")
    for treatment in analysis.treatments:
        found += [
            f"{treatment.name} breaks the guardrail {reason.metric}: at least {reason.figure:.1%} worse"
            for reason in treatment.ruling.reasons
            if reason.code is ReasonCode.GUARDRAIL_BROKEN
        ]
    return tuple(found)


def look(url: str, experiment: Experiment, rules: Rules, stop: Stop | None = None) -> Look:
    """Look at an experiment once; stop it where there is an alarm and it is to be stopped then.

    Parameters
    ----------
    stop : how to stop it; None: alarms are told only.
    """
    changes = read_changes(url, experiment.name)
    state = changes[-1].state if changes else "running"
    try:
        people = read_people(url, experiment, rules)
    except LogUnusable as error:
        return Look(text=str(error), alarms=(), is_stopped=state == "stopped")
    analysis = analyse(people, changes)
    lines = [f"{people.until:%Y-%m-%d %H:%M} UTC  {experiment.name} {state}"]
    for variant in experiment.variants:
        exposed = people.exposed.get(variant.name, 0)
        share = exposed / max(sum(people.exposed.values()), 1)
        lines.append(
            f"  {variant.name:20} {exposed:>9,} exposed ({share:.1%}, set {variant.weight:.1%}), "
            f"{analysis.counted[variant.name]:,} windows over"
        )
    lines.append(summary(analysis, rules, describe(parse_url(url))))
    alarms = alarms_of(analysis)
    lines += [f"  ALARM {alarm}" for alarm in alarms]
    is_stopped = state == "stopped"
    if alarms and experiment.stop_on_harm and stop is not None and not is_stopped:
        stop(experiment.name, f"monitor: {alarms[0]}"[:512])
        lines.append("  stopped")
        is_stopped = True
    return Look(text="\n".join(lines), alarms=alarms, is_stopped=is_stopped)


def stopper(server: str, token: str | None, authority: Path | None) -> Stop:
    """Return what stops an experiment at a server, with a bearer token and a certificate authority where it needs them."""

    def stop(name: str, reason: str) -> None:
        if authority is None:
            channel = grpc.insecure_channel(server)
        else:
            channel = grpc.secure_channel(server, grpc.ssl_channel_credentials(authority.read_bytes()))
        request = UpdateExperimentRequest(experiment=name, state=EXPERIMENT_STATE_STOPPED, reason=reason)
        metadata = () if token is None else (("authorization", f"Bearer {token}"),)
        with channel:
            try:
                AdminServiceStub(channel).UpdateExperiment(request, timeout=_TIMEOUT_SECONDS, metadata=metadata)
            except grpc.RpcError as error:
                problem = error.details() if isinstance(error, grpc.Call) else str(error)
                raise LogUnusable(f"{server} did not stop {name}: {problem}; stop it with UpdateExperiment") from error

    return stop


def monitor_command(options: argparse.Namespace, say: Callable[[str], object]) -> None:
    """Look again and again, until the experiment is stopped, or once where asked."""
    rules = read_rules(options.rules)
    experiment = find_experiment(rules, options.experiment, options.database, None)
    token = options.token_file.read_text(encoding="utf-8").strip() if options.token_file is not None else None
    stop = None if options.server is None else stopper(options.server, token, options.ca_file)
    waiting = threading.Event()
    while True:
        found = look(options.database, experiment, rules, stop)
        say(found.text)
        if options.once or found.is_stopped:
            return
        waiting.wait(options.every)
