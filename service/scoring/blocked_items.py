"""The blocked items, which may not be listed. Every scorer reads all of `items` before its first list."""

from consumers.decode import DecodeRules, decode
from consumers.micro_batch import ItemChange
from consumers.source import EventSource, SourceStatus
from consumers.times import now_ms


class BlockedItems:
    """`ids`: the items whose latest record on the topic says that they are deleted or not available.

    Where compaction has dropped the record of a deletion, the model's own `item/listable` still knows of it. Records
    that do not fit are ignored here: the trainer's feeder writes their dead letters.
    """

    def __init__(self, source: EventSource, topic: str, rules: DecodeRules) -> None:
        self.ids: set[str] = set()
        self.changes = 0  # how often `ids` has gained or lost an item
        self._source, self._rules = source, rules
        source.assign({topic: {}})

    @property
    def caught_up(self) -> bool:
        """Whether the topic has been read to the end that it had at the start."""
        return self._source.caught_up

    @property
    def status(self) -> SourceStatus:
        return self._source.status

    def poll(self, timeout_s: float = 0.0) -> set[str]:
        """Reads new records. Returns the items that have become blocked by them."""
        newly: set[str] = set()
        records = self._source.poll(5000, timeout_s)
        self._source.take_expired()  # in a compacted topic, deleted records are outdated ones
        for change in decode(records, self._rules, now_ms()).outcomes:
            if not isinstance(change, ItemChange):
                continue
            blocked = change.deleted or not change.available
            self.changes += blocked != (change.item_id in self.ids)
            if blocked:
                newly.add(change.item_id)
                self.ids.add(change.item_id)
            else:
                newly.discard(change.item_id)
                self.ids.discard(change.item_id)
        return newly

    def close(self) -> None:
        self._source.close()
