import re
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from keras_ssm.checks import check_positive

OPERATORS = ("[MIN", "[MAX", "[MED", "[SM")
END = "]"
SYMBOLS = (*map(str, range(10)), *OPERATORS, END)  # ids 1 to 15; 0 is padding
DEPTH, SHARE, LEAST, MOST = 10, 0.25, 2, 10
SHORTEST, LONGEST = 501, 1999
TREES = 4096  # grown side by side


def listops(
    count: int, seed: int = 0, progress: Callable[[int], None] | None = None
) -> tuple[list[np.ndarray], np.ndarray]:
    """Returns random expressions of lists of digits, and their values: ListOps as the LRA has it.

    An expression is a digit with the probability 3/4, and else an operator on 2 to 10 expressions,
    down to the tenth level: the smallest of them, the largest, the median (cut to an integer) or
    the last digit of the sum. Those of 501 to 1,999 symbols are kept, each once.

    Args:
        count: int. Number of expressions.
        seed: int. Decides which. Defaults to `0`.
        progress: callable or `None`. Called with the number of expressions that came.

    Returns:
        Tuple of a list of uint8 arrays `(length,)`, whose ids are those of `listops_ids`, and an
        int array `(count,)` of values from 0 to 9.

    Raises:
        ValueError: for a count below 1.

    Example:
        ```python
        rows, values = keras_ssm.datasets.listops(20)
        ```

    Reference:
        [ListOps](https://arxiv.org/abs/1804.06028);
        [Long Range Arena](https://arxiv.org/abs/2011.04006), section 2.1, and its code.
    """
    (count,) = check_positive(count=count)
    rng, rows, values, seen = np.random.default_rng(seed), [], [], set()
    while len(rows) < count:
        before = len(rows)
        for row, value in zip(*_written(_grown(rng)), strict=True):
            key = row.tobytes()
            if len(rows) < count and key not in seen:
                seen.add(key)
                rows.append(row)
                values.append(value)
        if progress is not None:
            progress(len(rows) - before)
    return rows, np.array(values, "int64")


def listops_ids(text: str) -> np.ndarray:
    """Returns the ids of an expression of ListOps, 1 to 15, as models read them.

    Args:
        text: str. Such as `"[MAX 2 9 [MIN 4 7 ] 0 ]"`. Parentheses count for nothing.

    Returns:
        Uint8 array `(length,)`.

    Raises:
        ValueError: for other symbols.

    Example:
        ```python
        keras_ssm.datasets.listops_ids("[MAX 2 9 ]")  # 12, 3, 10, 15
        ```
    """
    symbols = re.sub(r"[()]", " ", text).replace(END, f" {END} ").split()
    unknown = [symbol for symbol in symbols if symbol not in SYMBOLS]
    if unknown:
        raise ValueError(f"`text` must be of the symbols {SYMBOLS}. Received: {unknown[0]!r}")
    return np.array([1 + SYMBOLS.index(symbol) for symbol in symbols], "uint8")


def listops_value(ids: np.ndarray | str) -> int:
    """Returns the value of an expression of ListOps.

    Args:
        ids: int array `(length,)`, or the expression as a text.

    Returns:
        Int from 0 to 9.

    Raises:
        ValueError: for what is no expression.

    Example:
        ```python
        keras_ssm.datasets.listops_value("[SM 5 [MED 3 4 9 ] 7 ]")  # 6
        ```
    """
    ids = listops_ids(ids) if isinstance(ids, str) else np.asarray(ids)
    symbols = [SYMBOLS[i - 1] if 0 < i <= len(SYMBOLS) else "" for i in ids.tolist()]
    stack = [[]]
    for symbol in symbols:
        if symbol in OPERATORS:
            stack.append([symbol])
        elif symbol == END and len(stack) > 1 and len(stack[-1]) > 1:
            operator, *values = stack.pop()
            stack[-1].append(_VALUE[operator](values))
        elif symbol.isdigit():
            stack[-1].append(int(symbol))
        else:
            raise ValueError(f"`ids` must be an expression. Received: {' '.join(symbols)[:80]}")
    if len(stack) > 1 or len(stack[0]) != 1:
        raise ValueError(f"`ids` must be one expression. Received: {' '.join(symbols)[:80]}")
    return stack[0][0]


_VALUE = {
    "[MIN": min,
    "[MAX": max,
    "[MED": lambda values: int(np.median(values)),
    "[SM": lambda values: sum(values) % 10,
}


class _Level(NamedTuple):
    """The nodes of one level of many trees. Children of one parent are neighbours."""

    parent: np.ndarray  # their places in the level above
    operator: np.ndarray  # 0 to 3, or -1 for a digit
    children: np.ndarray  # how many
    value: np.ndarray


def _grown(rng):
    """Trees, level by level, with the values of all nodes."""
    levels, parent = [], np.zeros(TREES, int)
    for depth in range(1, DEPTH + 1):
        size = len(parent)
        inner = rng.random(size) <= SHARE if depth < DEPTH else np.zeros(size, bool)
        children = np.where(inner, rng.integers(LEAST, MOST + 1, size), 0)
        operator = np.where(inner, rng.integers(len(OPERATORS), size=size), -1)
        levels.append(_Level(parent, operator, children, rng.integers(10, size=size)))
        parent = np.repeat(np.arange(size), children)
        if not len(parent):
            break
    for above, below in zip(levels[-2::-1], levels[:0:-1], strict=True):
        inner = np.flatnonzero(above.children)
        count = above.children[inner]
        start = np.cumsum(count) - count
        ordered = below.value[np.lexsort((below.value, below.parent))]
        low, high = start + (count - 1) // 2, start + count // 2
        results = [
            ordered[start],
            ordered[start + count - 1],
            (ordered[low] + ordered[high]) // 2,
            np.add.reduceat(below.value, start) % 10,
        ]
        above.value[inner] = np.choose(above.operator[inner], results)
    return levels


def _written(levels):
    """The trees of a fit length as rows of ids, and their values."""
    lengths = [np.ones(len(level.parent), int) for level in levels]
    for i in range(len(levels) - 2, -1, -1):
        inside = np.bincount(levels[i + 1].parent, lengths[i + 1], len(lengths[i])).astype(int)
        lengths[i] = np.where(levels[i].operator < 0, 1, 2 + inside)
    kept = (lengths[0] >= SHORTEST) & (lengths[0] <= LONGEST)
    ends = np.cumsum(np.where(kept, lengths[0], 0))
    ids = np.zeros(ends[-1], "uint8")
    place = ends - lengths[0]
    for i, (level, length) in enumerate(zip(levels, lengths, strict=True)):
        if i:  # after the operator and the elder siblings
            before = np.cumsum(length) - length
            first = np.searchsorted(level.parent, level.parent)
            place = place[level.parent] + 1 + before - before[first]
            kept = kept[level.parent]
        digit = level.operator < 0
        ids[place[kept]] = np.where(digit, 1 + level.value, 11 + level.operator)[kept]
        closing = kept & ~digit
        ids[place[closing] + length[closing] - 1] = len(SYMBOLS)
    whole = (lengths[0] >= SHORTEST) & (lengths[0] <= LONGEST)
    return np.split(ids, ends[whole][:-1]) if whole.any() else [], levels[0].value[whole]
