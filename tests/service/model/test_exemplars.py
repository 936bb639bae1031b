import numpy as np

from service.model.exemplars import Exemplars


def filled(n: int, capacity: int = 10) -> Exemplars:
    exemplars = Exemplars(capacity, 3)
    for k in range(n):
        exemplars.add(np.array([[-1, k, k + 1]], np.int32), np.array([k + 2]), np.array([1.0], np.float32))
    return exemplars


def draw(exemplars: Exemplars, n: int, **kw: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    settings = {"recent": 5, "recent_share": 0.0, "dropout": 0.0} | kw
    rng = np.random.default_rng(0)
    return exemplars.draw(
        n,
        rng,
        recent=int(settings["recent"]),
        recent_share=settings["recent_share"],
        dropout=settings["dropout"],
    )


def test_the_ring_keeps_the_latest() -> None:
    history, target, _ = draw(filled(23), 1000)
    assert set(target.tolist()) == set(range(15, 25))
    assert all(h.tolist() == [-1, t - 2, t - 1] for h, t in zip(history, target.tolist(), strict=True))


def test_the_recent_share_is_recent() -> None:
    _, target, _ = draw(filled(23), 1000, recent_share=1.0, recent=2)
    assert set(target.tolist()) == {23, 24}


def test_more_at_once_than_the_ring_holds() -> None:
    exemplars = Exemplars(4, 1)
    exemplars.add(np.arange(9, dtype=np.int32)[:, None], np.arange(9), np.ones(9, np.float32))
    assert set(draw(exemplars, 100)[1].tolist()) == {5, 6, 7, 8}
    assert exemplars.written == 9


def test_dropout_leaves_something() -> None:
    history, _, _ = draw(filled(10), 500, dropout=0.9)
    assert (history >= 0).any(1).all()
    assert (history < 0).sum() > 500  # of 1,000 items


def test_nothing_to_draw() -> None:
    assert len(draw(Exemplars(10, 3), 5)[1]) == 0
    assert len(draw(filled(3), 0)[1]) == 0


def test_what_expired_is_not_drawn() -> None:
    exemplars = filled(5)
    gone = np.zeros(20, np.bool_)
    gone[[3, 4]] = True
    exemplars.forget_items(gone)
    history, target, _ = draw(exemplars, 200)
    assert set(target.tolist()) == {2, 6}  # nor is 5, whose whole history is gone
    assert not np.isin(history, [3, 4]).any()
