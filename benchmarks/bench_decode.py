"""How fast do records become accepted events, and then columns, on one core?"""

import platform
import random
import time

import orjson

from consumers.batcher import MicroBatcher
from consumers.decode import DecodeRules, decode
from consumers.records import Record
from consumers.times import iso

N = 100_000
POLL = 2048
ROUNDS = 5


def records(n: int = N) -> list[Record]:
    """Events as the demo shop's producers send them: every optional field that is common is there."""
    rng = random.Random(1)
    types = ["view"] * 8 + ["click", "purchase"]
    made = []
    for k in range(n):
        user = f"u{rng.randrange(20_000)}"
        event = {
            "user_id": user,
            "item_id": f"i{rng.randrange(5_000)}",
            "type": rng.choice(types),
            "ts": 1_767_600_000_000 + k,
            "event_id": f"e{k:012d}",
            "value": 1.0,
        }
        made.append(Record("events", k % 4, k // 4, event["ts"], user.encode(), orjson.dumps(event)))  # type: ignore[arg-type]
    return made


def with_every_field(record: Record) -> Record:
    event = orjson.loads(record.value or b"")
    more = {"session_id": "s1", "query": "a lamp", "context": {"page": 3, "device": "phone"}}
    return record._replace(value=orjson.dumps(event | more | {"ts": iso(event["ts"])}))


def main() -> None:
    everything = records()
    polls = [everything[at : at + POLL] for at in range(0, N, POLL)]
    rules, now_ms = DecodeRules(), 1_767_700_000_000
    full = [[with_every_field(record) for record in poll] for poll in polls]
    best_decode = best_full = best_both = 0.0
    for _ in range(ROUNDS):
        start = time.perf_counter()
        accepted = sum(len(decode(poll, rules, now_ms).outcomes) for poll in polls)
        best_decode = max(best_decode, accepted / (time.perf_counter() - start))

        start = time.perf_counter()
        accepted = sum(len(decode(poll, rules, now_ms).events) for poll in full)
        best_full = max(best_full, accepted / (time.perf_counter() - start))

        batcher = MicroBatcher(1024, 0.05, list(rules.event_types), time.monotonic)
        start = time.perf_counter()
        batched = sum(len(batch) for poll in polls for batch in batcher.add(decode(poll, rules, now_ms)))
        best_both = max(best_both, batched / (time.perf_counter() - start))
    print(f"decode (record -> accepted event)  {best_decode:>10,.0f} events/s a core (at least 150,000)")
    print(f"the same with every field there is {best_full:>10,.0f} events/s a core, and `ts` as text")
    print(f"decode and batch (-> MicroBatch)   {best_both:>10,.0f} events/s a core (at least 100,000)")
    print(f"machine: {platform.processor() or platform.machine()}, Python {platform.python_version()}")


if __name__ == "__main__":
    main()
