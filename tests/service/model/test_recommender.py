import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model_store.weights import Rows, Update
from service.model.catalogue_scores import NEVER, CatalogueScores
from service.model.contexts import BUCKETS, Contexts
from service.model.recommender import Recommender
from tests.service.model.configs import small

DIM, LENGTH, HIDDEN = 4, 3, 5
CONFIG = small(dim=DIM, length=LENGTH, hidden=HIDDEN, half_lives=(10.0, 100.0))


def catalogue_of(model: Recommender) -> CatalogueScores:
    assert model.catalogue is not None
    return model.catalogue


def full_update(n: int, seed: int = 0, *, listable: np.ndarray | None = None, ids: list[str] | None = None) -> Update:
    rng = np.random.default_rng(seed)
    index = np.arange(n, dtype=np.int64)

    def table(values: np.ndarray) -> Rows:
        return Rows(index, values, n)

    return Update(
        full=True,
        tables={
            "item/id": Rows(index, [f"i{k}" for k in range(n)] if ids is None else ids, n),
            "item/row": table(rng.normal(size=(n, DIM)).astype(np.float32)),
            "item/popularity": table(np.where(rng.random((n, 2)) < 0.3, -np.inf, rng.normal(size=(n, 2)))),
            "item/listable": table(np.ones(n, np.uint8) if listable is None else listable),
            "trainer/user/id": Rows(np.arange(1), ["somebody"], 1),
        },
        tensors={
            "clock": np.array([5]),
            "popularity/half_life": np.array([10.0, 100.0]),
            "network/lag_weight": rng.normal(size=LENGTH).astype(np.float32),
            "network/in_weight": rng.normal(size=(2 * DIM, HIDDEN)).astype(np.float32),
            "network/in_bias": rng.normal(size=HIDDEN).astype(np.float32),
            "network/out_weight": rng.normal(size=(HIDDEN, DIM)).astype(np.float32),
            "network/out_bias": rng.normal(size=DIM).astype(np.float32),
            "blend/log_scale": np.full(BUCKETS, 2.0, np.float32),
            "blend/prior": rng.normal(size=(BUCKETS, 2)).astype(np.float32),
            "blend/repeat": rng.normal(size=LENGTH).astype(np.float32),
        },
    )


@settings(deadline=None, max_examples=60)
@given(
    n=st.integers(0, 300),
    users=st.integers(0, 70),
    k=st.integers(1, 60),
    width=st.integers(1, 5),
    closed=st.floats(0, 1),
    seed=st.integers(0, 100),
)
def test_laws_of_top_k(n: int, users: int, k: int, width: int, closed: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    listable = (rng.random(n) >= closed).astype(np.uint8)
    exclude = rng.random(n) < closed / 2
    model = Recommender(CONFIG)
    model.apply(full_update(n, seed, listable=listable))
    histories = rng.integers(-1, n, (users, width)) if n else np.full((users, width), -1)
    hide = rng.integers(-1, n, (users, 4)) if n else np.full((users, 4), -1)
    rows, scores = model.top_k(histories, k, exclude=exclude, hide=hide)
    assert rows.shape == scores.shape == (users, k)
    assert rows.dtype == np.int64
    assert scores.dtype == np.float32
    assert np.isfinite(scores).all()
    for b in range(users):
        real = rows[b] >= 0
        allowed = np.flatnonzero((listable == 1) & ~exclude & ~np.isin(np.arange(n), hide[b]))
        assert real.sum() == min(k, len(allowed))
        assert not (~real[:-1] & real[1:]).any()  # what is missing is missing at the end
        assert (np.diff(scores[b][real]) <= 0).all()
        assert len(set(rows[b][real].tolist())) == real.sum()
        assert np.isin(rows[b][real], allowed).all()
        assert (scores[b][~real] == 0).all()
    if users and n:  # the best are the best, by the plain way
        padded = np.pad(histories, ((0, 0), (LENGTH, 0)), constant_values=-1)[:, -LENGTH:]
        plain = catalogue_of(model).scores(Contexts.of(padded))
        dense = plain.numpy()[:, :n].copy()
        for b in range(users):
            dense[b, exclude] = NEVER
            dense[b, hide[b][hide[b] >= 0]] = NEVER
            real = rows[b] >= 0
            np.testing.assert_allclose(scores[b][real], np.sort(dense[b])[::-1][: real.sum()], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("strip", [1, 20 * 64, 1 << 18])
def test_ranks_agree_with_lists(strip: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.model.catalogue_scores.STRIP", strip)
    model = Recommender(CONFIG)
    model.apply(full_update(200))
    histories = np.random.default_rng(1).integers(-1, 200, (20, LENGTH))
    histories[3] = -1  # nothing known: popularity alone, with many equal scores
    rows, _ = model.top_k(histories, 200)
    for first in range(10):
        target = (np.arange(20) * 7 + first * 6) % 200
        ranks = catalogue_of(model).ranks(Contexts.of(histories), target)
        assert ranks.tolist() == [rows[b].tolist().index(t) for b, t in enumerate(target)]


@pytest.mark.parametrize("strip", [1, 1 << 18])
def test_of_equal_scores_the_lower_row_comes_first(strip: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.model.catalogue_scores.STRIP", strip)
    model = Recommender(CONFIG)
    update = full_update(100)
    counts = Rows(np.arange(100), np.full((100, 2), -np.inf), 100)
    model.apply(Update(full=True, tables={**update.tables, "item/popularity": counts}, tensors=update.tensors))
    nobody = Contexts.of(np.full((4, LENGTH), -1))
    assert catalogue_of(model).ranks(nobody, np.array([0, 31, 32, 99])).tolist() == [0, 31, 32, 99]


def test_a_target_that_may_not_be_listed_is_missed() -> None:
    model = Recommender(CONFIG)
    model.apply(full_update(40, listable=(np.arange(40) != 3).astype(np.uint8)))
    assert catalogue_of(model).ranks(Contexts.of(np.array([[-1, 3, 3]])), np.array([3]))[0] > 10**6


def test_deltas_change_what_they_name() -> None:
    model = Recommender(CONFIG)
    model.apply(full_update(40))
    other = full_update(40, seed=1)
    values = np.asarray(other.tables["item/row"].values)
    index = np.array([2, 40], dtype=np.int64)
    model.apply(
        Update(
            full=False,
            tables={
                "item/id": Rows(np.array([2, 40]), ["reborn", "new"], 41),
                "item/row": Rows(index, values[[2, 3]], 41),
                "item/popularity": Rows(np.array([40]), np.zeros((1, 2)), 41),
                "item/listable": Rows(np.array([40]), np.ones(1, np.uint8), 41),
            },
            tensors={"clock": np.array([9])},
        )
    )
    assert model.size == 41
    assert model.clock == 9
    assert model.rows_of(["reborn", "new", "i2", "i3"]).tolist() == [2, 40, -1, 3]
    assert 40 in model.top_k(np.array([[-1]]), 41)[0]


def test_before_the_first_update_there_is_nothing() -> None:
    model = Recommender(CONFIG)
    assert model.size == 0
    assert (model.top_k(np.array([[-1]]), 5)[0] == -1).all()
