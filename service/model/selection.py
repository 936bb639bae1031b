"""The k best of each row of scores, in one order: of equal scores the lower column comes first."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from service.model.row_table import BLOCK


def best_of(scores: Tensor, k: int, least: float) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """The k largest of each row of scores [B, C] that are above `least`: columns and values, each [B, min(k, C)].

    Where there are fewer, the rest are -1 and 0.
    """
    # topk takes any of several equal scores. The (k + 1)th shows whether some of them are cut off; then the lowest
    # columns are chosen
    values, columns = _largest(scores, min(k + 1, scores.shape[1]))
    if values.shape[1] > k:
        cut, values, columns = values[:, k], values[:, :k], columns[:, :k]
        tied = torch.nonzero((cut == values[:, -1]) & (cut > least))[:, 0] if k else cut[:0].long()
        if len(tied):
            columns[tied] = _lowest_columns(scores.index_select(0, tied), values[tied, -1:], k)
            values[tied] = scores.index_select(0, tied).gather(1, columns[tied])
    best = values.cpu().numpy()
    rows = columns.cpu().numpy()
    order = np.lexsort((rows, -best), axis=1)
    best, rows = np.take_along_axis(best, order, 1), np.take_along_axis(rows, order, 1)
    real = best > least
    return np.where(real, rows, -1), np.where(real, best, np.float32(0))


def best_rows(scores: Tensor, k: int, least: float) -> NDArray[np.int64]:
    """The columns of `best_of`, [B, k] also where C < k."""
    rows, _ = best_of(scores, k, least)
    return np.pad(rows, ((0, 0), (0, k - rows.shape[1])), constant_values=-1)


def _largest(scores: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k largest of each row, largest first: values and columns [B, k]; any of several equal ones.

    With C a multiple of BLOCK the columns are parted into C / BLOCK strips. Only the k strips with the largest maxima
    can hold the k largest, and a pass for the maxima costs a tenth of a full selection.
    """
    n, c = scores.shape
    strips = c // BLOCK
    if c % BLOCK or strips <= 2 * k:
        values, columns = scores.topk(k, dim=1)
        return values, columns
    strip = scores.view(n, BLOCK, strips).amax(1).topk(k, dim=1).indices  # [B, k]
    columns = (strip.unsqueeze(1) + torch.arange(BLOCK, device=scores.device).unsqueeze(1) * strips).view(n, -1)
    values, at = scores.gather(1, columns).topk(k, dim=1)
    return values, columns.gather(1, at)


def _lowest_columns(scores: Tensor, cut: Tensor, k: int) -> Tensor:
    """[B, k] the columns of all scores [B, C] above `cut` [B, 1], and of the lowest ones that equal it."""
    above, equal = scores > cut, scores == cut
    room = k - above.sum(1, keepdim=True)
    chosen = above | (equal & (equal.cumsum(1) <= room))
    return chosen.nonzero()[:, 1].view(len(scores), k)
