"""LightGBM scoring without importing the lightgbm package: by tables (models.walk) where they give the same, else through its C API.

The package costs 1.3 s and 200 MB to import, for a library of 4 MB that a process can load by itself. The raw scores are those of
`lightgbm.Booster.predict(raw_score=True)` to the bit, since the same code makes them. A model's tables are used only if they give the very same on rows
made to find where they would not.
Source: LightGBM's C API, https://lightgbm.readthedocs.io/en/stable/C-API.html
"""

import ctypes
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.walk import Walk

FloatArray = NDArray[np.float64]
_FLOAT64 = 1
_RAW_SCORE = 1
_ROW_MAJOR = 1
_ALL_TREES = -1
_PARAMETERS = b"num_threads=1"
_PREDICT = (
    *(ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int, ctypes.c_int32, ctypes.c_int32, ctypes.c_int, ctypes.c_int),
    *(ctypes.c_int, ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p, ctypes.c_void_p),
)
"""Types of the arguments of LGBM_BoosterPredictForMat."""


class BoosterError(Exception):
    """Raised when LightGBM refuses a model or a matrix; the message is its own."""


@lru_cache(maxsize=1)
def library() -> Any:
    """Load LightGBM's shared library from where its package is installed."""
    spec = find_spec("lightgbm")
    if spec is None or spec.origin is None:
        raise BoosterError("the lightgbm package is not installed")
    for path in sorted(Path(spec.origin).parent.glob("**/lib_lightgbm.*")):
        loaded = ctypes.CDLL(str(path))
        loaded.LGBM_GetLastError.restype = ctypes.c_char_p
        loaded.LGBM_BoosterPredictForMat.argtypes = _PREDICT  # converts plain integers, which are cheaper to make
        return loaded
    raise BoosterError(f"no lib_lightgbm beside {spec.origin}")


def _check(status: int) -> None:
    if status != 0:
        raise BoosterError(library().LGBM_GetLastError().decode(errors="replace"))


class Booster:
    """A LightGBM model of one output, read from the text that `Booster.save_model` writes."""

    def __init__(self, model_text: str) -> None:
        self._handle = ctypes.c_void_p()
        self._predict = library().LGBM_BoosterPredictForMat
        if "\nend of trees" not in model_text:
            raise BoosterError(
                "the model's text is cut off: it has no line 'end of trees'"
            )  # LightGBM would end the process
        iterations = ctypes.c_int()
        _check(
            library().LGBM_BoosterLoadModelFromString(
                model_text.encode(), ctypes.byref(iterations), ctypes.byref(self._handle)
            )
        )
        features = ctypes.c_int()
        _check(library().LGBM_BoosterGetNumFeature(self._handle, ctypes.byref(features)))
        classes = ctypes.c_int()
        _check(library().LGBM_BoosterGetNumClasses(self._handle, ctypes.byref(classes)))
        if classes.value != 1:
            raise BoosterError(f"the model has {classes.value} outputs a row, 1 is served")
        self.column_count = features.value
        self.tree_count = iterations.value
        self._walk, self.why_slow = self._find_walk(model_text)

    def _find_walk(self, model_text: str) -> tuple[Walk | None, str]:
        """Return the model's tables; none, and why, where there are none or they do not give what LightGBM gives."""
        try:
            found = Walk(model_text)
        except (ValueError, KeyError, IndexError) as error:
            return None, str(error)
        rows = found.trying_rows(self.column_count)
        halves = (rows, rows[len(rows) // 2 :])
        if all(np.array_equal(found.raw_scores(half), self.by_lightgbm(half)) for half in halves):
            return found, ""
        return None, "its tables score otherwise than LightGBM"

    def __del__(self) -> None:
        if self._handle:
            library().LGBM_BoosterFree(self._handle)
            self._handle = ctypes.c_void_p()

    def raw_scores(self, matrix: FloatArray) -> FloatArray:
        """Return the sum of the trees for each row of a matrix of shape (n, column_count)."""
        rows = np.ascontiguousarray(matrix, dtype=np.float64)
        if rows.ndim != 2 or rows.shape[1] != self.column_count:
            raise BoosterError(f"a matrix of shape {rows.shape} for a model of {self.column_count} columns")
        return self.by_lightgbm(rows) if self._walk is None or not len(rows) else self._walk.raw_scores(rows)

    def by_lightgbm(self, rows: FloatArray) -> FloatArray:
        """Return what LightGBM itself gives for rows of a C-ordered matrix; the reference."""
        scores = np.empty(rows.shape[0])
        length = ctypes.c_int64()
        _check(
            self._predict(
                self._handle,
                rows.ctypes.data,
                _FLOAT64,
                rows.shape[0],
                rows.shape[1],
                _ROW_MAJOR,
                _RAW_SCORE,
                0,
                _ALL_TREES,
                _PARAMETERS,
                ctypes.addressof(length),
                scores.ctypes.data,
            )
        )
        return scores
