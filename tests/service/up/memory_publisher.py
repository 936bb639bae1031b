from collections.abc import Callable

from consumers.producer import KafkaPublisher


class MemoryPublisher(KafkaPublisher):
    """Everything is confirmed at once, in partition 0; no broker is asked."""

    def __init__(self) -> None:
        super().__init__("127.0.0.1:1")
        self.records: list[tuple[str, str, bytes]] = []
        self.polls = 0
        self.on_poll: Callable[[], None] = lambda: None

    def publish(self, topic: str, key: str, value: bytes, *, stopped: Callable[[], bool] = lambda: False) -> None:
        self.records.append((topic, key, value))
        self.delivered[topic] += 1
        self.delivered_bytes[topic] += len(value)
        self.ends[topic] = {0: self.delivered[topic]}

    def poll(self) -> None:
        self.polls += 1
        self.on_poll()
