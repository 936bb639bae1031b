"""The order of each history's candidates: see order.py."""

import numpy as np

from service.model.kernels.compiled import kernel


@kernel
def best(rows, offsets, scores, best_rows, best_scores, best_pairs):
    k = best_rows.shape[1]
    for b in range(len(offsets) - 1):
        begin, end = offsets[b], offsets[b + 1]
        n, kept = end - begin, begin
        chosen = np.arange(begin, end)
        if n > k:
            least = np.partition(scores[begin:end], n - k)[n - k]
            kept = 0
            for p in range(begin, end):
                if scores[p] >= least:
                    chosen[kept] = p
                    kept += 1
            chosen = chosen[:kept]
        keys = np.empty(len(chosen), np.float32)
        for j in range(len(chosen)):
            keys[j] = -scores[chosen[j]]
        order = np.argsort(keys, kind="mergesort")
        for j in range(1, len(order)):  # equal scores: by row. There are few, so each is moved to its place
            i = j
            while (
                i > 0 and keys[order[i]] == keys[order[i - 1]] and rows[chosen[order[i]]] < rows[chosen[order[i - 1]]]
            ):
                order[i], order[i - 1] = order[i - 1], order[i]
                i -= 1
        for j in range(min(k, len(order))):
            p = chosen[order[j]]
            best_rows[b, j], best_scores[b, j], best_pairs[b, j] = rows[p], scores[p], p


@kernel
def places(rows, offsets, target, found):
    for b in range(len(target)):
        for p in range(offsets[b], offsets[b + 1]):
            if rows[p] == target[b]:
                found[b] = p
                break


@kernel
def ahead(rows, offsets, scores, target, found):
    for b in range(len(target)):
        mine = np.float32(-np.inf)
        for p in range(offsets[b], offsets[b + 1]):
            if rows[p] == target[b]:
                mine = scores[p]
        if mine == -np.inf:
            continue
        before = 0
        for p in range(offsets[b], offsets[b + 1]):
            if scores[p] > mine or (scores[p] == mine and rows[p] < target[b]):
                before += 1
        found[b] = before


@kernel
def place_in_list(lists, rows, offsets, places):
    """Writes 10 / (10 + place of the row in its history's list) into places [P]; leaves those that are not in it.

    lists [B, n], -1 where there are fewer; rows [P], those of history b from offsets[b] to offsets[b + 1]."""
    for b in range(len(offsets) - 1):
        for p in range(offsets[b], offsets[b + 1]):
            for k in range(lists.shape[1]):
                if lists[b, k] == rows[p]:
                    places[p] = np.float32(10.0 / (10.0 + k))
                    break
