"""What the neighbour rows know of a history: a score for each item near it, the candidates, and their features.

The score of item y for a history x_1 (the latest), x_2, ... is

    sum_k (forward_k(y) + backward * backward_k(y)) / (received_k + shrinkage) / k      + self_weight / k where y = x_k

with the weights of y in the row of x_k, and what that row has received in all. The second step goes on from the best
items by that score, with the score in place of 1 / k.

Of a history a few hundred to two thousand items are near. They are numbered as they are met, and an array over all
items has their numbers while one history is looked at: 4 bytes an item are read, where scores over all items would be 8
read and written.

Shapes: B histories, N items, S slots, T items near a history at most, P pairs.
"""

import numpy as np

from service.model.kernels.compiled import kernel
from service.model.kernels.logarithm import log
from service.model.kernels.prefetch import prefetch

BUCKET_SHIFT = 19  # a float32's exponent and four bits of its fraction
BUCKETS = 1 << (31 - BUCKET_SHIFT)
LATEST = 8  # items of a history whose rows are asked whether they know a candidate
LEAST_SHARE = np.float32(1e-4)  # a share below it is as good as none; keeps logarithms finite
ITEMS_A_LINE, WEIGHTS_A_LINE = 16, 8  # slots whose items, or weights, lie in one line of memory
_THIRD = np.float32(1 / 3)
_NO, _ONE = np.float32(0), np.float32(1)

FEATURES = (
    "rank", "second_rank", "share", "second_share",
    "latest_forward", "latest_backward", "to_latest_forward", "to_latest_backward",
    "before_forward", "before_backward", "third_both",
    "known_by", "known_by_share", "best_share", "latest_repeats", "latest_repeats_it",
)  # fmt: skip
"""The features of a pair, in the order of `features`."""


@kernel
def largest(values, n, k, order):
    """Puts the indices of the k largest of the first n values into `order`, largest first; of equal ones the earlier
    comes first. Only values above 0 count. Returns how many.

    A positive float32 is larger where its bits are, as an integer. So the upper bits are counted first, and only the
    values from the bucket on in which the k-th lies are sorted: one of them in eight is not among the k."""
    bits = values[:n].view(np.int32)
    counts = np.zeros(BUCKETS, np.int32)
    highest = 0
    for j in range(n):
        bucket = max(bits[j], 0) >> BUCKET_SHIFT
        counts[bucket] += 1
        highest = max(highest, bucket)
    bucket, above = highest, counts[highest]
    while above < k and bucket > 0:
        bucket -= 1
        above += counts[bucket]
    chosen, keys = np.empty(above, np.int32), np.empty(above, np.float32)
    found = 0
    for j in range(n):
        if max(bits[j], 0) >> BUCKET_SHIFT >= bucket and values[j] > 0:
            chosen[found], keys[found] = j, -values[j]
            found += 1
    by_value = np.argsort(keys[:found], kind="mergesort")
    found = min(found, k)
    for j in range(found):
        order[j] = chosen[by_value[j]]
    return found


@kernel
def _ask_for(rows, place, mass):
    """Asks for what places the rows of these items; see prefetch.py."""
    for k in range(len(rows)):
        if rows[k] >= 0:
            prefetch(place, rows[k])
            prefetch(mass, rows[k])


@kernel
def _ask_for_slots(rows, place, slot_item, slot_weight, weights_too):
    """Asks for the slots of these items' rows."""
    for k in range(len(rows)):
        if rows[k] >= 0:
            first, end = place[rows[k], 0], place[rows[k], 0] + place[rows[k], 2]
            for j in range(first, end, ITEMS_A_LINE):
                prefetch(slot_item, j)
            if weights_too:
                for j in range(first, end, WEIGHTS_A_LINE):
                    prefetch(slot_weight, j)


@kernel
def _number(y, at, items, scores, ranks, found):
    """Gives an item its number, if it has none. Returns how many items have one."""
    if at[y] >= 0:
        return found
    at[y], items[found] = found, y
    scores[found, 0], scores[found, 1] = _NO, _NO
    ranks[found, 0], ranks[found, 1] = -1, -1
    return found + 1


