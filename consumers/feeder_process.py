"""The feeder as a separate process: its start, its end, and the parent's handle of it.

Decoding at full rate in the trainer's process would leave the Python interpreter no time for learning. The parent
starts the feeder with `start_feeder` and receives micro-batches. While the pipe is full the feeder does not poll: that
is the back-pressure.

The feeder never outlives its parent: when the parent is gone, however it ended, the feeder reads the end of their
connection and exits. Signals to the process group do not reach it, so that on Ctrl-C the parent can end it in order.
"""

import contextlib
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from multiprocessing.connection import Connection
from pathlib import Path

import orjson

from consumers.dead_letters import KafkaDeadLetters
from consumers.feeder import FeederConfig, FeederLoop
from consumers.kafka_source import KafkaSource
from consumers.logs import start_logging
from consumers.pipe import ParentDied, PipeReceiver, PipeSender, Received
from consumers.records import Offsets, TopicPartition, offsets_in, offsets_out

_EXIT_AFTER_S = 3.0  # after the parent's death the process exits, whatever it is doing


def run(config: FeederConfig, connection: Connection) -> None:
    """The feeder process: reads until the parent's end of `connection` is closed."""
    orders = _Orders(connection)
    source = KafkaSource(config.bootstrap, config.group_id, extra=config.kafka)
    dead_letters = KafkaDeadLetters(config.bootstrap, extra=config.kafka)
    try:
        loop = FeederLoop(config, source, dead_letters, PipeSender(connection))
        while not orders.ended:
            loop.step()
            source.commit(orders.take_commit())
    except ParentDied:
        pass
    finally:
        source.close()
        dead_letters.close()


class _Orders:
    """What the parent sends, received on a thread: offsets to commit, and the end of the connection."""

    def __init__(self, connection: Connection) -> None:
        self.ended = False
        self._connection = connection
        self._parent = os.getppid()
        self._lock = threading.Lock()
        self._commit: dict[TopicPartition, int] = {}
        threading.Thread(target=self._listen, name="feeder-orders", daemon=True).start()

    def take_commit(self) -> Offsets:
        with self._lock:
            commit, self._commit = self._commit, {}
        return commit

    def _listen(self) -> None:
        # The parent's id is checked too: a process that the parent forked may hold its end of the connection open.
        with contextlib.suppress(EOFError, OSError):
            while os.getppid() == self._parent:
                if self._connection.poll(1.0):
                    offsets = offsets_in(orjson.loads(self._connection.recv_bytes()))
                    with self._lock:
                        self._commit.update(offsets)
        self.ended = True
        time.sleep(_EXIT_AFTER_S)
        os._exit(1)


class Feeder:
    """The parent's handle of a feeder process."""

    def __init__(self, process: subprocess.Popen[bytes], connection: Connection, capacity: int) -> None:
        self._process = process
        self._connection = connection
        self._receiver = PipeReceiver(connection, capacity)

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    def receive(self, timeout_s: float) -> Received | None:
        """The next message, or None after `timeout_s` seconds. Raises FeederDied once everything sent is received."""
        return self._receiver.receive(timeout_s)

    def commit(self, offsets: Offsets) -> None:
        """Ask the feeder to commit `offsets`, for monitoring. Does not wait, and does nothing if the feeder is dead."""
        with contextlib.suppress(OSError):
            self._connection.send_bytes(orjson.dumps(offsets_out(offsets)))

    def stop(self, timeout_s: float = 5.0) -> None:
        """End the process; kill it if it has not ended after `timeout_s` seconds. May be called twice."""
        self._receiver.close()
        try:
            self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def start_feeder(config: FeederConfig, capacity: int = 8) -> Feeder:
    """Start a feeder process. At most `capacity` batches wait on this side (see `PipeReceiver`)."""
    ours, theirs = socket.socketpair()
    with theirs:
        process = subprocess.Popen(
            [sys.executable, "-m", "consumers.feeder_process", str(theirs.fileno())],
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            start_new_session=True,
            env=os.environ | {"PYTHONPATH": _python_path()},
        )
    connection = Connection(ours.detach())
    with contextlib.suppress(OSError):  # the process is dead already: the first `receive` raises FeederDied
        connection.send_bytes(config.to_json())
    return Feeder(process, connection, capacity)


def _python_path() -> str:
    """Lets the child import this package where it is not installed."""
    here = str(Path(__file__).resolve().parent.parent)
    return os.pathsep.join([here, *filter(None, [os.environ.get("PYTHONPATH")])])


def main() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # a service manager sends it to all processes; the parent decides
    start_logging("feeder", logging.WARNING)
    connection = Connection(int(sys.argv[1]))
    try:
        config = FeederConfig.from_json(connection.recv_bytes())
    except EOFError:
        return
    run(config, connection)


if __name__ == "__main__":
    main()
