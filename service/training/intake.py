"""Taking a batch in: first rows for its items (`take_items`), then its events with their histories (`take_events`).

Only the tables of items and users are known here. Between the two steps the caller lets every channel forget the
`expired` rows and then begin the `begun` ones, since a row may be among both.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from consumers.micro_batch import MicroBatch
from service.model.channel import Examples
from service.model.history import keys_of
from service.model.item_table import ItemTable
from service.training.user_table import UserTable

Index = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Items:
    """The rows of the I items in `MicroBatch.items`, and the rows that have another item than before."""

    row: Index  # [I]
    known: NDArray[np.bool_]  # [I] before the batch's first event; an item of the batch's catalogue is known
    expired: Index  # rows whose items were expired, ascending
    begun: Index  # rows given to new items; some may be among the expired ones


@dataclass(frozen=True, slots=True)
class Events:
    """The events of a batch: as columns the n accepted events that are targets, and the dislikes."""

    accepted: int  # events of any type that are no duplicates
    duplicates: int
    happened: NDArray[np.float64]  # [accepted] when each accepted event happened, epoch seconds
    place: Index  # [n] place in the batch
    user: Index  # [n]
    item: Index  # [n]
    time: Index  # [n] on the event clock
    ts: NDArray[np.float64]  # [n] when it happened, epoch seconds
    idle: NDArray[np.float32]  # [n] seconds since the user's event before; NOT_KNOWN where there is none
    bought: NDArray[np.bool_]  # [n] it is a purchase
    weight: NDArray[np.float64]  # [n]
    history: NDArray[np.int32]  # [n, L] what the user had done before, most recent last, -1 for padding
    user_known: NDArray[np.bool_]  # [n] the user had an accepted event before this one
    item_known: NDArray[np.bool_]  # [n] the item had one, or was in the catalogue
    disliked: Examples  # neither targets nor part of a history


def take_items(table: ItemTable, batch: MicroBatch, clock: int, limit: int | None) -> Items:
    """Gives rows to the items of the catalogue's changes and of the events. `limit`: rows in all; None: any number.

    The last change of an item says whether it may be listed. An item that is new in an event may be listed; an event
    never makes a deleted item listable again. Deleted items are expired first.

    Where one batch has more items than `limit`, all of them get rows nevertheless, and later batches expire them. So
    what is learned does not depend on which items would be left out, and rows never exceed the limit and one batch.
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
    """Expires items where `new` ones would not fit, except the rows `keep`. Returns the expired rows."""
    excess = 0 if limit is None else table.in_use + new - limit
    if limit is None or excess <= 0:
        return np.empty(0, np.int64)
    # in chunks, because finding references is a pass over all histories
    return table.expire(max(excess, limit // 16), keep, clock)


def take_events(
    users: UserTable,
    batch: MicroBatch,
    items: Items,
    weight: NDArray[np.float64],
    clock: int,
    limit: int | None,
    purchase: int = -1,
) -> Events:
    """Gives rows to the users, leaves duplicates out, and adds the targets to their users' histories.

    weight: [events] by `HistoryRule.weights`. clock: accepted events before this batch. limit: rows of users in all;
    None: any number. purchase: the number of that type of event, where there is one.
    """
    user = users.rows_of(batch.users, limit=limit)[batch.user]  # [events]
    key = keys_of(batch.event_key)
    accepted = ~users.duplicates(user, key)
    time = clock + np.cumsum(accepted) - 1
    # known before each event, not before the batch: so it does not matter where batches are cut
    user_known = (users.counts.array[user, 0] > 0) | seen_earlier(user, accepted)
    on_record = np.append(items.known, False)  # item -1 indexes the last entry
    item_known = on_record[batch.item] | seen_earlier(batch.item, accepted)
    chosen = np.flatnonzero(accepted & (weight != 0) & (batch.item >= 0))
    item = items.row[batch.item[chosen]]
    wanted = weight[chosen] > 0
    history = users.histories(user[chosen], item, wanted)
    ts = batch.ts / 1000.0
    n, target, disliked = int(accepted.sum()), chosen[wanted], chosen[~wanted]
    events = Events(
        accepted=n,
        duplicates=len(accepted) - n,
        happened=ts[accepted],
        place=target,
        user=user[target],
        item=item[wanted],
        time=time[target],
        ts=ts[target],
        idle=users.idle(user[target], ts[target]),
        bought=batch.type[target] == purchase,
        weight=weight[target],
        history=history[wanted],
        user_known=user_known[target],
        item_known=item_known[target],
        disliked=Examples(item[~wanted], time[disliked], ts[disliked], weight[disliked], history[~wanted]),
    )
    users.append_keys(user[accepted], key[accepted], clock)
    users.append_items(events.user, events.item, events.ts)
    return events


def seen_earlier(ids: NDArray[np.integer], accepted: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """[n] whether an accepted event with the same id comes before this one. `ids` [n]; -1: none."""
    n = len(ids)
    first = np.full(int(ids.max(initial=-1)) + 2, n)  # the last place is for -1
    backwards = np.flatnonzero(accepted)[::-1]
    first[ids[backwards]] = backwards  # the earliest is written last
    earlier: NDArray[np.bool_] = first[ids] < np.arange(n)
    return earlier
