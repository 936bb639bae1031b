"""Where refused dead letters are kept until their topic takes them."""

from collections.abc import Sequence
from typing import Protocol

from consumers.letters import Refused

SHELF_LETTERS = 5_000
"""How many letters of one topic are kept: at most 80 MB, in practice one or two. Beyond that the oldest are dropped."""

LETTER_BYTES = 16_384
"""How much of a letter's value is kept. Its headers say where the whole record is in Kafka."""


class ShelfAway(Exception):  # a state of the world, named for what happened
    """The store behind the shelf does not answer; whether the last call took effect is unknown."""


class Shelf(Protocol):
    """Refused letters by topic, oldest first; a letter put twice is there twice. Every method may raise ShelfAway."""

    def put(self, refused: Refused) -> int:
        """Keep a letter, with at most LETTER_BYTES of its value. Returns how many older ones were dropped for it."""

    def page(self, topic: str, n: int, after: str = "") -> Sequence[tuple[str, Refused]]:
        """Up to `n` letters of records of `topic`, oldest first, each with its name on the shelf.

        after: a name; only letters behind it are returned.
        """

    def remove(self, topic: str, names: Sequence[str]) -> None:
        """Remove letters. Names that are not on the shelf are ignored."""

    def count(self, topic: str) -> int:
        """How many letters of this topic are kept."""


def fitting(refused: Refused) -> Refused:
    """The letter as a shelf keeps it: the value cut, key and headers left out if they are too large too."""
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
