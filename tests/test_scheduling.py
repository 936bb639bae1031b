import pytest

from tests.scheduling import world_of

KILLS = "tests/integration/test_kills.py"
NEIGHBOURS = "tests/integration/test_neighbours.py"


@pytest.mark.parametrize(
    ("test", "world"),
    [
        (f"{KILLS}::test_nobody_killed[0]", KILLS),
        (f"{KILLS}::test_killed_at_random_while_time_cuts_the_batches", KILLS),
        (f"{NEIGHBOURS}::test_redis_is_full[mock]", f"{NEIGHBOURS} mock"),
        (f"{NEIGHBOURS}::test_scorer_and_kafka_are_parted[real-_cut]", f"{NEIGHBOURS} real"),
        ("tests/test_docs.py::test_it[mock]", "tests/test_docs.py::test_it[mock]"),
    ],
)
def test_tests_of_one_world_stay_together(test: str, world: str) -> None:
    assert world_of(test) == world
