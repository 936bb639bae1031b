"""How long the feeder has been silent. Pure: times are passed in.

Only time in which somebody listened counts. While the trainer learns, or is held up, messages wait in the pipe, and the
next one is there as soon as it listens again.
"""

SAID_AFTER_S = 5.0  # a status comes every second, and a busy machine may let a process starve for some
KILLED_AFTER_S = 30.0  # longer than any call of its Kafka client may take (10 s), twice over
_SHOWN_BY_S = 5  # the step by which the silence shown grows: each change of a check is a line of the log


class Heartbeat:
    def __init__(self) -> None:
        self.silent_s = 0.0

    def heard(self) -> None:
        self.silent_s = 0.0

    def listened(self, seconds: float, asked_s: float) -> None:
        """Nothing came in so many seconds of listening. Where they are many times what was asked for, it is the
        listener that was held up (a machine suspended, say), and that says nothing of the feeder."""
        self.silent_s += min(seconds, 5 * asked_s)

    @property
    def trouble(self) -> str | None:
        """What is to be said of it; None as long as all is well."""
        if self.silent_s < SAID_AFTER_S:
            return None
        shown = int(self.silent_s) // _SHOWN_BY_S * _SHOWN_BY_S
        return f"the feeder has been silent for {shown} s (it is replaced after {KILLED_AFTER_S:g} s)"

    @property
    def is_dead(self) -> bool:
        """Whether it has been silent for so long that another one should take its place."""
        return self.silent_s >= KILLED_AFTER_S
