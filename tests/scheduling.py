"""Which tests may run side by side, under `pytest -n 4`: all but those that share a world, which stay together."""

import re

from xdist.scheduler import LoadScopeScheduling

# Processes that are dear to start, and in `test_neighbours` those that must outlive each of its tests, in their order.
_WORLDS = re.compile(r".*/(?:(test_kills)\.py|(test_neighbours)\.py::.*\[(mock|real))")


def world_of(test: str) -> str:
    """The world that a test shares with others, or itself. test: its node id, as `tests/test_docs.py::test_x[1]`."""
    found = _WORLDS.match(test)
    return " ".join(filter(None, found.groups())) if found else test


class ByWorld(LoadScopeScheduling):  # type: ignore[misc]  # it comes without types
    """Hands out the largest worlds first, then single tests in the order in which they were collected."""

    def _split_scope(self, nodeid: str) -> str:
        return world_of(nodeid)
