"""Slices: which ranked events a figure is of. An event is in several, as bits of one number."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from service.training.evaluation.stream_counts import Before

UNBOUNDED = 1 << 40


@dataclass(frozen=True, slots=True)
class Slice:
    """The events of which `column` of `Before` is from `least` to `most`."""

    name: str  # in JSON
    words: str  # in the table
    column: str
    least: int
    most: int = UNBOUNDED


SLICES = (
    Slice("items_0", "item had no event", "item_events", 0, 0),  # it was in the catalogue
    Slice("items_1_4", "item had 1-4 events", "item_events", 1, 4),
    Slice("items_5_up", "item had 5 or more", "item_events", 5),
    Slice("novel", "item is novel for the user", "repeated", 0, 0),
    Slice("repeated", "item is repeated by the user", "repeated", 1),
    Slice("new_users", "user had 1-2 events", "user_events", 1, 2),
    Slice("history_0_1", "history of 0-1 items", "history", 0, 1),
    Slice("history_2", "history of 2 items", "history", 2, 2),
    Slice("history_3_4", "history of 3-4 items", "history", 3, 4),
    Slice("history_5_8", "history of 5-8 items", "history", 5, 8),
    Slice("history_9_up", "history of 9 or more", "history", 9),
)


def slices_of(before: Before, place: NDArray[np.int64]) -> NDArray[np.uint16]:
    """[m] the slices of the events at these places [m] of the batch: bit k is set for SLICES[k]."""
    bits = np.zeros(len(place), np.uint16)
    for k, each in enumerate(SLICES):
        value = getattr(before, each.column)[place]
        bits |= ((each.least <= value) & (value <= each.most)).astype(np.uint16) << np.uint16(k)
    return bits


def inside(bits: NDArray[np.uint16], k: int) -> NDArray[np.bool_]:
    """[m] which events are in SLICES[k]."""
    found: NDArray[np.bool_] = (bits >> np.uint16(k)) & 1 == 1
    return found


def names_of(bits: int) -> list[str]:
    """The names of one event's slices.

    >>> names_of(0b1010)
    ['items_1_4', 'novel']
    """
    return [each.name for k, each in enumerate(SLICES) if bits >> k & 1]
