"""The live pointer and other aliases."""

import time

import pytest

from model_store.errors import (
    LeaseLost,
    NoSuchVersion,
)
from model_store.store import ModelStore
from tests.contracts.model_store.labs import Lab, chain
from tests.model_store.worlds import publish, small


def test_the_trainer_promotes_until_an_operator_pins(lab: Lab) -> None:
    store, lease = lab.store, chain(lab, "s", "d", "d")
    assert store.move(2, "", lease=lease)
    store.rollback(1, "lists look odd")
    assert (store.live(), store.pinned()) == (1, 1)
    assert not store.move(3, "", lease=lease)
    assert store.live() == 1
    publish(store, lease, 4, 3, small(4, full=False))
    assert store.promote(None, "fixed") == 4
    assert (store.live(), store.pinned()) == (4, None)
    assert store.move(3, "", lease=lease)
    assert store.promote(2) == 2
    assert store.live() == 2


def test_an_operators_move_neither_pins_nor_unpins(lab: Lab) -> None:
    store, _ = lab.store, chain(lab, "s", "d")
    assert store.move(1, "by hand")
    assert store.pinned() is None
    store.rollback(1, "")
    assert store.move(2, "by hand")
    assert (store.live(), store.pinned()) == (2, 1)


def test_rolling_back_to_what_is_live_pins_it(lab: Lab) -> None:
    store, lease = lab.store, chain(lab, "s", "d")
    store.move(1, "", lease=lease)
    store.rollback(1, "stay")
    assert not store.move(2, "", lease=lease)


def test_since_when_it_is_pinned(lab: Lab) -> None:
    store, lease = lab.store, chain(lab, "s", "d")
    assert store.pinned_since() is None
    store.move(1, "", lease=lease)
    assert store.pinned_since() is None
    before = time.time()
    store.rollback(1, "odd")
    first = store.pinned_since()
    assert first is not None
    assert before - 0.01 <= first <= time.time() + 0.01
    time.sleep(0.02)
    store.move(2, "by hand")
    assert not store.move(2, "", lease=lease)
    assert store.pinned_since() == first
    store.rollback(1, "still odd")  # from now on
    second = store.pinned_since()
    assert second is not None
    assert second > first
    store.promote(1)
    assert store.pinned_since() is None


def test_a_trainer_lets_a_pin_go_only_under_its_lease(lab: Lab) -> None:
    store, lease = lab.store, chain(lab, "s", "d")
    store.rollback(1, "odd")
    store.release(lease)
    current = lab.lease("another")
    before = store.log()
    with pytest.raises(LeaseLost):
        store.promote(2, "it has lasted", lease=lease)
    assert (store.live(), store.pinned(), store.log()) == (1, 1, before)
    assert store.promote(2, "it has lasted", lease=current) == 2
    assert (store.live(), store.pinned()) == (2, None)


def test_a_champion_that_moves_has_no_challenger_behind_it(lab: Lab) -> None:
    store, lease = lab.store, chain(lab, "s", "d", "d", "d")

    def challenger() -> int | None:
        return store.aliases().get("challenger")

    store.move(1, "", lease=lease)
    store.move(2, "worse", alias="challenger", lease=lease)
    store.rollback(1, "")
    assert challenger() == 2  # it is ahead
    store.promote(2)
    assert challenger() is None
    store.move(3, "worse", alias="challenger", lease=lease)
    store.move(4, "better", lease=lease)
    assert challenger() is None
    store.move(3, "odd", alias="challenger")  # by hand, behind the champion
    store.move(2, "back")
    assert challenger() == 3
    store.move(4, "an alias of its own", alias="tried")
    store.rollback(4, "")
    assert store.aliases() == {"champion": 4, "tried": 4}


def test_other_aliases(lab: Lab) -> None:
    store, lease = lab.store, chain(lab, "s", "d")
    store.rollback(1, "")
    assert store.move(2, "try it", alias="challenger", lease=lease)  # a pin holds the champion alone
    assert store.aliases() == {"champion": 1, "challenger": 2}
    assert store.live() == 1
    assert store.log(1)[0][1:] == ("move", "challenger", 2, "try it")


@pytest.mark.parametrize("alias", ["", "a:b", "a b", "{x}", "../x"])
def test_names_that_are_no_alias(store: ModelStore, alias: str) -> None:
    with pytest.raises(ValueError, match="alias"):
        store.move(1, "", alias=alias)


def test_nothing_points_at_what_is_not_there(lab: Lab) -> None:
    store, lease = lab.store, chain(lab, "s")
    for move in (
        lambda: store.move(2, ""),
        lambda: store.move(2, "", lease=lease),
        lambda: store.rollback(2, ""),
        lambda: store.promote(2),
    ):
        with pytest.raises(NoSuchVersion):
            move()
    assert store.live() is None
    assert store.pinned() is None
