"""How many segments an SMS is billed as.

GSM 03.38 text takes a septet per character, two for the extension table; UCS-2 takes one 16-bit unit per character, two for
those outside the basic plane. One segment holds 140 octets; of a longer message each part gives six octets to its header,
and no two-unit character is split between parts. Source: 3GPP TS 23.038 (alphabet), TS 23.040 section 9.2.3.24 (parts).
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

Encoding = Literal["gsm7", "ucs2"]

_BASIC = frozenset(
    "@£$¥èéùìòÇ\nØø\rÅåΔ_ΦΓΛΩΠΨΣΘΞÆæßÉ !\"#¤%&'()*+,-./0123456789:;<=>?¡ABCDEFGHIJKLMNOPQRSTUVWXYZÄÖÑÜ§¿"
    "abcdefghijklmnopqrstuvwxyzäöñüà"
)
_EXTENSION = frozenset("\f^{}\\[~]|€")
_ALPHABET = _BASIC | _EXTENSION
_SINGLE: dict[Encoding, int] = {"gsm7": 160, "ucs2": 70}
_PART: dict[Encoding, int] = {"gsm7": 153, "ucs2": 67}


@dataclass(frozen=True, slots=True, kw_only=True)
class TextSize:
    """What sending and billing need to know of a text: characters, encoding and units (septets or 16-bit words)."""

    characters: int
    encoding: Encoding
    segments: int


def measure(text: str) -> TextSize:
    """Measure a text: the encoding it needs, and its segments."""
    used = set(text)
    encoding: Encoding = "gsm7" if used <= _ALPHABET else "ucs2"
    wide = used & _EXTENSION if encoding == "gsm7" else {character for character in used if character > "\uffff"}
    if not wide:
        return measure_length(len(text), encoding)
    widths = [2 if character in wide else 1 for character in text]
    return TextSize(characters=len(text), encoding=encoding, segments=_segments(widths, encoding))


def measure_length(units: int, encoding: Encoding) -> TextSize:
    """Measure a text known only by its length in units of one."""
    if units <= _SINGLE[encoding]:
        return TextSize(characters=units, encoding=encoding, segments=1)
    return TextSize(characters=units, encoding=encoding, segments=-(-units // _PART[encoding]))


def _segments(widths: Iterable[int], encoding: Encoding) -> int:
    widths = list(widths)
    if sum(widths) <= _SINGLE[encoding]:
        return 1
    parts, used = 1, 0
    for width in widths:
        if used + width > _PART[encoding]:
            parts, used = parts + 1, 0
        used += width
    return parts
