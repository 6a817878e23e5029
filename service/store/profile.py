"""What is stored of a customer."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Literal

from pydantic import TypeAdapter

from models.context import FeatureValue
from models.rules import Consent


@dataclass(frozen=True, slots=True, kw_only=True)
class ConsentRecord:
    """What a customer said about one channel, with its evidence."""

    state: Consent
    evidence: str
    consent_time: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """One person's profile; empty strings stand for what is not known."""

    time_zone: str = ""
    locale: str = ""
    country: str = ""
    features: Mapping[str, FeatureValue] = field(default_factory=dict)
    consents: Mapping[str, ConsentRecord] = field(default_factory=dict)
    reachability: Mapping[str, Literal["reachable", "unreachable"]] = field(default_factory=dict)

    def updated(self, newer: "Profile") -> "Profile":
        """Return this profile with all that the newer one knows laid over it; of consents, the one said later holds."""
        consents = dict(self.consents)
        for channel, consent in newer.consents.items():
            known = consents.get(channel)
            if known is None or consent.consent_time >= known.consent_time:
                consents[channel] = consent
        return Profile(
            time_zone=newer.time_zone or self.time_zone,
            locale=newer.locale or self.locale,
            country=newer.country or self.country,
            features={**self.features, **newer.features},
            consents=consents,
            reachability={**self.reachability, **newer.reachability},
        )

    def contradicts(self, other: "Profile") -> bool:
        """Tell whether two profiles say different things of one person: a zone, locale, country, feature or consent that both know, and not alike."""
        for one, two in ((self.time_zone, other.time_zone), (self.locale, other.locale), (self.country, other.country)):
            if one and two and one != two:
                return True
        if any(self.features[name] != other.features[name] for name in self.features.keys() & other.features.keys()):
            return True
        both = self.consents.keys() & other.consents.keys()
        return any(self.consents[channel].state != other.consents[channel].state for channel in both)

    def withdrawn(self, channel: str, evidence: str, moment: datetime) -> "Profile":
        """Return this profile with consent to one channel withdrawn at that moment."""
        said = ConsentRecord(state="denied", evidence=evidence, consent_time=moment)
        return self.updated(replace(Profile(), consents={channel: said}))


_PROFILE = TypeAdapter(Profile)


def profile_to_json(profile: Profile) -> str:
    return _PROFILE.dump_json(profile, exclude_defaults=True).decode()


def profile_from_json(text: str | bytes) -> Profile:
    return _PROFILE.validate_json(text)
