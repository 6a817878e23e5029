"""Policies to be judged, and what each would do in a logged context: any policy that the decision code can run.

A target is rules (which name a policy) and a bundle; its probabilities are those of `models.decide.evaluate`, which is what the service draws from.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import get_args

from models.bundle import Bundle
from models.cascade import max_steps
from models.context import Context
from models.decide import Evaluation, evaluate
from models.errors import LogUnusable
from models.features import NO_SEND
from models.rules import PolicyName, Rules, read_rules

NAMES: Mapping[str, PolicyName] = {name: name for name in get_args(PolicyName)}
LOGGED = "logged"
"""The policy that made the log."""
Chances = Mapping[tuple[str, datetime | None], float]
"""Probability of each action, by channel and send time; None for no send."""
_NOTHING: Chances = {(NO_SEND, None): 1.0}


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A policy under a name. `rules` is None for the policy that made the log."""

    name: str
    rules: Rules | None
    bundle: Bundle | None = None

    def chances(self, context: Context) -> tuple[Chances, Mapping[str, float]]:
        """Return the probability of each action, and the price in units of each channel that may be used.

        Corrections that the log's own bundle had are left out for another one; a step beyond the rules' last is no send.
        """
        assert self.rules is not None  # the logging policy's probabilities are in the log
        if context.step > max_steps(context, self.rules):
            return _NOTHING, {}
        found = evaluate(replace(context, factors={}), self.rules, self.bundle)
        if not isinstance(found, Evaluation):
            return _NOTHING, {}
        table = found.distribution.table
        chances = {
            (action.channel, action.send_time): float(p)
            for action, p in zip(table.actions, found.distribution.probabilities, strict=True)
        }
        prices = {
            action.channel: float(price) / 1e6 for action, price in zip(table.actions, table.price_micros, strict=True)
        }
        return chances, prices


def make_target(policy: str, rules: Rules, bundle: Bundle | None) -> Target:
    """Return the policy of a name or of a rules file, with everything else as in the rules given.

    Raises
    ------
    LogUnusable: there is no such policy or file, or it needs a bundle. RulesInvalid: the file is refused.
    """
    if policy == LOGGED:
        return Target(name=LOGGED, rules=None)
    if policy.endswith(".toml"):
        path = Path(policy)
        if not path.is_file():
            raise LogUnusable(f"there is no rules file {path}; mend --policy")
        rules, name = read_rules(path), f"{path.stem}: "
    else:
        if policy not in NAMES:
            raise LogUnusable(
                f"there is no policy {policy}; name one of {', '.join((LOGGED, *NAMES))}, or a rules file (.toml)"
            )
        if policy == "inverse_gap" and rules.policy.exploration_budget is None:
            raise LogUnusable(
                "the policy inverse_gap needs an exploration_budget under [policy] of the rules; set it, or name another"
            )
        rules, name = replace(rules, policy=replace(rules.policy, name=NAMES[policy])), ""
    if bundle is None and rules.policy.name != "rule_cascade":
        raise LogUnusable(
            f"the policy {rules.policy.name} chooses by a bundle's values; name one with --bundle, "
            "a folder or models:/NAME@champion"
        )
    version = "" if bundle is None else f", {bundle.version}"
    return Target(name=f"{name}{rules.policy.name}{version}", rules=rules, bundle=bundle)
