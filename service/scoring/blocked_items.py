"""Which items may not be listed now. Every scorer reads all of `items`, from the beginning, before its first list."""

from consumers.decode import DecodeRules, decode
from consumers.micro_batch import ItemChange
from consumers.source import EventSource, SourceStatus
from consumers.times import now_ms


class BlockedItems:
    """`ids`: the items whose latest word on the topic is that they are deleted or not available.

    What the topic no longer tells, because compaction has dropped a deletion, the model's own flags still know.
    Records that do not fit are left to the trainer's side, which writes the dead letters.
    """

    def __init__(self, source: EventSource, topic: str, rules: DecodeRules) -> None:
        self.ids: set[str] = set()
        self.changes = 0  # how often `ids` has gained or lost an item
        self._source, self._rules = source, rules
        source.assign({topic: {}})

    @property
    def caught_up(self) -> bool:
        return self._source.caught_up

    @property
    def status(self) -> SourceStatus:
        return self._source.status

    def poll(self, timeout_s: float = 0.0) -> set[str]:
        """Takes in what is new; the items that have become blocked by it."""
        newly: set[str] = set()
        records = self._source.poll(5000, timeout_s)
        self._source.take_expired()  # of a compacted topic: nothing that still holds
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
