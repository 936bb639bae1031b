"""What a version holds: tables of rows that change a few rows at a time, and small tensors that change whole.

An `Update` is what is stored and sent. A full update gives every row of every table; a partial one gives the rows that
changed since its parent. `State` is the sum of a full update and the partial ones after it, bit for bit.

Names are paths. Those under `trainer/` are for trainers alone; readers never load them.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.generic]


@dataclass(frozen=True, slots=True)
class Rows:
    """Some rows of a table: row `index[k]` now holds `values[k]`, and the table has `size` rows.

    `values` is an array [n, ...] or, for a table of ids, a list of n strings. Indices are unique and ascending.
    """

    index: NDArray[np.int64]  # [n]
    values: "Array | list[str]"
    size: int


@dataclass(frozen=True, slots=True)
class Update:
    """Rows of tables and whole tensors. `full`: nothing of what was before remains."""

    full: bool
    tables: Mapping[str, Rows] = field(default_factory=dict)
    tensors: Mapping[str, Array] = field(default_factory=dict)