@kernel
def _add_row(
    x, which, weight, half, shrink, place, mass, slot_item, slot_weight, at, items, scores, ranks, found
):  # fmt: skip
    """Adds the row of x, times `weight`, to a score of its neighbours. Returns how many items have a number.

    One call a row: a call with so many arrays costs as much as ten slots."""
    scale = mass[x, 2]
    if not scale > 0:
        return found
    unit = weight / (mass[x, 0] + half * mass[x, 1] + shrink * scale)
    first = place[x, 0]
    for j in range(first, first + place[x, 2]):
        prefetch(at, slot_item[j])
    for j in range(first, first + place[x, 2]):
        y = slot_item[j]
        n = at[y]
        if n < 0:
            n = found
            at[y], items[n] = n, y
            scores[n, 0], scores[n, 1] = _NO, _NO
            ranks[n, 0], ranks[n, 1] = -1, -1
            found += 1
        scores[n, which] += unit * (slot_weight[j, 0] + half * slot_weight[j, 1])
    return found


@kernel
def look(
    rows, offsets, shut, place, mass, slot_item, slot_weight,
    history, hops, n_first, n_second, backward, self_weight, shrinkage,
    at, near, scores, ranks, totals, hop_rows, hop_weights, candidates,
):  # fmt: skip
    """Fills for each history b the n items near it: near [B, 1 + T] begins with n and goes on with the items; scores
    [B, T, 2] by the first and by the second step; ranks [B, T, 2] among the candidates by the two, -1 where they are
    not among them; totals [B, 2], the sums of the scores; hop_rows and hop_weights [B, hops], where the second step
    begins, -1 where there are fewer; candidates [B, n_first + n_second], -1 where there are fewer.

    `rows`, `offsets`: as in `Query`. `history`: how many of the latest items count. `hops`: from how many of the best
    the second step goes. `shut` [N]: rows that are no candidates, though ways may lead over them. `at` [N]: all -1,
    before and after."""
    values, order = np.empty(scores.shape[1], np.float32), np.empty(max(n_first, n_second), np.int32)
    shrink, half, own = np.float32(shrinkage), np.float32(backward), np.float32(self_weight)
    for b in range(len(offsets) - 1):
        items, score, rank, found = near[b, 1:], scores[b], ranks[b], 0
        latest = rows[offsets[b] : min(offsets[b + 1], offsets[b] + history)]
        _ask_for(latest, place, mass)
        _ask_for_slots(latest, place, slot_item, slot_weight, True)
        for k in range(len(latest)):
            x = latest[k]
            weight = np.float32(1.0 / (k + 1))
            found = _add_row(
                x, 0, weight, half, shrink, place, mass, slot_item, slot_weight, at, items, score, rank, found
            )  # fmt: skip
            found = _number(x, at, items, score, rank, found)
            score[at[x], 0] += weight * (own if mass[x, 2] > 0 else _ONE)
        total = _NO
        for j in range(found):
            values[j] = score[j, 0]
            total += values[j]
        totals[b, 0] = total
        best, n = largest(values, found, n_first, order), 0
        for j in range(best):
            i = order[j]
            if score[i, 0] > 0 and not shut[items[i]]:
                candidates[b, n] = items[i]
                rank[i, 0] = n
                n += 1
        hop_rows[b] = -1
        for j in range(min(best, hops)):
            hop_rows[b, j], hop_weights[b, j] = items[order[j]], score[order[j], 0]
        _ask_for(hop_rows[b], place, mass)
        _ask_for_slots(hop_rows[b], place, slot_item, slot_weight, True)
        for j in range(min(best, hops)):
            i = order[j]
            found = _add_row(
                items[i], 1, score[i, 0], half, shrink,
                place, mass, slot_item, slot_weight, at, items, score, rank, found,
            )  # fmt: skip
        total = _NO
        for j in range(found):
            values[j] = score[j, 1]
            total += values[j]
            at[items[j]] = -1
        totals[b, 1] = total
        near[b, 0] = found
        for j in range(largest(values, found, n_second, order)):
            i = order[j]
            if score[i, 1] > 0 and not shut[items[i]]:
                if rank[i, 0] < 0:
                    candidates[b, n] = items[i]
                    n += 1
                rank[i, 1] = j


