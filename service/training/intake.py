"""Taking a batch in: which row each of its items has, and which of its events there is something to learn from.

Only tables of items and users are known here. Whoever else keeps rows of items is to forget the `expired` ones and to
begin the `begun` ones, in this order, between the two steps.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from consumers.micro_batch import MicroBatch
from service.model.history import keys_of
from service.model.item_table import ItemTable
from service.training.user_table import UserTable

Index = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Items:
    """The I items of a batch's events, in the order of `MicroBatch.items`, and what became of other rows."""

    row: Index  # [I]
    known: NDArray[np.bool_]  # [I] before the batch's first event, be it from its catalogue
    expired: Index  # rows taken back from other items, ascending
    begun: Index  # rows of items that are new, some of them perhaps among the expired ones


@dataclass(frozen=True, slots=True)
class Dislikes:
    """Those of a batch, in columns: m accepted events of which the user did not want the item."""

    item: Index  # [m]
    time: Index  # [m] on the event clock
    weight: NDArray[np.float64]  # [m] below 0
    history: NDArray[np.int32]  # [m, L] as of a target


@dataclass(frozen=True, slots=True)
class Events:
    """What a batch has brought; in columns, as rows, the n accepted events that are targets."""

    accepted: int  # of any type, that is not duplicates
    duplicates: int
    user: Index  # [n]
    item: Index  # [n]
    time: Index  # [n] on the event clock
    weight: NDArray[np.float64]  # [n]
    history: NDArray[np.int32]  # [n, L] what the user had done before, most recent last, -1 for padding
    user_known: NDArray[np.bool_]  # [n] the user had an event before this one
    item_known: NDArray[np.bool_]  # [n] so had the item, or it was in the catalogue
    disliked: Dislikes  # neither targets nor in anybody's history


def take_items(table: ItemTable, batch: MicroBatch, clock: int, limit: int | None) -> Items:
    """Gives rows to the items of the catalogue's changes and of the events; of `limit` rows in all, None: any number.

    An item may be listed as its last change says. An event makes a new item listable, and never brings back one that
    was deleted, whose row is the first to be given to others. Where `limit` is too small for this one batch, all of its
    items have rows nevertheless, until others need them: what is learned must not depend on who was left out, and there
    are never more than the limit and a batch.
    """
    changes = {change.item_id: change for change in batch.catalogue}
    listable = {item: change.available and not change.deleted for item, change in changes.items()}
    place = {item: k for k, item in enumerate(dict.fromkeys([*listable, *batch.items]))}
    ids = list(place)
    rows = table.rows_of(ids)
    known = rows >= 0
    new = np.flatnonzero(~known)
    expired = _make_room(table, rows[known], len(new), clock, limit)
    rows[new] = table.add([ids[i] for i in new.tolist()], clock)
    table.set_listable(rows[: len(listable)], np.fromiter(listable.values(), np.uint8, len(listable)))
    table.use(rows, clock)
    deleted = np.fromiter((change.deleted for change in changes.values()), np.bool_, len(changes))
    table.deleted(rows[: len(changes)][deleted])
    known[: len(listable)] = True
    places = np.array([place[item] for item in batch.items], np.int64)
    return Items(row=rows[places], known=known[places], expired=expired, begun=rows[new])


def _make_room(table: ItemTable, keep: Index, new: int, clock: int, limit: int | None) -> Index:
    """Expires items, none of `keep`, where so many new ones would not fit. Returns their rows."""
    excess = 0 if limit is None else table.in_use + new - limit
    if limit is None or excess <= 0:
        return np.empty(0, np.int64)
    # in chunks, because finding references is a pass over all histories
    return table.expire(max(excess, limit // 16), keep, clock)


def take_events(
    users: UserTable, batch: MicroBatch, items: Items, weight: NDArray[np.float64], clock: int, limit: int | None
) -> Events:
    """Gives rows to the users, leaves duplicates out, and adds what was done to histories.

    weight: of each of the batch's events, by `HistoryRule.weights`. clock: accepted events before this batch.
    limit: rows of users in all, None: any number.
    """
    user = users.rows_of(batch.users, limit=limit)[batch.user]  # [events]
    key = keys_of(batch.event_key)
    accepted = ~users.duplicates(user, key)
    time = clock + np.cumsum(accepted) - 1
    # who and what was known before each event: by the stream, wherever a batch happens to begin
    user_known = (users.counts.array[user, 0] > 0) | seen_earlier(user, accepted)
    on_record = np.append(items.known, False)  # the last place answers for item -1
    item_known = on_record[batch.item] | seen_earlier(batch.item, accepted)
    chosen = np.flatnonzero(accepted & (weight != 0) & (batch.item >= 0))
    item = items.row[batch.item[chosen]]
    wanted = weight[chosen] > 0
    history = users.histories(user[chosen], item, wanted)
    n, target, disliked = int(accepted.sum()), chosen[wanted], chosen[~wanted]
    events = Events(
        accepted=n,
        duplicates=len(accepted) - n,
        user=user[target],
        item=item[wanted],
        time=time[target],
        weight=weight[target],
        history=history[wanted],
        user_known=user_known[target],
        item_known=item_known[target],
        disliked=Dislikes(item[~wanted], time[disliked], weight[disliked], history[~wanted]),
    )
    users.append_keys(user[accepted], key[accepted], clock)
    users.append_items(events.user, events.item)
    return events


def seen_earlier(ids: NDArray[np.integer], accepted: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """[n] whether an accepted event with the same id (-1: none) comes before this one."""
    n = len(ids)
    first = np.full(int(ids.max(initial=-1)) + 2, n)  # the last place is for -1
    backwards = np.flatnonzero(accepted)[::-1]
    first[ids[backwards]] = backwards  # the earliest is written last
    earlier: NDArray[np.bool_] = first[ids] < np.arange(n)
    return earlier
