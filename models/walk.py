"""Raw scores of rows that share most features: a table look-up for each feature instead of a walk for each row and tree.

Leaves of a tree are numbered from left to right, and sets of them kept as bits. A split that sends a row to the right takes the leaves on its left out of
those that the row may end in; the leaf it does end in is the first that is left when all the tree's splits have been asked, in any order:

    leaf(x, tree) = first bit of AND over splits s of tree with x not going left at s of ~leaves_on_the_left(s).

Splits on one feature ask where its value stands among their sorted thresholds, so for each feature and place there is one row of such sets, one of each tree, with
all its splits taken together. A feature that all rows share is looked up once for all of them; what is left for each row is to intersect the few sets of
what is its own. Scores are added up in the order of the trees, as LightGBM adds them, so they are LightGBM's to the bit. The tables are
made here, walk.c looks rows up in them, and models.booster holds both against LightGBM whenever a model is loaded.

Source: Lucchese, Nardini, Orlando, Perego, Tonellotto & Venturini (2015), "QuickScorer: A Fast Algorithm to Rank Documents with Additive Ensembles
of Regression Trees"; sharing between rows is ours. How LightGBM treats missing values and categories: its `Tree::NumericalDecision` and `Tree::CategoricalDecision`.
"""

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models import compiled

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.intp]
MOST_LEAVES = 64
MOST_BYTES = 16_000_000
_FORMAT = 2
"""Of walk.c's arguments; both files change it together."""
_MOST_COLUMNS = 4096
_TRIED, _SELDOM = 256, 16
_ODD = np.array([np.nan, 0.0, -0.0, 1e-36, -1e-36, 1e-34, 0.5, -0.5, 2.7, 1e300, -1e300, np.inf, -np.inf])
"""Values tried in every column."""
_CATEGORICAL, _DEFAULT_LEFT = 1, 2
_MISSING_NONE, _MISSING_ZERO = 0, 1


class Unsupported(ValueError):
    """Raised for a model that the tables cannot hold; LightGBM itself scores it."""


class _Trees:
    """All splits of a model's text in arrays, with the set of leaves on the left of each."""

    def __init__(self, text: str) -> None:
        head, *blocks = text.partition("\nend of trees")[0].split("\nTree=")
        if "\naverage_output" in head:
            raise Unsupported("its trees are averaged")
        fields = [dict(line.split("=", 1) for line in block.splitlines()[1:] if "=" in line) for block in blocks]
        if any(tree.get("is_linear", "0") != "0" for tree in fields):
            raise Unsupported("its leaves are linear")
        sizes = np.array([int(tree["num_leaves"]) for tree in fields], dtype=np.intp)
        if sizes.max(initial=0) > MOST_LEAVES:
            raise Unsupported(f"a tree has {sizes.max()} leaves, {MOST_LEAVES} is the most")
        self.sizes = sizes
        bits = 32 if sizes.max(initial=0) <= 32 else 64
        self.dtype = np.dtype(f"uint{bits}")
        grown = [tree for tree, size in zip(fields, sizes, strict=True) if size > 1]

        def joined(name: str) -> FloatArray:
            return np.array(" ".join(tree[name] for tree in grown).split(), dtype=np.float64)

        self.feature = joined("split_feature").astype(np.intp)
        self.threshold = joined("threshold")
        self.kind = joined("decision_type").astype(np.intp)
        self.tree = np.repeat(np.flatnonzero(sizes > 1), sizes[sizes > 1] - 1)
        self._place_leaves(fields, joined("left_child").astype(np.intp), joined("right_child").astype(np.intp))
        self.categories = self._categories(fields)

    def _place_leaves(self, fields: Sequence[dict[str, str]], left: IntArray, right: IntArray) -> None:
        """Number leaves from left to right, and find which are on the left of each split; children come after their parents."""
        count, width = len(self.sizes), int(self.sizes.max(initial=1))
        children = np.full((count, max(width - 1, 1), 2), -1, dtype=np.intp)
        node = np.concatenate([np.arange(size - 1) for size in self.sizes]) if len(left) else left
        children[self.tree, node, 0], children[self.tree, node, 1] = left, right
        trees = np.arange(count)[:, None]
        leaves = np.ones((count, width - 1 + width), dtype=np.intp)  # of nodes, then of leaves, which have one each
        place = np.where(children >= 0, children, width - 1 + ~children)
        for split in range(width - 2, -1, -1):
            leaves[:, split] = leaves[trees, place[:, split]].sum(axis=1)
        begin = np.zeros_like(leaves)
        for split in range(width - 1):
            begin[trees[:, 0], place[:, split, 0]] = begin[:, split]
            begin[trees[:, 0], place[:, split, 1]] = begin[:, split] + leaves[trees[:, 0], place[:, split, 0]]
        first = begin[self.tree, node]
        size = leaves[self.tree, place[self.tree, node, 0]]
        one = np.uint64(1)
        of_left = ((one << size.astype(np.uint64)) - one) << first.astype(np.uint64)
        self.kept = (~of_left).astype(self.dtype)
        """All leaves but those on the left, of each split."""
        self.values = np.zeros((count, 8 * self.dtype.itemsize))
        for tree, (known, size) in enumerate(zip(fields, self.sizes.tolist(), strict=True)):
            order = begin[tree, width - 1 : width - 1 + size] if size > 1 else np.zeros(1, dtype=np.intp)
            self.values[tree, order] = [float(x) for x in known["leaf_value"].split()]

    def _categories(self, fields: Sequence[dict[str, str]]) -> list[NDArray[np.uint32] | None]:
        """Return the words of bits of the categories that go left, of each split by category."""
        found: list[NDArray[np.uint32] | None] = [None] * len(self.feature)
        bounds = {
            tree: (
                [int(x) for x in known["cat_boundaries"].split()],
                np.array(known["cat_threshold"].split(), dtype=np.uint32),
            )
            for tree, known in enumerate(fields)
            if int(known.get("num_cat", 0)) > 0
        }
        for split in np.flatnonzero(self.kind & _CATEGORICAL):
            edges, words = bounds[int(self.tree[split])]
            place = int(self.threshold[split])
            found[split] = words[edges[place] : edges[place + 1]]
        return found


