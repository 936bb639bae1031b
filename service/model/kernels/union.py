"""The union of what is proposed for each history, each item once: see candidates.py."""

from service.model.kernels.compiled import kernel
from service.model.kernels.prefetch import prefetch


@kernel
def unite(
    proposed, origin, held, starts, reserve, shut, hidden, least, latest, seen, call, rows, origins, offsets
):  # fmt: skip
    channels, n = 0, 0
    for column in range(len(origin)):
        channels = max(channels, origin[column] + 1)
    for b in range(len(offsets) - 1):
        mark, begin = call + b + 1, n
        for column in range(proposed.shape[1]):
            if proposed[b, column] >= 0:
                prefetch(seen, proposed[b, column])
                prefetch(shut, proposed[b, column])
        for h in range(hidden.shape[1]):
            if hidden[b, h] >= 0:
                seen[hidden[b, h]] = mark
        for column in range(proposed.shape[1]):
            y = proposed[b, column]
            if y >= 0 and seen[y] != mark and not shut[y]:
                seen[y] = mark
                rows[n], origins[n] = y, origin[column]
                n += 1
        for entry in range(starts[b], min(starts[b + 1], starts[b] + latest)):
            y = held[entry]
            if seen[y] != mark and not shut[y]:
                seen[y] = mark
                rows[n], origins[n] = y, channels
                n += 1
        for y in reserve:
            if n - begin >= least:
                break
            if seen[y] != mark and not shut[y]:
                seen[y] = mark
                rows[n], origins[n] = y, channels + 1
                n += 1
        offsets[b + 1] = n
