from service.shop.spotlight import Action, Spotlight


def act(spotlight: Spotlight, user: str, at: float, times: int = 1) -> None:
    for _ in range(times):
        spotlight.note(user, Action(at, "view", "i1"))


def test_nobody_yet() -> None:
    assert Spotlight().watched(0.0) is None


def test_the_liveliest_is_watched_and_stays_in_sight() -> None:
    spotlight = Spotlight()
    act(spotlight, "a", 0.0, 2)
    act(spotlight, "b", 0.0, 5)
    watched = spotlight.watched(0.0)
    assert watched is not None
    assert watched[0] == "b"
    act(spotlight, "a", 5.0, 50)
    assert (spotlight.watched(5.0) or ("",))[0] == "b"


def test_after_some_quiet_somebody_else_is_watched() -> None:
    spotlight = Spotlight()
    act(spotlight, "b", 0.0, 5)
    spotlight.watched(0.0)
    act(spotlight, "a", 30.0)
    assert (spotlight.watched(30.0) or ("",))[0] == "a"


def test_when_all_are_quiet_the_last_one_stays() -> None:
    spotlight = Spotlight()
    act(spotlight, "b", 0.0)
    spotlight.watched(0.0)
    assert (spotlight.watched(1000.0) or ("",))[0] == "b"


def test_actions_come_latest_first_and_are_bounded() -> None:
    spotlight = Spotlight()
    for n in range(100):
        spotlight.note("a", Action(float(n), "view", f"i{n}"))
    watched = spotlight.watched(99.0)
    assert watched is not None
    assert [action.item_id for action in watched[1]] == [f"i{n}" for n in range(99, 89, -1)]


def test_users_are_bounded_and_the_watched_one_is_kept() -> None:
    spotlight = Spotlight()
    act(spotlight, "watched", 0.0)
    spotlight.watched(0.0)
    for n in range(5000):
        act(spotlight, f"u{n}", 1.0)
    assert (spotlight.watched(2.0) or ("",))[0] == "watched"
    assert len(spotlight._users) == 2000
