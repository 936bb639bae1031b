"""What is asked of every rival, and a tiny world with a known right answer for those that know users apart."""

from typing import Any

import numpy as np
import pytest

from benchmarks.rivals.rival import Entry, Rival
from benchmarks.rivals.roster import ROSTER, entry, versions
from tests.benchmarks.worlds import events_of, random_stream

USERS, ITEMS = 30, 12


@pytest.fixture(params=ROSTER)
def found(request: pytest.FixtureRequest) -> Entry:
    try:
        rival = entry(request.param)
        versions(rival)
    except ImportError as error:
        pytest.skip(str(error))
    return rival


def made(found: Entry, stream: Any) -> Rival:
    first = {name: values[0] for name, values in found.grid.items() if name != "hide_seen"}
    return found.make(stream.sizes, **first)


def test_every_known_item_has_a_score_from_the_first_event_on(found: Entry) -> None:
    stream = random_stream(600)
    rival = made(found, stream)
    assert rival.scores(0, np.array([0]), 1).shape == (1,)
    for start in range(0, 600, 200):
        rival.learn(stream.events.part(start, start + 200))
        for user in (0, stream.sizes.users - 1):
            scores = rival.scores(user, np.array([1, 0]), stream.sizes.items)
            assert scores.shape == (stream.sizes.items,)
            assert not np.isnan(scores).any()


def test_the_same_stream_gives_the_same_scores(found: Entry) -> None:
    stream = random_stream(600)
    both = [made(found, stream) for _ in range(2)]
    for rival in both:
        rival.learn(stream.events)
    history = stream.events.item[stream.events.user == 0]
    one, other = [np.asarray(rival.scores(0, history, stream.sizes.items)) for rival in both]
    assert np.array_equal(one, other)


@pytest.mark.parametrize("name", [name for name in ROSTER if name != "popularity"])
def test_users_of_even_items_are_listed_even_items(name: str) -> None:
    """Even users choose even items and odd users odd ones, in any order."""
    try:
        found = entry(name)
        versions(found)
    except ImportError as error:
        pytest.skip(str(error))
    rng = np.random.default_rng(0)
    first = [(user, user % 2) for user in range(2)] + [(user, user) for user in range(2, ITEMS)]
    users = rng.integers(USERS, size=3_000).tolist()
    pairs = first + [(user, int(2 * rng.integers(ITEMS // 2) + user % 2)) for user in users]
    events = events_of(pairs)
    rival = found.make(random_stream(len(pairs), users=USERS, items=ITEMS).sizes)
    for start in range(0, len(pairs), 256):
        rival.learn(events.part(start, start + 256))
    for user in range(4):
        scores = np.asarray(rival.scores(user, events.item[events.user == user], ITEMS))
        own, others = scores[user % 2 :: 2], scores[1 - user % 2 :: 2]
        assert own.min() > others.max()
