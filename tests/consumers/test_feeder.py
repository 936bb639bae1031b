"""The loop, step by step in memory."""

from consumers.dead_letters import MemoryDeadLetters
from consumers.feeder import FeederConfig, FeederLoop
from consumers.letters import Refused
from consumers.memory_source import MemoryLog, MemorySource
from consumers.micro_batch import MicroBatch
from consumers.pipe import FeederStatus, Received
from consumers.records import OffsetRange, TopicPartition
from tests.consumers.samples import NOW_MS, event_json, item_json


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


class Sent:
    """A sender that keeps what it is given."""

    def __init__(self) -> None:
        self.messages: list[Received] = []

    def send(self, message: Received) -> None:
        self.messages.append(message)

    @property
    def batches(self) -> list[MicroBatch]:
        return [m for m in self.messages if isinstance(m, MicroBatch)]

    @property
    def statuses(self) -> list[FeederStatus]:
        return [m for m in self.messages if isinstance(m, FeederStatus)]


class SlowDeadLetters(MemoryDeadLetters):
    """Delivers at the third time of asking."""

    asked = 0
    waits_for = "leader moves"

    def flush(self, timeout_s: float) -> bool:
        self.asked += 1
        return not self.letters or self.asked > 2


class World:
    def __init__(self, config: FeederConfig | None = None, dead_letters: MemoryDeadLetters | None = None) -> None:
        self.log, self.clock, self.sent = MemoryLog(), Clock(), Sent()
        self.log.create("events", 2)
        self.log.create("items", 1)
        self.dead_letters = dead_letters or MemoryDeadLetters()
        self.config = config or FeederConfig("", batch_events=4)

    def loop(self) -> FeederLoop:
        source = MemorySource(self.log)
        return FeederLoop(self.config, source, self.dead_letters, self.sent, self.clock, lambda: NOW_MS)


def test_all_items_are_handed_on_before_the_first_event() -> None:
    world = World()
    world.log.append("events", event_json(), b"u1")
    for k in range(6):
        world.log.append("items", item_json(item_id=f"i{k}"), f"i{k}".encode())
    loop = world.loop()
    for _ in range(4):
        loop.step()
        world.clock.now += 0.05
    *catalogue, first = world.sent.batches
    assert sum(len(batch.catalogue) for batch in catalogue) == 6
    assert [len(batch) for batch in catalogue] == [0, 0]
    assert len(first) == 1
    read = [m for m in world.sent.messages if isinstance(m, FeederStatus) and m.items_read]
    assert world.sent.messages.index(read[0]) == world.sent.messages.index(first) - 1


def test_a_due_batch_leaves_though_nothing_follows() -> None:
    world = World()
    loop = world.loop()
    loop.step()
    world.log.append("events", event_json(), b"u1")
    loop.step()
    assert world.sent.batches == []
    world.clock.now += 0.05
    loop.step()
    assert len(world.sent.batches) == 1


def test_a_status_comes_every_second_with_the_ends() -> None:
    world = World()
    loop = world.loop()
    world.log.append("events", event_json(), b"u1", partition=1)
    for _ in range(30):
        loop.step()
        world.clock.now += 0.1
    assert 3 <= len(world.sent.statuses) <= 5
    last = world.sent.statuses[-1]
    assert last.healthy
    assert last.items_read
    ends = {("events", 0): 0, ("events", 1): 1, ("items", 0): 0}
    assert last.end_offsets == {TopicPartition(*p): end for p, end in ends.items()}


def test_a_batch_waits_for_the_dead_letters_of_its_records_and_says_so() -> None:
    world = World(dead_letters=SlowDeadLetters())
    loop = world.loop()
    loop.step()
    world.log.append("events", b"junk", b"u1")
    loop.step()
    world.clock.now += 0.05
    loop.step()
    (batch,) = world.sent.batches
    assert batch.rejected == {"not_json": 1}
    assert [letter.value for letter in world.dead_letters.letters] == [b"junk"]
    waiting = [s for s in world.sent.statuses if not s.healthy]
    assert waiting[-1].message == "dead letters wait for the broker: leader moves"
    assert world.sent.messages.index(waiting[-1]) < world.sent.messages.index(batch)


def test_what_is_refused_for_good_goes_before_the_batch_that_covers_it_and_holds_nothing_up() -> None:
    world = World(dead_letters=MemoryDeadLetters(lambda letter: "no key" if letter.key is None else ""))
    loop = world.loop()
    loop.step()
    world.log.append("events", b"junk", None, partition=0)
    for value in (b"rubbish", event_json(), event_json(), b"junk too", event_json(), event_json(), event_json()):
        world.log.append("events", value, None if value == b"junk too" else b"u1", partition=0)
    loop.step()
    world.clock.now += 0.05
    loop.step()
    order = [
        [r.end for r in m.ranges] if isinstance(m, MicroBatch) else m.letter.value
        for m in world.sent.messages
        if not isinstance(m, FeederStatus)
    ]
    assert order == [b"junk", b"junk too", [7], [8]]
    assert [m.error for m in world.sent.messages if isinstance(m, Refused)] == ["no key", "no key"]
    assert [letter.value for letter in world.dead_letters.letters] == [b"rubbish"]
    assert all(status.healthy for status in world.sent.statuses)


def test_reading_goes_on_at_the_start_offsets_and_counts_what_expired() -> None:
    start = {TopicPartition("events", 0): 2, TopicPartition("items", 0): 1}
    world = World(FeederConfig("", start=start))
    for k in range(9):
        world.log.append("events", event_json(event_id=str(k)), b"u1", partition=0)
    world.log.append("items", item_json(), b"i1")
    world.log.expire(TopicPartition("events", 0), 5)
    loop = world.loop()
    for _ in range(3):
        loop.step()
        world.clock.now += 0.05
    ranges = [r for batch in world.sent.batches for r in batch.ranges]
    assert ranges == [OffsetRange("events", 0, 5, 9)]
    assert sum(b.expired.get(TopicPartition("events", 0), 0) for b in world.sent.batches) == 3
    assert sum(len(b) for b in world.sent.batches) == 4


def test_offsets_reach_the_end_of_a_log_of_transactions() -> None:
    world = World()
    loop = world.loop()
    loop.step()
    for number in range(2):
        world.log.append("events", event_json(event_id=str(number)), b"u1", partition=0)
        world.log.mark("events", 0)
    world.log.mark("events", 1)
    loop.step()
    world.clock.now += 0.05
    loop.step()
    (batch,) = world.sent.batches
    assert batch.ranges == (OffsetRange("events", 0, 0, 4), OffsetRange("events", 1, 0, 1))
    assert (len(batch), batch.records) == (2, 2)


def test_a_config_travels_as_json() -> None:
    config = FeederConfig(
        "a:1,b:2",
        start={TopicPartition("é", 3): 2**60},
        event_types={"view": 0.5},
        kafka={"ssl.ca.location": "x", "n": 1},
    )
    assert FeederConfig.from_json(config.to_json()) == config
