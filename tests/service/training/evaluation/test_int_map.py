import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from service.training.evaluation.int_map import IntMap

KEYS = st.one_of(st.integers(-5, 20), st.sampled_from([-(1 << 63), (1 << 63) - 1]))
BATCHES = st.lists(st.lists(st.tuples(KEYS, st.integers(1, 100))), max_size=12)


@given(BATCHES, st.integers(0, 5))
def test_it_is_a_dict(batches: list[list[tuple[int, int]]], few: int) -> None:
    found, wanted = IntMap(few), dict[int, int]()
    for batch in batches:
        keys = np.array([key for key, _ in batch], np.int64)
        assert found.get(keys).tolist() == [wanted.get(key, 0) for key, _ in batch]
        found.put(keys, np.array([value for _, value in batch], np.int64))
        wanted.update(batch)
    keys = np.array([*wanted, 21], np.int64)
    assert found.get(keys).tolist() == [*wanted.values(), 0]


def test_many_take_little_room() -> None:
    found, rng = IntMap(), np.random.default_rng(0)
    keys = rng.permutation(200_000)
    for part in np.array_split(keys, 800):
        assert not found.get(part).any()
        found.put(part, part + 1)
    assert (found.get(keys) == keys + 1).all()
    assert len(found._latest) <= max(1 << 14, len(keys) // 8)
    assert found._keys.nbytes + found._values.nbytes <= 12 * len(keys)
