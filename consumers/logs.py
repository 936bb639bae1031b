"""The log of a process: lines on stderr with the time in UTC, without the repetitions of librdkafka.

A client without a broker logs some twenty lines a second, whatever its backoff: gigabytes in a week.
"""

import logging
import re
import sys
import threading
import time
from collections.abc import Callable

REPEAT_S = 30.0
_KINDS = 1000  # how many kinds of message are remembered


class Unrepeated(logging.Filter):
    """Lets each kind of message pass once in `every_s` seconds; the next one says how many were left out.

    Messages that differ only in numbers (ports, milliseconds, the client's number) are of one kind.
    """

    def __init__(self, every_s: float = REPEAT_S, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._every_s, self._clock = every_s, clock
        self._said: dict[str, tuple[float, int]] = {}  # message without numbers -> when it passed, left out since
        self._lock = threading.Lock()

    def filter(self, record: logging.LogRecord) -> bool:
        text, now = record.getMessage(), self._clock()
        kind = re.sub(r"\d+", "0", text)
        with self._lock:
            at, left_out = self._said.pop(kind, (-self._every_s, 0))
            passes = now - at >= self._every_s
            self._said[kind] = (now, 0) if passes else (at, left_out + 1)
            if len(self._said) > _KINDS:
                del self._said[next(iter(self._said))]
        if passes and left_out:
            record.msg, record.args = f"{text} ({left_out} more like it since {now - at:.0f} s ago)", ()
        return passes


librdkafka = logging.getLogger("librdkafka")
"""The `logger` of every librdkafka client."""

librdkafka.addFilter(Unrepeated())


def start_logging(process: str, level: str | int) -> None:
    """Set up the root logger. To be called once, in a process's entry point."""
    handler = logging.StreamHandler(sys.stderr)
    formatter = logging.Formatter(f"%(asctime)s.%(msecs)03dZ {process} %(levelname)s %(message)s", "%Y-%m-%dT%H:%M:%S")
    formatter.converter = time.gmtime
    handler.setFormatter(formatter)
    logging.basicConfig(level=level, handlers=[handler], force=True)
