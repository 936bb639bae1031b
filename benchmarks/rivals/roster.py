"""The rivals, in the table's order. Each is a file of this folder; its libraries are needed only where it runs."""

from importlib import import_module
from importlib.metadata import version

from benchmarks.rivals.rival import Entry

ROSTER = (
    "item_knn",
    "vs_knn",
    "popularity",
    "vowpal_wabbit",
    "implicit_items",
    "implicit_als",
    "river_factors",
)


def entry(name: str) -> Entry:
    """Raises: ImportError where a library that the file imports is not there. The rival's `make` may raise it too."""
    found: Entry = import_module(f"benchmarks.rivals.{name}").ENTRY
    return found


def versions(found: Entry) -> dict[str, str]:
    """Of the packages that the rival is made of. Raises: ImportError where one is not installed."""
    return {package: version(package) for package in found.packages}
