"""Compiled kernels: one C file each, beside the Python that says what it does and stands in for it where it was not compiled."""

import ctypes
from functools import cache
from pathlib import Path
from typing import Any

from numpy.typing import NDArray


@cache
def load(name: str, form: int) -> Any:
    """Load the library of a kernel, models/lib<name>.so; None where it was not compiled, or from another version of its file.

    It keeps the interpreter's lock: a call is done before another thread would have got far, and to ask for the lock back takes longer.
    """
    try:
        loaded = ctypes.PyDLL(str(Path(__file__).with_name(f"lib{name}.so")))
        is_ours = loaded[f"{name}_format"]() == form
    except (OSError, AttributeError):
        return None
    return loaded if is_ours else None


def address(array: NDArray[Any]) -> int:
    """Return where the memory of a C-ordered array begins; of one that can be written at a third of the cost of `array.ctypes.data`."""
    if not array.flags.c_contiguous:
        raise ValueError("a kernel reads arrays in C order")
    try:
        return ctypes.addressof(ctypes.c_char.from_buffer(array))  # type: ignore[arg-type]  # arrays are buffers, before Python 3.12 untold
    except (TypeError, ValueError):  # it cannot be written, or is empty
        return int(array.ctypes.data)
