"""Histories as flat entries: see query.py."""

from service.model.kernels.compiled import kernel


@kernel
def flatten(histories, rows, offsets):
    """Writes the items of histories [B, L] into rows, latest first, and where each history begins into offsets
    [B + 1]."""
    n = 0
    for b in range(len(histories)):
        for at in range(histories.shape[1] - 1, -1, -1):
            if histories[b, at] >= 0:
                rows[n] = histories[b, at]
                n += 1
        offsets[b + 1] = n
