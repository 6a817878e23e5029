"""What the gate holds a candidate to."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """What a candidate must keep. Money is in units of the rules' currency for each message."""

    margin: float = 0.0
    """By how much the lower bound of its net increment must be above the champion's estimate."""
    unseen: int = 2000
    """Decisions that it was not trained on, where there is a champion to beat."""
    calibration_error: float = 0.02
    """The most that its P(order) may be off, on average over tenths of the decisions."""
    unsubscribe_ratio: float = 1.25
    """The most unsubscribes, of the champion's; of what was logged where there is none."""
    cost_ratio: float = 1.5
    """The most that messages may cost, of the champion's."""
    milliseconds: float = 20.0
    """The most that a decision may take, in the median."""
