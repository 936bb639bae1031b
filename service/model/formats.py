"""What earlier releases wrote, in the form of this release: configurations, and the names of tables and tensors.

A model of any release can be continued, read and verified. tests/golden/models holds one model of each form ever
written. A change of what is written adds a step here and a file there.

Form 1 has manifests with a flat `config`. In it the blend's parameters are part of the network and share its optimizer,
and one tensor holds all counters.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from model_store.weights import State, Update

LATER_TABLES = frozenset({"trainer/user/last", "trainer/item/since", "trainer/unlisted/id", "trainer/unlisted/since"})
"""Tables that models of earlier releases lack: they begin empty."""

FLAT_NETWORK = ("lag_weight", "in_weight", "in_bias", "out_weight", "out_bias")
FLAT_BLEND = ("log_scale", "prior", "repeat")
_SECTIONS_OF_FLAT = {
    "history": {"history": "length", "event_weights": "event_weights", "rating_scale": "rating_scale"},
    "limits": {"max_items": "max_items", "max_users": "max_users"},
    "popularity": {"half_lives": "half_lives"},
    "blend": {"scale": "scale", "scalar_rate": "rate"},
    "network": {
        "dim": "dim",
        "hidden": "hidden",
        "negatives": "negatives",
        "row_rate": "row_rate",
        "dense_rate": "dense_rate",
        "scalar_rate": "lag_rate",
        "decay": "decay",
        "replay_capacity": "replay_capacity",
        "replay_recent": "replay_recent",
        "replay_recent_share": "replay_recent_share",
        "dropout": "dropout",
    },
}


def is_flat(config: Mapping[str, Any]) -> bool:
    return "channels" not in config and "half_lives" in config


def sections_of(config: Mapping[str, Any]) -> dict[str, Any]:
    """A manifest's configuration in sections, one a channel. Unknown fields stay at the top, where they are refused."""
    if not is_flat(config):
        return dict(config)
    given = {name: value for name, value in config.items() if value not in ([], "")}
    known = {name for fields in _SECTIONS_OF_FLAT.values() for name in fields}
    made: dict[str, Any] = {name: value for name, value in given.items() if name not in known}
    parts = {
        section: {to: given[name] for name, to in fields.items() if name in given}
        for section, fields in _SECTIONS_OF_FLAT.items()
    }
    channels = {name: parts.pop(name) for name in ("popularity", "network")}
    return {**made, **parts, "channels": channels}


def upgraded(update: Update) -> Update:
    """An update with the names of this release; the same object where it has them already."""
    tensors = update.tensors
    if "network/log_scale" not in tensors and "trainer/counters" not in tensors:
        return update
    made = {_RENAMED.get(name, name): tensor for name, tensor in tensors.items() if name not in _TAKEN_APART}
    if "trainer/optimizer/first" in tensors:
        at = sum(tensors[f"network/{name}"].size for name in FLAT_NETWORK)
        for moment in ("first", "second"):
            both = tensors[f"trainer/optimizer/{moment}"]
            made[f"trainer/network/{moment}"], made[f"trainer/blend/{moment}"] = both[:at], both[at:]
    if "trainer/counters" in tensors:
        steps, written, of_optimizer = (np.asarray(tensors["trainer/counters"])[n : n + 1] for n in range(3))
        made |= {"trainer/steps": steps, "trainer/replay/written": written}
        made |= {"trainer/network/steps": of_optimizer, "trainer/blend/steps": of_optimizer}
    return Update(update.full, update.tables, made)


def upgraded_state(state: State) -> State:
    """A state with the names of this release: a copy where it had others, else the same object."""
    update = state.snapshot()
    if (today := upgraded(update)) is update:
        return state
    made = State()
    made.apply(today)
    return made


def as_flat(update: Update) -> Update:
    """An update's weights with the names of form 1, as a release of that form would have published them."""
    back = {today: then for then, today in _RENAMED.items()}
    return Update(update.full, update.tables, {back.get(name, name): tensor for name, tensor in update.tensors.items()})


_RENAMED = {f"network/{name}": f"blend/{name}" for name in FLAT_BLEND}
_TAKEN_APART = {"trainer/optimizer/first", "trainer/optimizer/second", "trainer/counters"}
