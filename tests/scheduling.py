"""Which tests may run side by side, under `pytest -n 4`: all but those that share a world, which stay together."""

import functools
import re
from pathlib import Path

from xdist.scheduler import LoadScopeScheduling

_ROOT = Path(__file__).resolve().parent.parent
_KAFKA = re.compile(r"\[(mock|real)\b")


def world_of(test: str) -> str:
    """The world that a test shares with others, or the test itself, given by its id (`tests/test_docs.py::test_x[1]`).

    The tests of a file with fixtures of a whole module share one for each kind of Kafka: servers and processes that are
    dear to start, or that must outlive each of its tests, in their order.
    """
    file, _, name = test.partition("::")
    if not _has_world(_ROOT / file):
        return test
    kafka = _KAFKA.search(name)
    return f"{file} {kafka[1]}" if kafka else file


@functools.cache
def _has_world(file: Path) -> bool:
    return '@pytest.fixture(scope="module"' in file.read_text()


class ByWorld(LoadScopeScheduling):  # type: ignore[misc]  # it comes without types
    """Hands out the largest worlds first, then single tests in the order in which they were collected."""

    def _split_scope(self, nodeid: str) -> str:
        return world_of(nodeid)
