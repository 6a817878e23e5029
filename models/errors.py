"""The error tree of the project.

ChannelChoiceError
|- InvalidInput           a caller's value was refused; carries every violation
|  |- RulesInvalid        the rules file
|  |- SettingsInvalid     the settings
|- BundleError            a bundle cannot serve
|  |- BundleMissing       there is none at the place named
|  |- BundleCorrupt       its files are not what its manifest says
|  |- BundleIncompatible  this version of the service cannot use it
|  |- BundleSlow          it takes too long to score
|- NotFound               the thing asked for is not stored
|- AlreadyExists          the id is taken by another body
|- StoreUnavailable       the database did not answer in time; try again
|- StoreInvalid           the database is not one that this version can use
|- LogUnusable            a decision log cannot be learned from or judged by
|  |- LogRefused          files to import have mistakes; carries them
"""

from dataclasses import dataclass


class ChannelChoiceError(Exception):
    """Root of all errors that this project raises on purpose."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Violation:
    """One value that was refused: the path of its field, and what to do about it."""

    field: str
    description: str

    def __str__(self) -> str:
        return f"{self.field}: {self.description}" if self.field else self.description


class InvalidInput(ChannelChoiceError):
    """Raised when values are refused; `violations` holds all of them, so that the caller mends them in one go."""

    def __init__(self, violations: list[Violation], subject: str = "request") -> None:
        self.violations = violations
        self.subject = subject
        super().__init__(f"{subject} refused: " + "; ".join(map(str, violations)))


class RulesInvalid(InvalidInput):
    """Raised when a rules file is refused; mend the keys named and start again."""


class SettingsInvalid(InvalidInput):
    """Raised when the settings are refused; mend those named and start again."""


class BundleError(ChannelChoiceError):
    """Raised when a bundle cannot serve; `source` names it. The bundle that serves already goes on serving."""

    def __init__(self, source: str, problem: str) -> None:
        self.source = source
        self.problem = problem
        super().__init__(f"bundle {source}: {problem}")


class BundleMissing(BundleError):
    """Raised when there is no bundle at the place named."""


class BundleCorrupt(BundleError):
    """Raised when a file of a bundle is missing, unreadable or not what the manifest's sha256 says; fetch or train it again."""


class BundleIncompatible(BundleError):
    """Raised when a bundle is whole but this version of the service cannot use it; train it again with this version."""


class BundleSlow(BundleError):
    """Raised when scoring a bundle's golden rows takes longer than is allowed; train a smaller one, or allow more."""


class NotFound(ChannelChoiceError):
    """Raised when what was asked for is not stored; `kind` and `key` say what."""

    def __init__(self, kind: str, key: str) -> None:
        self.kind = kind
        self.key = key
        super().__init__(f"no {kind} {key!r}")


class AlreadyExists(ChannelChoiceError):
    """Raised when an id came before with another body; use a new id for a new request."""

    def __init__(self, kind: str, key: str) -> None:
        self.kind = kind
        self.key = key
        super().__init__(f"{kind} {key!r} was used before with another body; use a new id, or repeat the same body")


class StoreUnavailable(ChannelChoiceError):
    """Raised when the database is locked or does not answer; the call can be repeated as it is."""


class StoreInvalid(ChannelChoiceError):
    """Raised when the database cannot be opened, or its schema is newer than this version; the message says what to do."""


class LogUnusable(ChannelChoiceError):
    """Raised when a decision log is empty, one-sided or inconsistent; the message says what is missing."""


class LogRefused(LogUnusable):
    """Raised when files to import have mistakes; `violations` holds the first of them, `count` is of all. Mend them and import again."""

    def __init__(self, source: str, violations: list[Violation], count: int) -> None:
        self.violations = violations
        self.count = count
        lines = [f"{source} refused, nothing was written; rows are counted from 0:", *map(str, violations)]
        alike = count - len(violations)
        if alike > 0:
            lines.append(f"{count} mistakes in all")
        super().__init__("\n  ".join(lines))
