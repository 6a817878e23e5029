"""How many segments an SMS is billed as."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.sms import _BASIC, _EXTENSION, Encoding, measure, measure_length

GSM_TEXT = st.text(alphabet=sorted(_BASIC | _EXTENSION), max_size=700)


@pytest.mark.parametrize(
    ("text", "encoding", "segments"),
    [
        ("", "gsm7", 1),
        ("a" * 160, "gsm7", 1),
        ("a" * 161, "gsm7", 2),
        ("a" * 306, "gsm7", 2),
        ("a" * 307, "gsm7", 3),
        ("€" * 80, "gsm7", 1),
        ("€" * 81, "gsm7", 2),
        ("я" * 70, "ucs2", 1),
        ("я" * 71, "ucs2", 2),
        ("я" * 134, "ucs2", 2),
        ("я" * 135, "ucs2", 3),
        ("😀" * 35, "ucs2", 1),
        ("😀" * 36, "ucs2", 2),
        ("ç", "ucs2", 1),
        ("Ç", "gsm7", 1),
        ("a" * 159 + "`", "ucs2", 3),
    ],
)
def test_segments_are_those_of_the_standard(text: str, encoding: Encoding, segments: int) -> None:
    """The encoding and the segments of a text are those of 3GPP TS 23.038 and 23.040 at each border."""
    size = measure(text)

    assert (size.encoding, size.segments) == (encoding, segments)
    assert size.characters == len(text)


def test_extension_character_is_not_split_between_parts() -> None:
    """A two-septet character that does not fit into a part moves to the next one whole."""
    fits = "a" * 152 + "€" + "a" * 151
    split = "a" * 151 + "€" + "a" * 153

    assert measure(fits).segments == 2
    assert measure(split).segments == 2
    assert measure("a" * 152 + "€" + "a" * 152).segments == 3


def test_surrogate_pair_is_not_split_between_parts() -> None:
    """An emoji that does not fit into the 67 units of a part moves to the next one whole."""
    assert measure("я" * 66 + "😀" + "я" * 65).segments == 2
    assert measure("я" * 66 + "😀" + "я" * 66).segments == 3


def test_alphabet_is_complete() -> None:
    """The default alphabet has its 127 characters besides escape, the extension table its 10."""
    assert (len(_BASIC), len(_EXTENSION)) == (127, 10)
    assert not _BASIC & _EXTENSION


@given(text=GSM_TEXT)
def test_gsm_text_is_never_billed_as_ucs2(text: str) -> None:
    """Text of the default alphabet and its extension is sent as GSM 03.38."""
    assert measure(text).encoding == "gsm7"


@given(text=st.text(max_size=300), more=st.text(max_size=80))
def test_longer_text_never_costs_fewer_segments(text: str, more: str) -> None:
    """Adding to a text never takes a segment away."""
    assert measure(text + more).segments >= measure(text).segments >= 1


@given(text=st.text(max_size=300))
def test_one_character_of_ucs2_makes_all_of_it_ucs2(text: str) -> None:
    """One character outside the default alphabet is enough for UCS-2."""
    assert measure(text + "я").encoding == "ucs2"


@given(count=st.integers(0, 2000), encoding=st.sampled_from(["gsm7", "ucs2"]))
def test_length_alone_measures_as_a_text_of_narrow_characters(count: int, encoding: Encoding) -> None:
    """A length in units has the segments of a text of that many one-unit characters."""
    text = ("a" if encoding == "gsm7" else "я") * count

    assert measure_length(count, encoding).segments == measure(text).segments
