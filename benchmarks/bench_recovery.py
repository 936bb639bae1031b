"""How long is nothing learned when the trainer is killed? From SIGKILL to the next version, and to one that knows more.

With a standby, and with a trainer that is started anew at once, as a service manager would; with the default settings,
while 200 events a second come in.
"""

import os
import platform
import random
import statistics
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import orjson

from tests.integration.world import MODEL, World, embedded_world, until

RATE = 200
ROUNDS = 4


@contextmanager
def _traffic(world: World) -> Iterator[None]:
    over = threading.Event()

    def send() -> None:
        rng = random.Random(1)
        while not over.wait(1 / RATE):
            user = rng.randrange(500)
            event = {"user_id": f"u{user}", "item_id": f"i{rng.randrange(300)}", "type": "click"}
            world.send(event | {"ts": int(time.time() * 1000)})

    sender = threading.Thread(target=send)
    sender.start()
    try:
        yield
    finally:
        over.set()
        sender.join()
        world.flush()


def _newest(world: World) -> dict[str, Any]:
    version = int(world.redis.call("GET", MODEL + "newest"))
    manifest: dict[str, Any] = orjson.loads(world.redis.call("GET", f"{MODEL}manifest:{version}"))
    return manifest


def _kill(world: World, trainer: subprocess.Popen[bytes], then: str) -> dict[str, float]:
    """Seconds after the kill, by what has come about."""
    world.kill(trainer)
    killed, last = time.monotonic(), _newest(world)
    if then == "restart":
        world.start("trainer")
    held, free = world.redis.pipeline([("GET", MODEL + "lease"), ("PTTL", MODEL + "lease")])
    until(lambda: world.redis.call("GET", MODEL + "lease") not in (None, held), 30, "the lease is taken")
    taken = time.monotonic() - killed
    until(lambda: _newest(world)["version"] > last["version"], 60, "the next version")
    version = time.monotonic() - killed
    until(lambda: _newest(world)["events_trained"] > last["events_trained"], 60, "more events learned")
    learned = time.monotonic() - killed
    return {"lease free": free / 1000, "lease taken": taken, "next version": version, "more events learned": learned}


def main() -> None:
    print(f"{platform.machine()}, {os.cpu_count()} cores")
    for then in ("standby", "restart"):
        with tempfile.TemporaryDirectory() as logs, embedded_world(Path(logs)) as world, _traffic(world):
            trainers = [world.start("trainer")]
            until(world.live, 60, "a first version")
            rounds = []
            for _ in range(ROUNDS):
                if then == "standby":
                    trainers.append(world.start("trainer"))
                    time.sleep(6)
                else:
                    time.sleep(4)
                rounds.append(_kill(world, trainers.pop(0), then))
                if then == "restart":
                    trainers.append(world.processes[-1])
            for what in rounds[0]:
                times = sorted(each[what] for each in rounds)
                print(f"{then}, {what}: median {statistics.median(times):.2f} s, longest {times[-1]:.2f} s")


if __name__ == "__main__":
    main()