@kernel
def _of_single_rows(rows, place, mass, slot_item, slot_weight, shrink, at, pairs, begin, end, out):
    """Writes the features that single rows tell, of the pairs from `begin` to `end` of one history `rows` [L]: from
    `latest_forward` on, but for `best_share`. `at` [N]: all -1, before and after."""
    nothing, length = log(LEAST_SHARE) * _THIRD, len(rows)
    for p in range(begin, end):
        at[pairs[p]] = p
        for f in range(4, 11):
            out[p, f] = nothing
        out[p, 11] = _NO
    for k in range(min(length, LATEST)):
        x = rows[k]
        if mass[x, 2] == 0:
            continue
        shrunk = shrink * mass[x, 2]
        forward, backward = mass[x, 0] + shrunk, mass[x, 1] + shrunk
        for j in range(place[x, 0], place[x, 0] + place[x, 2]):
            p = at[slot_item[j]]
            if p < 0:
                continue
            out[p, 11] += np.float32(0.25)
            if k == 0:
                out[p, 4] = log(slot_weight[j, 0] / forward + LEAST_SHARE) * _THIRD
                out[p, 5] = log(slot_weight[j, 1] / backward + LEAST_SHARE) * _THIRD
            elif k == 1:
                out[p, 8] = log(slot_weight[j, 0] / forward + LEAST_SHARE) * _THIRD
                out[p, 9] = log(slot_weight[j, 1] / backward + LEAST_SHARE) * _THIRD
            elif k == 2:
                both = mass[x, 0] + mass[x, 1] + shrunk
                out[p, 10] = log((slot_weight[j, 0] + slot_weight[j, 1]) / both + LEAST_SHARE) * _THIRD
    latest, repeats = np.int32(-1), _NO
    if length > 0:
        latest = rows[0]
        for j in range(place[latest, 0], place[latest, 0] + place[latest, 2]):
            if slot_item[j] == latest:
                repeats = slot_weight[j, 0] / (mass[latest, 0] + shrink * mass[latest, 2])
    for p in range(begin, end):
        y = pairs[p]
        if latest >= 0 and mass[y, 2] > 0:
            for j in range(place[y, 0], place[y, 0] + place[y, 2]):
                if slot_item[j] == latest:
                    shrunk = shrink * mass[y, 2]
                    out[p, 6] = log(slot_weight[j, 0] / (mass[y, 0] + shrunk) + LEAST_SHARE) * _THIRD
                    out[p, 7] = log(slot_weight[j, 1] / (mass[y, 1] + shrunk) + LEAST_SHARE) * _THIRD
                    break
        at[y] = -1
        out[p, 12] = out[p, 11] * np.float32(4.0 / max(1, min(length, LATEST)))
        out[p, 14] = repeats
        out[p, 15] = repeats if y == latest else _NO


