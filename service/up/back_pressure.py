"""How far publishing may run ahead of learning."""

import threading
from collections.abc import Callable

from consumers.producer import KafkaPublisher
from service.up.figures import Figures, outstanding

# The embedded Kafka keeps about 5 MB a partition, of four, and forgets what is older. Publishing waits while more than
# this is not yet learned from: a half of it, for partitions are not filled evenly.
EMBEDDED_BYTES = 10_000_000
_CHECK_EVERY = 100  # events
_LOOK_AGAIN = 0.05  # seconds


class BackPressure:
    """Publishes, and waits while more than `limit_bytes` of the events are not yet learned from. Used by one thread."""

    def __init__(
        self,
        publisher: KafkaPublisher,
        topic: str,  # of events; what goes elsewhere (the catalogue) is never held up
        figures: Callable[[], Figures],  # how far learning has come
        limit_bytes: float,
        stop: threading.Event,  # ends every wait
    ) -> None:
        self._publisher = publisher
        self._topic = topic
        self._figures = figures
        self._limit_bytes = limit_bytes
        self._stop = stop
        self._sent = 0  # events handed to Kafka's client

    def publish(self, topic: str, key: str, value: bytes) -> None:
        """Hand over one record, and wait while there is too much. Raises PublishError."""
        self._publisher.publish(topic, key, value, stopped=self._stop.is_set)
        if topic != self._topic:
            return
        self._sent += 1
        if self._sent % _CHECK_EVERY == 0:
            while self._too_far_ahead() and not self._stop.wait(_LOOK_AGAIN):
                self._publisher.poll()

    def _too_far_ahead(self) -> bool:
        return behind_bytes(self._publisher, self._topic, self._figures()) > self._limit_bytes


def behind_bytes(publisher: KafkaPublisher, topic: str, figures: Figures) -> float:
    """Roughly how much of what was published lies in Kafka and is not yet learned from, or not read by scorers."""
    delivered = publisher.delivered[topic]
    if delivered == 0:
        return 0.0
    behind = outstanding(publisher.ends.get(topic, {}), figures.trained_through.get(topic, {}))
    return max(behind, figures.scorer_lag or 0.0) * publisher.delivered_bytes[topic] / delivered
