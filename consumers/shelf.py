"""Where dead letters wait that their topic refuses, until it takes them."""

from collections.abc import Sequence
from typing import Protocol

from consumers.letters import Refused

SHELF_LETTERS = 5_000
"""Of one topic, at most: 80 MB if each were as large as can be, one or two as they are. Beyond, the oldest go."""

LETTER_BYTES = 16_384
"""Of a value, at most. The whole record is where its letter's headers say, as long as Kafka keeps it."""


class ShelfAway(Exception):  # a state of the world, named for what happened
    """What is behind the shelf does not answer now; nothing is known of what was asked last."""


class Shelf(Protocol):
    """Letters by topic, each once for every time it was put there, the oldest first. Each method raises ShelfAway."""

    def put(self, refused: Refused) -> int:
        """Keep it, with at most LETTER_BYTES of its value. Returns how many older ones had to go."""

    def page(self, topic: str, n: int, after: str = "") -> Sequence[tuple[str, Refused]]:
        """Up to `n` letters of records of `topic`, the oldest first, each with its name; only what follows `after`."""

    def remove(self, topic: str, names: Sequence[str]) -> None:
        """These letters have been delivered. Names that are not there are no error."""

    def count(self, topic: str) -> int:
        """How many letters of this topic are here."""


def fitting(refused: Refused) -> Refused:
    """As a shelf keeps it: a key or headers that are as large themselves would not fit either."""
    letter = refused.letter.cut(LETTER_BYTES)
    around = len(letter.key or b"") + sum(len(name) + len(value or b"") for name, value in letter.headers)
    return Refused(letter.bare() if around > LETTER_BYTES else letter, refused.error)


class MemoryShelf:
    """For tests."""

    def __init__(self, capacity: int = SHELF_LETTERS) -> None:
        self._capacity = capacity
        self._letters: dict[str, dict[str, Refused]] = {}
        self._put = 0

    def put(self, refused: Refused) -> int:
        letters = self._letters.setdefault(refused.letter.topic, {})
        self._put += 1
        letters[str(self._put)] = fitting(refused)
        too_many = max(0, len(letters) - self._capacity)
        for name in list(letters)[:too_many]:
            del letters[name]
        return too_many

    def page(self, topic: str, n: int, after: str = "") -> Sequence[tuple[str, Refused]]:
        letters = self._letters.get(topic, {}).items()
        return [(name, refused) for name, refused in letters if int(name) > int(after or 0)][:n]

    def remove(self, topic: str, names: Sequence[str]) -> None:
        for name in names:
            self._letters.get(topic, {}).pop(name, None)

    def count(self, topic: str) -> int:
        return len(self._letters.get(topic, {}))
