"""How long until a deleted item has left all lists, and what does that cost whenever a list is written?

A Redis of its own with a million lists of 50 items, of users in four partitions, all swept by one scorer's sweeper.
Items are deleted that few lists hold, or one in a hundred, one in ten, all of them; a thousand at once; and one that no
list holds, which is the reading of the index. Writing is by groups of 64 lists, with and without their entries in the
index, in turns. Redis needs 3.5 GB for a million lists.

Two cores that six others were using too (load 3 to 6), Redis 7.0, a million lists:

    no list holds it     2.7 s
    one in a thousand    3.0 s
    one in a hundred     3.9 s
    one in ten           5.9 s
    all                 39 s, of which Redis worked for 8 s and the sweeper for 10 s
    a thousand at once  33 s: 370,000 lists held one of them
    writing a list      11 us more, of which Redis 0.5 us, beside the 110 us (of 1,000 items) that one takes to make
    memory              272 bytes of the 3,481 that a list takes

With cores of their own, Redis and sweeper work at the same time; several scorers share the lists of all partitions,
until Redis has all it can do, at 120,000 lists a second.
"""

import argparse
import platform
import random
import statistics
import time
from collections.abc import Iterator, Sequence

from consumers.records import TopicPartition
from model_store.redis_connection import RedisConnection, connect
from service.metrics import ScorerMetrics
from service.scoring.list_store import ListStore, UserList
from service.scoring.recommendations import list_json
from service.scoring.sweeper import Sweeper
from tests.redis_server import redis_server

PARTITIONS = [TopicPartition("events", n) for n in range(4)]
ITEMS = [f"i{n}" for n in range(100_000)]
KINDS = 5000  # different lists, which come again and again
K, GROUP = 50, 64
SHARES = {"one in a thousand": 1000, "one in a hundred": 100, "one in ten": 10, "all": 1}
MARKS = {every: f"listed-by-{name.replace(' ', '-')}" for name, every in SHARES.items()}


def lists(count: int) -> Iterator[UserList]:
    """`count` lists; the items of MARKS are in one of so many."""
    rng = random.Random(1)
    kinds = []
    for _ in range(KINDS):
        ranked = [(item, rng.gauss(0, 3)) for item in rng.sample(ITEMS, K - len(MARKS))]
        kinds.append(ranked)
    through = {"events": {str(where.partition): 1_234_567 for where in PARTITIONS}}
    for n in range(count):
        ranked = list(kinds[rng.randrange(KINDS)])
        for every, mark in MARKS.items():
            ranked.insert(rng.randrange(len(ranked)), (mark if n % every == 0 else f"{mark}-not", 1.5))
        raw = list_json(
            f"user-{n}",
            ranked,
            model_version=118,
            trained_through=through,
            events_seen=17,
            generated_at="2026-01-05T10:00:00.123Z",
        )
        yield UserList(f"user-{n}", [item for item, _ in ranked], raw, [PARTITIONS[n % len(PARTITIONS)]])


def groups(made: Iterator[UserList]) -> Iterator[list[UserList]]:
    group: list[UserList] = []
    for each in made:
        group.append(each)
        if len(group) == GROUP:
            yield group
            group = []
    if group:
        yield group


def used(connection: RedisConnection) -> int:
    memory: int = connection.call("INFO", "memory")["used_memory"]
    return memory


def microseconds_a_list(store: ListStore, written: Sequence[list[UserList]]) -> float:
    began = time.perf_counter()
    for group in written:
        store.write_lists(group)
    return 1e6 * (time.perf_counter() - began) / sum(map(len, written))


def writing(store: ListStore) -> None:
    indexed = list(groups(lists(20 * GROUP)))
    bare = [[each._replace(partitions=[]) for each in group] for group in indexed]
    pairs = [(microseconds_a_list(store, bare), microseconds_a_list(store, indexed)) for _ in range(30)]
    without, with_entry = (statistics.median(column) for column in zip(*pairs, strict=True))
    more = statistics.median(b - a for a, b in pairs)
    print(f"writing a list: {without:.1f} us, with its entry {with_entry:.1f} us: {more:.1f} us more", flush=True)


def deleting(sweeper: Sweeper, what: str, items: set[str]) -> None:
    sweeper.sweep_soon(items)
    began = time.perf_counter()
    swept = sweeper.sweep()
    print(f"deleted, {what}: {swept} lists in {time.perf_counter() - began:.1f} s", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--lists", type=int, default=1_000_000)
    args = parser.parse_args()
    print(f"{platform.machine()}, {args.lists} lists of {K} items", flush=True)
    with redis_server() as server:
        connection = connect(server.url, timeout=60)
        store = ListStore(connection, "bench", recs_ttl_s=604_800, history_ttl_s=604_800)
        before = used(connection)
        for group in groups(lists(args.lists)):
            store.write_lists(group)
        each = (used(connection) - before) / args.lists
        entries = sum(connection.call("MEMORY", "USAGE", f"bench:listed:events:{n}") for n in range(len(PARTITIONS)))
        print(f"Redis: {each:.0f} bytes a list, of which its entry {entries / args.lists:.0f}", flush=True)
        sweeper = Sweeper(store, ScorerMetrics())
        sweeper.take_over(PARTITIONS, set())
        sweeper.sweep()
        deleting(sweeper, "no list holds it", {"nowhere"})
        for name, every in SHARES.items():
            deleting(sweeper, f"{name} hold it", {MARKS[every]})
        deleting(sweeper, "a thousand items at once", set(ITEMS[:1000]))
        writing(store)
        connection.close()


if __name__ == "__main__":
    main()
