"""What may go, and what must never."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model_store.chain import load
from model_store.memory_store import MemoryStore
from model_store.retention import plan, retire
from model_store.version import Kind, Summary
from model_store.weights import Update
from tests.model_store.worlds import assert_same, encoded, manifest, small, state_of

NOW = 10_000.0


@st.composite
def shelves(draw: st.DrawFn) -> list[Summary]:
    """Versions with branches (a restarted trainer goes on from an older one), gaps in the numbers, and any ages."""
    found: list[Summary] = []
    for number in sorted(draw(st.sets(st.integers(1, 60), max_size=25))):
        parent = draw(st.sampled_from(found)).version if found else None
        kind: Kind = "snapshot" if parent is None or draw(st.booleans()) else "delta"
        found.append(Summary(number, parent, kind, NOW - draw(st.integers(-5, 300))))
    return found


def chain(version: int, shelf: list[Summary]) -> set[int]:
    by_number = {each.version: each for each in shelf}
    found: set[int] = set()
    step: int | None = version
    while step is not None and step in by_number:
        found.add(step)
        step = None if by_number[step].kind == "snapshot" else by_number[step].parent
    return found


@given(shelves(), st.sets(st.integers(1, 60), max_size=3), st.integers(0, 300), st.integers(0, 4))
def test_nothing_that_is_needed_goes(shelf: list[Summary], needed: set[int], grace: int, keep: int) -> None:
    gone = set(plan(shelf, needed=needed, now=NOW, grace=grace, keep=keep))
    assert gone <= {each.version for each in shelf}
    wanted = needed & {each.version for each in shelf}
    wanted |= {each.version for each in shelf if NOW - each.created < grace}
    wanted |= {max((each.version for each in shelf), default=0)}
    snapshots = sorted(each.version for each in shelf if each.kind == "snapshot")
    wanted |= set(snapshots[-keep:] if keep else [])
    for version in wanted:
        assert not chain(version, shelf) & gone
    # and all that is left can still be loaded
    for each in shelf:
        if each.version not in gone:
            assert not chain(each.version, shelf) & gone


@given(shelves(), st.integers(0, 300), st.integers(0, 4))
def test_a_second_pass_finds_nothing(shelf: list[Summary], grace: int, keep: int) -> None:
    gone = plan(shelf, needed=[], now=NOW, grace=grace, keep=keep)
    left = [each for each in shelf if each.version not in gone]
    assert plan(left, needed=[], now=NOW, grace=grace, keep=keep) == []


def line(kinds: str, age: float = 1000.0) -> list[Summary]:
    return [
        Summary(n, n - 1 or None, "snapshot" if kind == "s" else "delta", NOW - age) for n, kind in enumerate(kinds, 1)
    ]


@pytest.mark.parametrize(
    ("kinds", "needed", "keep", "gone"),
    [
        ("sddsdd", [6], 0, [1, 2, 3]),
        ("sddsdd", [6], 1, [1, 2, 3]),
        ("sddsdd", [6], 2, [2, 3]),
        ("sddsdd", [2, 6], 0, [3]),
        ("sdd", [], 0, []),  # the newest is always needed
        ("sds", [], 0, [1, 2]),
        ("", [], 3, []),
        ("ssss", [99], 2, [1, 2]),  # an alias to what is not there
    ],
)
def test_by_hand(kinds: str, needed: list[int], keep: int, gone: list[int]) -> None:
    assert plan(line(kinds), needed=needed, now=NOW, grace=60, keep=keep) == gone


def test_the_young_stay_with_what_they_are_built_on() -> None:
    shelf = line("sddsds")
    shelf[2] = Summary(3, 2, "delta", NOW - 59)
    assert plan(shelf, needed=[], now=NOW, grace=60, keep=0) == [4, 5]


def test_hundreds_of_thousands_of_deltas_are_no_matter() -> None:
    kinds = "s" + "d" * 100_000
    assert plan(line(kinds), needed=range(1, 100_000, 7), now=NOW, grace=60, keep=3) == []


@given(
    steps=st.lists(st.tuples(st.sampled_from("sdddddmmarptt"), st.integers(0, 30), st.floats(0, 3)), max_size=30),
    keep=st.integers(0, 2),
)
def test_what_anybody_may_be_reading_can_be_read(steps: list[tuple[str, int, float]], keep: int) -> None:
    """A trainer that publishes and retires, operators that move pointers, and time that passes.

    Whole stay the live version, those under an alias, and those that were live or new within the grace.
    """
    now, grace, held = 1_700_000_000.0, 5.0, 4.99  # times are stored in whole milliseconds
    store = MemoryStore(clock=lambda: now)
    lease = store.acquire("trainer", 1e9)
    assert lease is not None
    updates: dict[int, list[Update]] = {}
    reading: dict[int, float] = {}  # until when somebody may be reading a version
    for what, number, seconds in [("s", 0, 0.0), *steps]:
        now += seconds
        if (live := store.live()) is not None:
            reading[live] = now + held
        here = store.versions()
        chosen = here[number % len(here)] if here else 1
        if what in "sd":
            version = len(updates) + 1
            update = small(version, full=what == "s")
            updates[version] = [update] if what == "s" else [*updates[version - 1], update]
            made = manifest(version, version - 1 or None, kind="snapshot" if what == "s" else "delta", created=now)
            store.publish(made.model_copy(update={"blobs": store.put_blobs(encoded(update))}), lease)
            reading[version] = now + held
        elif what == "m":
            store.move(len(updates), "", lease=lease)
        elif what == "a":
            store.move(chosen, "", alias="challenger")
        elif what == "r":
            store.rollback(chosen, "")
        elif what == "p":
            store.promote()
        else:
            retire(store, now=now, grace=grace, keep=keep, lease=lease)
            needed = {version for version, until in reading.items() if until > now} | set(store.aliases().values())
            for version in needed:
                assert_same(load(store, version).snapshot(), state_of(updates[version]).snapshot())
