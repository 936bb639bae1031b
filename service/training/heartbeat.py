"""How long the feeder has been silent. Pure: times are passed in.

Only time in which the trainer listened counts. While the trainer learns, or is held up, messages wait in the pipe.
"""

SAID_AFTER_S = 5.0  # a status comes every second, and on a busy machine some are late
KILLED_AFTER_S = 30.0  # three times the longest call of the feeder's Kafka client (10 s)
_SHOWN_BY_S = 5  # the silence is shown in steps of this, because each change of a health check is a line of the log


class Heartbeat:
    """`silent_s`: seconds of listening since the last message."""

    def __init__(self) -> None:
        self.silent_s = 0.0

    def heard(self) -> None:
        """A message has come."""
        self.silent_s = 0.0

    def listened(self, seconds: float, asked_s: float) -> None:
        """No message came in `seconds` of listening, where `asked_s` were asked for.

        Where `seconds` are many times `asked_s`, the trainer itself was held up (by a suspended machine, for example).
        That says nothing of the feeder, so it is counted as five times `asked_s` at most.
        """
        self.silent_s += min(seconds, 5 * asked_s)

    @property
    def trouble(self) -> str | None:
        """The line for /health; None as long as all is well."""
        if self.silent_s < SAID_AFTER_S:
            return None
        shown = int(self.silent_s) // _SHOWN_BY_S * _SHOWN_BY_S
        return f"the feeder has been silent for {shown} s (it is replaced after {KILLED_AFTER_S:g} s)"

    @property
    def is_dead(self) -> bool:
        """Whether the feeder has been silent for so long that it is to be replaced."""
        return self.silent_s >= KILLED_AFTER_S
