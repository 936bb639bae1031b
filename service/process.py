"""What trainer and scorers do alike: their signals, and waiting for a neighbour that is not there."""

import queue
import signal
import sys
import threading
from collections.abc import Callable
from types import FrameType
from typing import TypeVar

from service.health import OK, Health

T = TypeVar("T")


class Fatal(RuntimeError):
    """The process cannot go on; the message is the one line its user sees, and the exit code is 1."""


class Unmendable(Fatal):
    """It would end so at each new start, until somebody decides; the message says between what."""


UNMENDABLE = 3  # the exit code for it towards a supervisor; a person's shell gets 1, as for all that fails


class WrongUsage(ValueError):
    """What a command was given makes no sense; the message is one line, and the exit code is 2."""


def stop_on_signals() -> threading.Event:
    """An event that SIGTERM and SIGINT set; a second one ends the process at once.

    Another thread sets it: a signal may arrive while the thread that it interrupts holds the event's own lock, and
    would wait for it for ever. What hands it over may be called amid itself.
    """
    stop, asked = threading.Event(), queue.SimpleQueue[int]()
    times = 0

    def on_signal(number: int, frame: FrameType | None) -> None:
        nonlocal times
        times += 1
        if times > 1 or stop.is_set():
            raise SystemExit(128 + number)
        asked.put(number)

    def hand_over() -> None:
        asked.get()
        stop.set()

    threading.Thread(target=hand_over, name="signals", daemon=True).start()
    signal.signal(signal.SIGTERM, on_signal)
    signal.signal(signal.SIGINT, on_signal)
    return stop


def kafka_words(error: Exception) -> str | None:
    """What an exception of Kafka's client says in words; None for any other. The client is not imported for it."""
    kafka = sys.modules.get("confluent_kafka")
    if kafka is None or not isinstance(error, kafka.KafkaException):
        return None
    cause = error.args[0] if error.args else error
    return str(cause.str() if isinstance(cause, kafka.KafkaError) else cause)


def wait_for(
    what: str,
    ask: Callable[[], T],
    errors: type[Exception] | tuple[type[Exception], ...],
    health: Health,
    stop: threading.Event,
) -> T | None:
    """`ask()` until it answers, every half second; None once `stop` is set. Meanwhile /health says what is missing."""
    while not stop.is_set():
        try:
            answer = ask()
        except errors as error:
            health.set(what, f"not usable yet: {kafka_words(error) or error}")
            stop.wait(0.5)
        else:
            health.set(what, OK)
            return answer
    return None
