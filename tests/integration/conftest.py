"""Fixtures of the integration tests: a whole Tidemill on embedded servers."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.world import World, embedded_world


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with embedded_world(tmp_path) as made:
        yield made
