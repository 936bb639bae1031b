"""Compiles kernels: functions over arrays, by numba, kept on disk so that no process waits for a compiler.

Kernels run on one thread and without fast math, so that the same input gives the same bits in every process on one kind
of machine. What is compiled lies beside the source in `__pycache__`, for each kind of processor; `python -m
service.warm` compiles everything once, when an environment or an image is made. A file system that cannot
be written is no obstacle: what lies there is used, and what does not is compiled in memory.

A kernel may call kernels of other files. numba would not notice a change there, so the stamp of what is kept covers the
sources of all. Types are numba's to infer, so kernels have no annotations; their docstrings give shapes.
"""

import hashlib
import logging
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, cast

import numba
from numba import njit
from numba.core import config as numba_config
from numba.core.caching import InTreeCacheLocator

Kernel = Callable[..., Any]

log = logging.getLogger(__name__)


class BesideSource(InTreeCacheLocator):
    """The `__pycache__` folder beside the source, whether or not it can be written."""

    def ensure_cache_path(self) -> None:
        Path(self.get_cache_path()).mkdir(exist_ok=True)

    @classmethod
    def from_function(cls, py_func: Callable[..., Any], py_file: str) -> "BesideSource":
        locator = cls(py_func, py_file)
        try:
            locator.ensure_cache_path()
        except OSError as error:
            _cannot_keep(error)
        return locator

    def get_source_stamp(self) -> str:
        return _sources()


@cache
def _sources() -> str:
    """A digest of the sources of all kernels, and of numba's version."""
    digest = hashlib.sha256(numba.__version__.encode())
    for path in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def _cannot_keep(error: OSError) -> None:
    _warn(error.strerror or str(error))


@cache
def _warn(why: str) -> None:
    """Once a process, not once a kernel."""
    log.warning("compiled kernels cannot be kept, so every process that starts compiles them: %s", why)


def kernel(function: Kernel) -> Kernel:
    """Compiles a function over numpy arrays and numbers at its first call, or loads what was compiled before."""
    config: Any = numba_config
    others = config.CACHE_LOCATOR_CLASSES
    config.CACHE_LOCATOR_CLASSES = f"{__name__}.{BesideSource.__name__}"
    try:
        compiled: Any = njit(cache=True, nogil=True)(function)
    finally:
        config.CACHE_LOCATOR_CLASSES = others
    save = compiled._cache.save_overload

    def save_if_possible(signature: Any, data: Any) -> None:
        try:
            save(signature, data)
        except OSError as error:
            _cannot_keep(error)

    compiled._cache.save_overload = save_if_possible
    return cast(Kernel, compiled)
