"""Death at a named hop, brought in from outside: the product's methods are wrapped in the process that is to die.

A trainer or feeder started with `order(...)` in its environment dies by SIGKILL at the n-th passage of the hop. It dies
once: whoever dies leaves a mark first, and where the mark is, nobody dies again.
"""

import os
import signal
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

SITE = Path(__file__).with_name("site")
_VARIABLE = "TIDEMILL_TEST_KILL_AT"

Passed = Callable[[], None]
"""To be called at each passage of the hop."""


def order(hop: str, passage: int, mark: Path) -> dict[str, str]:
    """The environment of a trainer that is to die, or whose feeder is, at the n-th passage (from 1) of a hop."""
    assert hop in FEEDER_HOPS or hop in TRAINER_HOPS
    return {_VARIABLE: f"{hop}:{passage}:{mark}", "PYTHONPATH": os.pathsep.join([str(SITE), *filter(None, sys.path)])}


def arm() -> None:
    """Does in this process what the environment says; to be called before anything has begun."""
    if _VARIABLE not in os.environ:
        return
    hop, passage, mark = os.environ[_VARIABLE].split(":", 2)
    in_feeder = sys.orig_argv[1:3] == ["-m", "consumers.feeder_process"]
    hops = FEEDER_HOPS if in_feeder else TRAINER_HOPS
    if hop not in hops:
        return
    left = int(passage)

    def passed() -> None:
        nonlocal left
        left -= 1
        if left == 0:
            _die(Path(mark), trainer_too=hop.endswith("with the trainer"))

    hops[hop](passed)


def _die(mark: Path, trainer_too: bool) -> None:
    try:
        mark.touch(exist_ok=False)
    except FileExistsError:
        return
    if trainer_too:
        os.kill(os.getppid(), signal.SIGKILL)
    os.kill(os.getpid(), signal.SIGKILL)


def _before(owner: Any, name: str, passed: Passed, counts: Callable[..., bool] = lambda *_: True) -> None:
    """`passed` at each call of a function for whose arguments `counts` is true, before it is carried out."""
    original = getattr(owner, name)

    def wrapped(*args: Any, **named: Any) -> Any:
        if counts(*args):
            passed()
        return original(*args, **named)

    setattr(owner, name, wrapped)


def _after(owner: Any, name: str, passed: Passed, counts: Callable[[Any], bool] = lambda _: True) -> None:
    """`passed` at each return of a function for whose answer `counts` is true."""
    original = getattr(owner, name)

    def wrapped(*args: Any, **named: Any) -> Any:
        answer = original(*args, **named)
        if counts(answer):
            passed()
        return answer

    setattr(owner, name, wrapped)


def _after_poll(passed: Passed) -> None:
    from consumers.kafka_source import KafkaSource

    _after(KafkaSource, "poll", passed, bool)


def _before_send(passed: Passed) -> None:
    from consumers.micro_batch import MicroBatch
    from consumers.pipe import PipeSender

    _before(PipeSender, "send", passed, lambda _, message: isinstance(message, MicroBatch))


def _mid_learn(passed: Passed) -> None:
    """The ranker has learned, and no neighbour row has changed yet."""
    from service.model.neighbour_rows import NeighbourRows

    _before(NeighbourRows, "learn", passed)


def _before_manifest(passed: Passed) -> None:
    from model_store.redis_store import RedisStore

    _after(RedisStore, "put_blobs", passed)


def _before_pointer(passed: Passed) -> None:
    from model_store.redis_store import RedisStore

    _before(RedisStore, "move", passed)


def _after_pointer(passed: Passed) -> None:
    from model_store.redis_store import RedisStore

    _after(RedisStore, "move", passed)


def _before_commit(passed: Passed) -> None:
    from consumers.feeder_process import Feeder

    _before(Feeder, "commit", passed, lambda _, offsets: bool(offsets))


def _during_checkpoint(passed: Passed) -> None:
    """Half of a full version's blobs are in Redis. Only those of a full version hold every row."""
    from model_store.redis_store import RedisStore
    from service.training.publishing import release

    encode, put_blobs = vars(release)["encode"], RedisStore.put_blobs
    full = False

    def noting(update: Any, *args: Any, **named: Any) -> dict[str, bytes]:
        nonlocal full
        full = update.full
        blobs: dict[str, bytes] = encode(update, *args, **named)
        return blobs

    def by_halves(store: RedisStore, blobs: Mapping[str, bytes]) -> Any:
        if full:
            names = sorted(blobs)
            put_blobs(store, {name: blobs[name] for name in names[: len(names) // 2]})
            passed()
        return put_blobs(store, blobs)

    setattr(release, "encode", noting)  # noqa: B010
    setattr(RedisStore, "put_blobs", by_halves)  # noqa: B010


FEEDER_HOPS: dict[str, Callable[[Passed], None]] = {
    "after poll": _after_poll,
    "after poll, with the trainer": _after_poll,
    "before send": _before_send,
    "before send, with the trainer": _before_send,
}
TRAINER_HOPS: dict[str, Callable[[Passed], None]] = {
    "mid-learn": _mid_learn,
    "after the blobs, before the manifest": _before_manifest,
    "after the manifest, before the pointer": _before_pointer,
    "after the pointer": _after_pointer,
    "before the commit to Kafka": _before_commit,
    "during a checkpoint": _during_checkpoint,
}