class Walk:
    """A model as tables, and the compiled code that looks rows up in them. Any number of threads may score at a time."""

    def __init__(self, model_text: str) -> None:
        library = _library()
        if library is None:
            raise Unsupported("models/libwalk.so is not there: run `make models/libwalk.so`, which needs a C compiler")
        trees = _Trees(model_text)
        columns = np.unique(trees.feature)
        if len(columns) > _MOST_COLUMNS:
            raise Unsupported(f"it asks {len(columns)} columns, {_MOST_COLUMNS} is the most")
        asked = [_Asked.of(trees, int(column)) for column in columns]
        rows, count = sum(column.rows for column in asked), len(trees.sizes)
        if rows * count * trees.dtype.itemsize > MOST_BYTES:
            raise Unsupported(f"its tables would take more than {MOST_BYTES} bytes")
        begins = np.cumsum([0, *(column.rows for column in asked)], dtype=np.int64)
        table = np.full((rows, count), np.iinfo(trees.dtype).max, dtype=trees.dtype)
        for column, begin in zip(asked, begins, strict=False):
            column.fill(trees, table[begin : begin + column.rows])
        self._dtype = trees.dtype
        self._room = 6 * len(trees.sizes)
        self._arrays: dict[str, NDArray[Any]] = {
            "column": columns.astype(np.int32),
            "begin": begins,
            "categories": np.array([column.categories for column in asked], dtype=np.int32),
            "cut": np.cumsum([0, *(len(column.thresholds) for column in asked)], dtype=np.int64),
            "threshold": np.concatenate([np.zeros(0), *(column.thresholds for column in asked)]),
            "table": table,
            "value": trees.values,
        }
        addresses = {name: array.ctypes.data for name, array in self._arrays.items()}
        self._model = _Model(columns=len(columns), trees=len(trees.sizes), leaves=trees.values.shape[1], **addresses)
        self._address = ctypes.addressof(self._model)
        self._walk = library.walk

    def raw_scores(self, rows: FloatArray) -> FloatArray:
        """Return the sum of the trees for each row of a C-ordered matrix of shape (n, columns of the model)."""
        scores, room = np.empty(len(rows)), np.empty(self._room, dtype=self._dtype)
        n, width = rows.shape
        where, found, at = map(compiled.address, (rows, scores, room))
        self._walk(self._address, where, n, width, found, at, self._dtype.itemsize == 8)
        return scores

    def trying_rows(self, columns: int, count: int = _TRIED) -> FloatArray:
        """Return rows that try the tables, shape (count, columns): values at and beside each threshold, missing ones, zeros, extremes, unseen categories."""
        random = np.random.default_rng(0)
        rows = np.zeros((count, columns))
        cut = self._arrays["cut"]
        for place, column in enumerate(self._arrays["column"].tolist()):
            at = self._arrays["threshold"][cut[place] : cut[place + 1]]
            codes = np.arange(-1.0, max(int(self._arrays["categories"][place]), 0) + 2)
            values = np.concatenate([at, np.nextafter(at, np.inf), np.nextafter(at, -np.inf), codes, _ODD])
            rows[:, column] = random.choice(values, count)
        half, some = (
            count // 2,
            columns // 2,
        )  # rows that share columns and rows that do not are scored by different parts of the code
        rows[half:, :some] = rows[half, :some]
        kept = (
            half + np.arange(count - half) // _SELDOM * _SELDOM
        )  # some columns change seldom, as those of a channel do
        rows[half:, some : some + some // 2] = rows[kept, some : some + some // 2]
        return rows


class _Model(ctypes.Structure):
    """As walk.c has it."""

    _fields_ = (
        ("columns", ctypes.c_int64),
        ("column", ctypes.c_void_p),
        ("begin", ctypes.c_void_p),
        ("categories", ctypes.c_void_p),
        ("cut", ctypes.c_void_p),
        ("threshold", ctypes.c_void_p),
        ("trees", ctypes.c_int64),
        ("table", ctypes.c_void_p),
        ("leaves", ctypes.c_int64),
        ("value", ctypes.c_void_p),
    )


@lru_cache(maxsize=1)
def _library() -> Any:
    """Load the compiled code; None where it was not built, or for another version of this file."""
    loaded = compiled.load("walk", _FORMAT)
    if loaded is None:
        return None
    loaded.walk.argtypes = (
        *(ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64),
        *(ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int),
    )
    loaded.walk.restype = None
    return loaded


@dataclass(frozen=True, slots=True, kw_only=True)
class _Asked:
    """A column that splits ask, and the places that its values stand for, each a row of the table.

    Of a number: missing, zero, and each place among the thresholds. Of a category: any that no split knows, and each code.
    """

    splits: IntArray
    thresholds: FloatArray
    categories: int
    """-1 of a number."""

    @classmethod
    def of(cls, trees: _Trees, column: int) -> "_Asked":
        splits = np.flatnonzero(trees.feature == column)
        if trees.kind[splits[0]] & _CATEGORICAL:
            words = [trees.categories[split] for split in splits.tolist()]
            codes = 32 * max(len(of_split) for of_split in words if of_split is not None)
            return cls(splits=splits, thresholds=np.zeros(0), categories=codes)
        return cls(splits=splits, thresholds=np.unique(trees.threshold[splits]), categories=-1)

    @property
    def rows(self) -> int:
        return 1 + self.categories if self.categories >= 0 else 3 + len(self.thresholds)

    def fill(self, trees: _Trees, table: NDArray[np.unsignedinteger]) -> None:
        """Take out of the sets of its rows, shape (rows, trees), what its splits leave out."""
        tree, kept, kind = trees.tree[self.splits], trees.kept[self.splits], trees.kind[self.splits]
        if self.categories >= 0:
            np.bitwise_and.at(table[0], tree, kept)
            for split, its_tree, its_kept in zip(self.splits.tolist(), tree.tolist(), kept, strict=True):
                words = trees.categories[split]
                assert words is not None  # a split by category has them
                goes_left = np.zeros(self.categories, dtype=bool)
                goes_left[: 32 * len(words)] = np.unpackbits(words.view(np.uint8), bitorder="little")
                table[1:, its_tree][~goes_left] &= its_kept
            return
        missing, is_left, threshold = kind >> 2 & 3, (kind & _DEFAULT_LEFT) > 0, trees.threshold[self.splits]
        for row, goes_left in (
            (0, np.where(missing == _MISSING_NONE, threshold >= 0, is_left)),
            (1, np.where(missing == _MISSING_ZERO, is_left, threshold >= 0)),
        ):
            np.bitwise_and.at(table[row], tree[~goes_left], kept[~goes_left])
        np.bitwise_and.at(table, (3 + np.searchsorted(self.thresholds, threshold), tree), kept)
        np.bitwise_and.accumulate(table[2:], axis=0, out=table[2:])
