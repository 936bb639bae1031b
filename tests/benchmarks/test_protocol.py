from pathlib import Path

import numpy as np
import orjson

from benchmarks.quality.protocol import BATCH_EVENTS, eligible, run, spread
from benchmarks.quality.stream import read_stream
from benchmarks.rivals.rival import Events, Floats, Index
from consumers.decode import DecodeRules
from consumers.file_reading import open_reading
from service.model.registry import NEW_MODEL
from service.training.evaluation.evaluate_file import evaluate_file
from service.training.learner import Learner
from tests.benchmarks.worlds import random_stream, stream_of


class Noting:
    """Scores item 0 highest, and notes what it is asked."""

    def __init__(self) -> None:
        self.learned: list[tuple[int, int]] = []
        self.asked: list[tuple[int, int, list[int], int]] = []  # events learned so far, user, history, items

    def learn(self, events: Events) -> None:
        self.learned += zip(events.user.tolist(), events.item.tolist(), strict=True)

    def scores(self, user: int, history: Index, n_items: int) -> Floats:
        self.asked.append((len(self.learned), user, history.tolist(), n_items))
        return -np.arange(n_items, dtype=np.float64)


def test_known_is_in_an_earlier_event_also_of_the_same_batch() -> None:
    stream = stream_of([(0, 0), (0, 1), (1, 0), (1, 1), (0, 0)])
    assert stream.known.tolist() == [False, False, False, True, True]
    assert stream.items_known.tolist() == [0, 1, 2, 2, 2]


def test_the_first_fifth_is_only_learned_from_up_to_the_next_batch() -> None:
    stream = random_stream(10 * BATCH_EVENTS + 10)
    first = eligible(stream)[0]
    assert first == 3 * BATCH_EVENTS  # a fifth ends within the third batch
    assert len(eligible(random_stream(BATCH_EVENTS))) == 0


def test_each_event_is_ranked_before_its_batch_is_learned_with_a_history_that_is_current() -> None:
    stream = random_stream(4 * BATCH_EVENTS)
    rival = Noting()
    run(stream, rival, hide_seen=False)
    pairs = list(zip(stream.events.user.tolist(), stream.events.item.tolist(), strict=True))
    assert rival.learned == pairs
    places = eligible(stream).tolist()
    assert len(rival.asked) == len(places)
    for at, (learned, user, history, n_items) in zip(places, rival.asked, strict=True):
        assert learned == at // BATCH_EVENTS * BATCH_EVENTS
        assert user == pairs[at][0]
        assert history == [item for who, item in pairs[:at] if who == user]
        assert n_items == len({item for _, item in pairs[:at]})


def test_seen_items_are_hidden_where_asked() -> None:
    stream = random_stream(4 * BATCH_EVENTS, users=400, items=30)
    assert (
        run(stream, Noting(), hide_seen=True).figures.mrr.mean
        != run(stream, Noting(), hide_seen=False).figures.mrr.mean
    )
    everything_seen = random_stream(4 * BATCH_EVENTS, users=1, items=3)
    assert run(everything_seen, Noting(), hide_seen=True).figures.hit_rate.mean == 0
    assert run(everything_seen, Noting(), hide_seen=False).figures.hit_rate.mean == 1


def test_a_slow_rival_ranks_every_kth_event() -> None:
    assert spread(np.arange(7), 3).tolist() == [0, 3, 6]
    assert spread(np.arange(7), 7).tolist() == list(range(7))
    stream = random_stream(4 * BATCH_EVENTS)
    assert 90 < run(stream, Noting(), hide_seen=False, most=100).figures.ranked <= 100


def test_a_file_is_numbered_by_first_appearance(tmp_path: Path) -> None:
    lines = [
        {"user_id": "b", "item_id": "x", "type": "rating", "ts": 5_000, "value": 4.0},
        {"user_id": "a", "item_id": "y", "type": "click", "ts": 6_000},
        {"user_id": "a", "type": "search", "ts": 7_000, "query": "z"},
        {"user_id": "b", "item_id": "y", "type": "click", "ts": 8_000},
    ]
    file = tmp_path / "shop.events.jsonl"
    file.write_bytes(b"\n".join(orjson.dumps(line) for line in lines))
    stream = read_stream(file)
    assert stream.name == "shop"
    assert stream.events.user.tolist() == [0, 1, 0]
    assert stream.events.item.tolist() == [0, 1, 1]
    assert stream.events.time.tolist() == [5_000, 6_000, 8_000]
    assert stream.events.value[0] == 4
    assert np.isnan(stream.events.value[1:]).all()
    assert len(read_stream(file, events=2)) == 2


def test_as_many_events_can_be_ranked_as_the_product_ranks(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    file = tmp_path / "shop.events.jsonl"
    drawn = zip(rng.geometric(0.01, 1_500).tolist(), rng.geometric(0.01, 1_500).tolist(), strict=True)
    file.write_bytes(
        b"\n".join(
            orjson.dumps({"user_id": f"u{user}", "item_id": f"i{item}", "type": "click", "ts": 1_000 * at})
            for at, (user, item) in enumerate(drawn)
        )
    )
    reading = open_reading(file, "events", DecodeRules())
    product = evaluate_file(reading, Learner(NEW_MODEL))
    reading.file.close()
    assert len(eligible(read_stream(file))) == product.ranked > 500
