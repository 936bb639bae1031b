"""The k best of each row of scores, in one order: of equal scores the lower column comes first."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from service.model.row_table import BLOCK


def best_of(scores: Tensor, k: int, least: float) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """The k largest of each row of scores [B, C], those above `least`: columns and values; -1 and 0 for the rest.

    With C a multiple of BLOCK, only the k strips with the largest maxima can hold them: a pass for the maxima costs a
    tenth of a full selection.
    """
    n, c = scores.shape
    strips = c // BLOCK
    if c % BLOCK == 0 and strips > 2 * k:
        strip = scores.view(n, BLOCK, strips).amax(1).topk(k, dim=1).indices  # [B, k]
        columns = (strip.unsqueeze(1) + torch.arange(BLOCK, device=scores.device).unsqueeze(1) * strips).view(n, -1)
        values, at = scores.gather(1, columns).topk(k, dim=1)
        columns = columns.gather(1, at)
    else:
        values, columns = scores.topk(min(k, c), dim=1)
    best = values.cpu().numpy()
    rows = columns.cpu().numpy()
    order = np.lexsort((rows, -best), axis=1)
    best, rows = np.take_along_axis(best, order, 1), np.take_along_axis(rows, order, 1)
    real = best > least
    return np.where(real, rows, -1), np.where(real, best, np.float32(0))


def best_rows(scores: Tensor, k: int, least: float) -> NDArray[np.int64]:
    """The columns alone, [B, k] also where C < k."""
    rows, _ = best_of(scores, k, least)
    return np.pad(rows, ((0, 0), (0, k - rows.shape[1])), constant_values=-1)
