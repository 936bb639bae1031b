"""numba's compiler, with types.

Neither `fastmath` nor `parallel`: figures are the same on every run, and one core is used.
"""

from collections.abc import Callable
from typing import TypeVar, cast

import numba

F = TypeVar("F", bound=Callable[..., object])


def compiled(function: F) -> F:
    """Compiles a function of numbers and arrays at its first call, and keeps it beside the source for the next run."""
    return cast(F, numba.njit(cache=True)(function))