@kernel
def features(
    rows, offsets, place, mass, slot_item, slot_weight, shrinkage, at, near, scores, ranks, totals, pairs, starts, out
):  # fmt: skip
    """Writes FEATURES of the pairs into out [P, F]: `pairs` [P] candidates, those of history b from starts[b] to
    starts[b + 1]. The others: as `look` was given and has filled them."""
    shrink = np.float32(shrinkage)
    for b in range(len(starts) - 1):
        begin, end = starts[b], starts[b + 1]
        score, rank = scores[b], ranks[b]
        _ask_for(pairs[begin:end], place, mass)
        first_total, second_total = totals[b, 0] + np.float32(1e-9), totals[b, 1] + np.float32(1e-9)
        best = _NO
        for j in range(near[b, 0]):
            at[near[b, 1 + j]] = j
            best = max(best, score[j, 0])
        best /= first_total
        _ask_for_slots(pairs[begin:end], place, slot_item, slot_weight, False)
        for p in range(begin, end):
            one, two = _NO, _NO
            out[p, 0], out[p, 1] = _NO, _NO
            i = at[pairs[p]]
            if i >= 0:
                one, two = score[i, 0] / first_total, score[i, 1] / second_total
                if rank[i, 0] >= 0:
                    out[p, 0] = np.float32(10) / np.float32(10 + rank[i, 0])
                if rank[i, 1] >= 0:
                    out[p, 1] = np.float32(10) / np.float32(10 + rank[i, 1])
            out[p, 2] = log(one + LEAST_SHARE) * _THIRD
            out[p, 3] = log(two + LEAST_SHARE) * _THIRD
            out[p, 13] = best
        for j in range(near[b, 0]):
            at[near[b, 1 + j]] = -1
        _of_single_rows(
            rows[offsets[b] : offsets[b + 1]], place, mass, slot_item, slot_weight, shrink, at, pairs, begin, end, out
        )  # fmt: skip


@kernel
def _add_to_pairs(x, weight, half, shrink, place, mass, slot_item, slot_weight, at, sums):
    """Adds the row of x, times `weight`, to the sums [P] of those pairs whose candidates are in it. Returns what all of
    the row adds up to."""
    scale, total = mass[x, 2], _NO
    if scale > 0:
        unit = weight / (mass[x, 0] + half * mass[x, 1] + shrink * scale)
        for j in range(place[x, 0], place[x, 0] + place[x, 2]):
            value = unit * (slot_weight[j, 0] + half * slot_weight[j, 1])
            total += value
            p = at[slot_item[j]]
            if p >= 0:
                sums[p] += value
    return total


@kernel
def features_without_look(
    rows, offsets, hop_rows, hop_weights, place, mass, slot_item, slot_weight,
    history, backward, self_weight, shrinkage, at, pairs, starts, out,
):  # fmt: skip
    """Writes FEATURES of a few pairs at a third of a look's price, as if they were no candidates of the neighbours.
    The second step goes from where it went when the history was looked at: `hop_rows`, `hop_weights` [B, hops].
    `best_share` stays as it is. Other arguments as for `look` and `features`."""
    shrink, half, own = np.float32(shrinkage), np.float32(backward), np.float32(self_weight)
    for b in range(len(starts) - 1):
        begin, end = starts[b], starts[b + 1]
        if begin == end:
            continue
        for p in range(begin, end):
            at[pairs[p]] = p
            out[p, 0], out[p, 1], out[p, 2], out[p, 3] = _NO, _NO, _NO, _NO
        total = np.float32(1e-9)
        for k in range(min(offsets[b + 1] - offsets[b], history)):
            x = rows[offsets[b] + k]
            weight = np.float32(1.0 / (k + 1))
            scale = mass[x, 2]
            mine = weight * (own if scale > 0 else _ONE)
            total += mine
            if at[x] >= 0:
                out[at[x], 2] += mine
            total += _add_to_pairs(x, weight, half, shrink, place, mass, slot_item, slot_weight, at, out[:, 2])
        second_total = np.float32(1e-9)
        for j in range(hop_rows.shape[1]):
            if hop_rows[b, j] >= 0:
                second_total += _add_to_pairs(
                    hop_rows[b, j], hop_weights[b, j], half, shrink,
                    place, mass, slot_item, slot_weight, at, out[:, 3],
                )  # fmt: skip
        for p in range(begin, end):
            at[pairs[p]] = -1
            out[p, 2] = log(out[p, 2] / total + LEAST_SHARE) * _THIRD
            out[p, 3] = log(out[p, 3] / second_total + LEAST_SHARE) * _THIRD
        _of_single_rows(
            rows[offsets[b] : offsets[b + 1]], place, mass, slot_item, slot_weight, shrink, at, pairs, begin, end, out
        )  # fmt: skip
