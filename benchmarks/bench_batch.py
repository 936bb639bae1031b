"""How fast do decoded events become columns, and columns cross the pipe between two processes' ends?"""

import platform
import threading
import time
from multiprocessing import Pipe

from benchmarks.bench_decode import POLL, ROUNDS, N, records
from consumers.batcher import MicroBatcher
from consumers.decode import DecodeRules, decode
from consumers.micro_batch import MicroBatch
from consumers.pipe import PipeReceiver, PipeSender


def main() -> None:
    everything = records()
    rules, now_ms = DecodeRules(), 1_767_700_000_000
    polls = [decode(everything[at : at + POLL], rules, now_ms) for at in range(0, N, POLL)]
    best_batch = best_pipe = 0.0
    batches: list[MicroBatch] = []
    for _ in range(ROUNDS):
        batcher = MicroBatcher(1024, 0.05, list(rules.event_types), time.monotonic)
        start = time.perf_counter()
        batches = [batch for poll in polls for batch in batcher.add(poll)]
        best_batch = max(best_batch, sum(map(len, batches)) / (time.perf_counter() - start))
        best_pipe = max(best_pipe, through_pipe(batches))
    print(f"batch (accepted event -> MicroBatch)  {best_batch:>10,.0f} events/s a core")
    print(f"pipe (MicroBatch -> MicroBatch)       {best_pipe:>10,.0f} events/s, both ends in one process")
    print(f"machine: {platform.processor() or platform.machine()}, Python {platform.python_version()}")


def through_pipe(batches: list[MicroBatch]) -> float:
    """Events a second from a sender to a receiver."""
    ours, theirs = Pipe()
    receiver, sender = PipeReceiver(ours), PipeSender(theirs)

    def send() -> None:
        for batch in batches:
            sender.send(batch)

    start = time.perf_counter()
    sending = threading.Thread(target=send)
    sending.start()
    received = 0
    for _ in batches:
        batch = receiver.receive(10)
        assert isinstance(batch, MicroBatch)
        received += len(batch)
    took = time.perf_counter() - start
    sending.join()
    receiver.close()
    theirs.close()
    return received / took


if __name__ == "__main__":
    main()
