"""How neighbour rows learn, slot by slot: see neighbour_rows.py for what the tables hold.

Shapes: N items, S slots, n events, L items of a history.
"""

import numpy as np

from service.model.kernels.compiled import kernel

RESCALE = 2.0**40  # a scale above it is taken out of the row's weights: far below float32's limit


@kernel
def most_slots(length, slots):
    """How many slots one event may touch: each of 2 L additions may rescale a row and move it."""
    return 2 * length * (3 * slots + 1)


@kernel
def learn(
    event, item, weight, history, half_life, backward, slots, sizes,
    place, mass, slot_item, slot_weight, free, have, given, back, returned, touched_slots, touched_rows,
):  # fmt: skip
    """Events from `event` on, until all are learned, or one more might not find room. Returns how many events are
    learned, slots touched, rows touched."""
    n, length = history.shape
    n_slots, n_rows = 0, 0
    most = most_slots(length, slots)
    while event < n:
        room = n_slots + most <= len(touched_slots) and n_rows + length + 1 <= len(touched_rows)
        for k in range(len(sizes)):
            room = room and have[k] - given[k] >= 2 * length and returned[k] + 2 * length <= back.shape[1]
        if not room:
            break
        y, w = item[event], weight[event]
        touched_rows[n_rows] = y
        n_rows += 1
        distance = 0
        for at in range(length - 1, -1, -1):
            x = np.int64(history[event, at])
            if x < 0:
                continue
            distance += 1
            share = w / distance
            touched_rows[n_rows] = x
            n_rows += 1
            if share < 0:
                n_slots = _take_back(x, y, -share, place, mass, slot_item, slot_weight, touched_slots, n_slots)
                continue
            n_slots = _add(
                x, y, share, 0, half_life, 1.0, backward, slots, sizes,
                place, mass, slot_item, slot_weight, free, given, back, returned, touched_slots, n_slots,
            )  # fmt: skip
            if x != y:
                n_slots = _add(
                    y, x, share, 1, half_life, backward, backward, slots, sizes,
                    place, mass, slot_item, slot_weight, free, given, back, returned, touched_slots, n_slots,
                )  # fmt: skip
        event += 1
    return event, n_slots, n_rows


@kernel
def _add(
    x, y, amount, way, half_life, pace, backward, slots, sizes,
    place, mass, slot_item, slot_weight, free, given, back, returned, touched, n_touched,
):  # fmt: skip
    """Adds `amount` to the weight of y in the row of x, forward (way 0) or backward (1). The row's clock moves on by
    `pace` times the amount. Returns the number of slots touched."""
    scale = mass[x, 2] * 2.0 ** (pace * amount / half_life) if mass[x, 2] > 0 else 1.0
    if scale > RESCALE:
        for j in range(place[x, 0], place[x, 0] + place[x, 2]):
            slot_weight[j, 0] /= scale
            slot_weight[j, 1] /= scale
            touched[n_touched] = j
            n_touched += 1
        mass[x, 0] /= scale
        mass[x, 1] /= scale
        scale = 1.0
    mass[x, 2] = scale
    scale = float(mass[x, 2])
    amount *= scale
    mass[x, way] += amount
    first, size, used = place[x, 0], place[x, 1], place[x, 2]
    for j in range(first, first + used):
        if slot_item[j] == y:
            slot_weight[j, way] += amount
            touched[n_touched] = j
            return n_touched + 1
    if used == size and size < slots:  # full, and it may grow
        k = 0
        while sizes[k] <= size:
            k += 1
        begin = free[k, given[k]]
        given[k] += 1
        for j in range(used):
            slot_item[begin + j] = slot_item[first + j]
            slot_weight[begin + j] = slot_weight[first + j]
            slot_item[first + j] = -1
            slot_weight[first + j] = 0.0
            touched[n_touched] = begin + j
            touched[n_touched + 1] = first + j
            n_touched += 2
        if size > 0:
            back[k - 1, returned[k - 1]] = first
            returned[k - 1] += 1
        first, size = begin, sizes[k]
        place[x, 0], place[x, 1] = first, size
    if used < size:
        slot_item[first + used] = y
        slot_weight[first + used, way] = amount
        place[x, 2] = used + 1
        touched[n_touched] = first + used
        return n_touched + 1
    weakest, least = first, np.inf
    for j in range(first, first + used):
        whole = slot_weight[j, 0] + backward * slot_weight[j, 1]
        if whole < least:
            weakest, least = j, whole
    comes = amount if way == 0 else backward * amount
    if least <= comes:
        slot_item[weakest] = y
        slot_weight[weakest, 0] = 0.0
        slot_weight[weakest, 1] = 0.0
        slot_weight[weakest, way] = amount
    else:
        left = (least - comes) / least
        slot_weight[weakest, 0] *= left
        slot_weight[weakest, 1] *= left
    touched[n_touched] = weakest
    return n_touched + 1


@kernel
def _take_back(x, y, amount, place, mass, slot_item, slot_weight, touched, n_touched):
    """Takes `amount` off the forward weight of y in the row of x, down to nothing. Returns the number of slots
    touched."""
    first = place[x, 0]
    for j in range(first, first + place[x, 2]):
        if slot_item[j] == y:
            slot_weight[j, 0] = max(0.0, slot_weight[j, 0] - amount * mass[x, 2])
            touched[n_touched] = j
            return n_touched + 1
    return n_touched


@kernel
def take_out(gone, place, slot_item, slot_weight, touched, changed):
    """Takes the items that are `gone` out of every row; a row's last slot fills a gap. Returns how many slots were
    touched and rows changed."""
    n_touched, n_changed = 0, 0
    for row in range(len(place)):
        first, used = place[row, 0], place[row, 2]
        j, end = first, first + used
        while j < end:
            if not gone[slot_item[j]]:
                j += 1
                continue
            end -= 1
            slot_item[j] = slot_item[end]
            slot_weight[j, 0] = slot_weight[end, 0]
            slot_weight[j, 1] = slot_weight[end, 1]
            slot_item[end] = -1
            slot_weight[end, 0] = 0.0
            slot_weight[end, 1] = 0.0
            touched[n_touched] = end
            n_touched += 1
        if end < first + used:
            for j in range(first, end):  # any of them may have been moved
                touched[n_touched] = j
                n_touched += 1
            place[row, 2] = end - first
            changed[n_changed] = row
            n_changed += 1
    return n_touched, n_changed
