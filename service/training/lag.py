"""How far learning is behind Kafka. Pure: times are passed in."""

from consumers.records import Offsets, TopicPartition


class Lag:
    def __init__(self, trained_through: Offsets) -> None:
        """trained_through: looked at anew each time, so it may grow."""
        self._trained_through = trained_through
        self._ends: dict[TopicPartition, int] = {}
        self._newest_ms = 0  # Kafka's time of the newest record taken in

    def ends(self, offsets: Offsets) -> None:
        """The partitions' ends, as just heard."""
        self._ends.update(offsets)

    def took(self, kafka_ms: int) -> None:
        """A record of that Kafka time (epoch milliseconds) was taken in."""
        self._newest_ms = max(self._newest_ms, kafka_ms)

    def of_partitions(self) -> dict[TopicPartition, int]:
        """Records not yet taken in, by what was heard last."""
        done = self._trained_through
        return {where: max(0, end - done.get(where, 0)) for where, end in self._ends.items()}

    def events(self) -> int:
        """The same of all partitions."""
        return sum(self.of_partitions().values())

    def seconds(self, now_s: float, unheard_s: float = 0.0) -> float:
        """Age of the newest record taken in, 0 at the end.

        now_s: epoch seconds. unheard_s: how long nobody has heard where the ends are: there may be records as old.
        """
        age = now_s - self._newest_ms / 1000 if self.events() and self._newest_ms else 0.0
        return max(age, unheard_s, 0.0)
