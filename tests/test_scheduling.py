from pathlib import Path

import pytest

from tests.scheduling import world_of

TESTS = Path(__file__).parent


@pytest.mark.parametrize(
    ("test", "world"),
    [
        ("tests/integration/test_kills.py::test_nobody_killed[0]", "test_kills"),
        ("tests/integration/test_neighbours.py::test_redis_is_full[mock]", "test_neighbours mock"),
        ("tests/integration/test_neighbours.py::test_scorer_and_kafka_are_parted[real-_cut]", "test_neighbours real"),
        ("tests/test_docs.py::test_it[mock]", "tests/test_docs.py::test_it[mock]"),
    ],
)
def test_tests_of_one_world_stay_together(test: str, world: str) -> None:
    assert world_of(test) == world


def test_every_file_whose_tests_share_a_fixture_is_a_world() -> None:
    shared = {
        path
        for path in TESTS.rglob("test_*.py")
        if path != Path(__file__) and '@pytest.fixture(scope="module"' in path.read_text()
    }
    assert {path.stem for path in shared} == {"test_kills", "test_neighbours"}
    for path in shared:
        test = f"tests/{path.relative_to(TESTS)}::test_it[mock]"
        assert world_of(test) != test
