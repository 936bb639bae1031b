"""Sampled softmax with its gradients, by hand; those inside the encoder are the encoder's.

The partition function of a context is estimated as

    Z = exp(s_target) + sum_{i in history} exp(s_i) + sum_{j sampled} exp(s_j) / E[times j is drawn]

The target and the items of the context's own history are in Z with certainty, so they count as they are; only sampled
items are corrected for their chance of being drawn: Khrylchenko et al., "Correcting the LogQ Correction", RecSys 2025,
after Bengio & Senecal (2008). The history is in Z because the repeat bonus is learned from it, and a sample shared by
all contexts would hardly hold its items. A sampled item that is the target or in the history counts once.

A context of weight w < 0 has an item that its user disliked in the target's place, and its loss is unlikelihood,

    -|w| log(1 - p),   p = exp(s_target) / Z

(Welleck et al., "Neural Text Generation with Unlikelihood Training", ICLR 2020), whose gradient is that of a target
with the weight w p / (1 - p): it pushes hard where the item would be listed, and hardly where it would not be.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from service.model.blend import Blend
from service.model.contexts import Contexts
from service.model.encoders.decay import Decay
from service.model.encoders.directions import normalise_backward
from service.model.encoders.encoder import Encoder
from service.model.encoders.entries import Entries, bag, by_bucket, by_lag, dots
from service.model.parameters import Parameters

# Contexts at a time through the softmax: 256 x 1,024 logits are 1 MB and stay in a core's cache between the product,
# the exponential and the two products back (measured: 25 ms at 128 and 1,024 wide, 22 at 256).
CHUNK = 256
# exp() of what is above this is cut off: far above any real difference of two logits, far below float32's limit
MAX_EXPONENT = 60.0
# Lower bound of a divisor, Z less the target's part, relative to that part: a disliked item of probability .999
LEAST_REST = 1e-3

DECAY = Decay()


@dataclass(frozen=True)
class SureItems:
    """The items in Z with certainty, context after context: the target first, then the items of the history."""

    rows: NDArray[np.int64]  # [X]
    lag: NDArray[np.int64]  # [X] lag of the item in the history; L where the target is not in it
    owner: NDArray[np.int64]  # [X] ascending
    offsets: NDArray[np.int64]  # [B + 1]; the target of context b is entry offsets[b]

    @classmethod
    def of(cls, contexts: Contexts, target: NDArray[np.int64]) -> "SureItems":
        is_target = contexts.rows == target[contexts.owner]
        target_lag = np.full(contexts.n, contexts.length)
        hit = is_target & contexts.newest
        target_lag[contexts.owner[hit]] = contexts.lag[hit]
        kept = contexts.newest & ~is_target
        owner = contexts.owner[kept]
        counts = 1 + np.bincount(owner, minlength=contexts.n)
        offsets = np.concatenate([[0], np.cumsum(counts)])
        at_target = offsets[:-1]
        at_kept = np.arange(len(owner)) + owner + 1
        rows, lag, owners = (np.empty(offsets[-1], np.int64) for _ in range(3))
        rows[at_target], rows[at_kept] = target, contexts.rows[kept]
        lag[at_target], lag[at_kept] = target_lag, contexts.lag[kept]
        owners[at_target], owners[at_kept] = np.arange(contexts.n), owner
        return cls(rows, lag, owners, offsets)


@dataclass(frozen=True)
class Sample:
    """Items drawn as negatives, each once."""

    rows: NDArray[np.int64]  # [n] unique
    log_expected: NDArray[np.float32]  # [n] log of how often it was expected to be drawn, less log of how often it was


@dataclass(frozen=True)
class Gradients:
    """The loss of a step, and its gradients."""

    loss: float  # sum over contexts
    rows: Tensor  # [U, D] at the rows (not at their directions)
    dense: Parameters
    blend: Parameters


def sampled_softmax(
    dense: Parameters,
    blend: Blend,
    unit: Tensor,
    norm: Tensor,
    features: Tensor,
    contexts: Contexts,
    target: NDArray[np.int64],
    weight: NDArray[np.float32],
    sample: Sample,
    teaching: int,
    encoder: Encoder = DECAY,
) -> Gradients:
    """The loss and its gradients. No history may be empty. `dense`: the parameters of `encoder`.

    Every row in `contexts`, `target` [B] and `sample` indexes `unit` [U, D] (directions), `norm` [U, 1] (their lengths)
    and `features` [U, K] (the scores by the channels that are not personal). `weight` [B]: how much each context
    counts; below 0 its target is disliked.

    Only the first `teaching` contexts teach the blend, replayed ones do not. A replayed target would be compared with
    popularity as it is today, not as it was at the time; and it was learned from before, so the network would seem
    better than it is.
    """
    device = unit.device
    b, d = contexts.n, unit.shape[1]

    def put(a: NDArray[np.generic]) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(a)).to(device)

    entries = Entries.of(contexts, contexts.rows, device)
    encoded = encoder.encode(dense, unit, entries)
    scale = blend.scale(entries.bucket)  # [B, 1]
    pull = encoded.direction * scale  # [B, D]
    prior = blend.parameters["prior"].index_select(0, entries.bucket)  # [B, K]
    sure = SureItems.of(contexts, target)
    sure_entries = Entries(
        put(sure.rows), put(sure.lag), put(sure.owner), put(sure.offsets), entries.bucket, entries.first, entries.some
    )
    repeat = blend.parameters["repeat"][: contexts.length]  # histories may be shorter than those of the blend
    bonus = torch.cat([repeat, repeat.new_zeros(1)])  # [L + 1]
    sure_features = features.index_select(0, sure_entries.rows)  # [X, K]
    sure_logit = dots(pull, unit, sure_entries)  # [X]
    sure_logit += (prior.index_select(0, sure_entries.owner) * sure_features).sum(1)
    sure_logit += bonus.index_select(0, sure_entries.lag)
    target_logit = sure_logit.index_select(0, sure_entries.offsets[:-1])  # [B]
    sure_exp = (sure_logit - target_logit.index_select(0, sure_entries.owner)).clamp_(max=MAX_EXPONENT).exp_()  # [X]
    sure_sum = segment_sum(sure_exp, sure_entries, b, contexts.length)  # [B], with the target's own 1

    sampled_rows = put(sample.rows)
    # one product gives the logits, corrected and relative to the target's, by two more columns on either side; the
    # width is made a multiple of four, since a product of odd width takes half as long again
    n, k = len(sample.rows), features.shape[1]
    width = -(-(d + k + 2) // 4) * 4
    left = torch.cat(
        [pull, prior, pull.new_ones(b, 1), -target_logit.unsqueeze(1), pull.new_zeros(b, width - d - k - 2)], 1
    )
    right = pull.new_zeros(n, width)
    right[:, :d] = unit.index_select(0, sampled_rows)
    right[:, d : d + k] = features.index_select(0, sampled_rows)
    right[:, d + k] = -put(sample.log_expected)
    right[:, d + k + 1] = 1
    right_columns = right.T.contiguous()

    column = np.full(len(unit), -1)
    column[sample.rows] = np.arange(len(sample.rows))
    once_owner, once_column = _counted_already(column, contexts, target)
    starts = np.searchsorted(once_owner, np.arange(0, b + CHUNK, CHUNK))
    once_at = put(once_owner % CHUNK * len(sample.rows) + once_column)

    weights, disliked = put(weight.copy()), bool((weight < 0).any())
    total = torch.empty_like(target_logit)  # [B] Z relative to the target's exponential
    d_left = torch.empty_like(left)
    d_sampled = pull.new_zeros(d, n)
    for i, start in enumerate(range(0, b, CHUNK)):
        stop = min(start + CHUNK, b)
        p = torch.mm(left[start:stop], right_columns).clamp_(max=MAX_EXPONENT).exp_()  # [c, n]
        p.view(-1)[once_at[starts[i] : starts[i + 1]]] = 0
        z = p.sum(1).add_(sure_sum[start:stop])
        total[start:stop] = z
        if disliked:
            _weigh_dislikes(weights[start:stop], z)
        p.mul_((weights[start:stop] / z).unsqueeze(1))
        torch.mm(p, right, out=d_left[start:stop])
        d_sampled.addmm_(pull[start:stop].T, p)
    loss = float((weights * total.log()).sum()) if not disliked else _loss(put(weight), total)

    share = weights / total  # [B]
    d_sure = sure_exp * share.index_select(0, sure_entries.owner)  # [X]
    d_sure[sure_entries.offsets[:-1]] -= weights
    d_pull = d_left[:, :d] + bag(unit, sure_entries.rows, sure_entries.offsets, d_sure)  # [B, D]
    d_prior = d_left[:, d : d + k] + bag(features, sure_entries.rows, sure_entries.offsets, d_sure)  # [B, K]

    gradient, of_blend = dense.like(), blend.parameters.like()
    along = torch.linalg.vecdot(d_pull, pull).unsqueeze(1)  # [B, 1]: scale enters as an exponential
    grouped = by_bucket(torch.cat([along, d_prior], dim=1)[:teaching], entries.bucket[:teaching])
    of_blend["log_scale"].copy_(grouped[:, 0])
    of_blend["prior"].copy_(grouped[:, 1:])
    of_fresh = d_sure * (sure_entries.owner < teaching)
    of_blend["repeat"][: contexts.length].copy_(by_lag(of_fresh, sure_entries, b, contexts.length + 1)[:-1])
    encoders = encoded.backward(d_pull * scale, gradient)

    # the gradient at each row is a weighted sum of vectors that belong to contexts: sort by row, sum in one go
    owed_rows = np.concatenate([sure.rows, encoders.rows.cpu().numpy()])
    owed_from = np.concatenate([sure.owner, encoders.source.cpu().numpy() + b])
    owed_weight = torch.cat([d_sure, encoders.weight])
    order = stable_order(owed_rows, len(unit))
    offsets = np.concatenate([[0], np.cumsum(np.bincount(owed_rows, minlength=len(unit)))])
    vectors = torch.cat([pull, encoders.vectors])  # [B + V, D]
    d_unit = bag(vectors, put(owed_from[order]), put(offsets), owed_weight[put(order)])
    d_unit[sampled_rows] += d_sampled.T  # unique rows: no two writes meet
    return Gradients(loss, normalise_backward(d_unit, unit, norm), gradient, of_blend)


def _weigh_dislikes(weights: Tensor, z: Tensor) -> None:
    """In place: weights [c] below 0 become w p / (1 - p), where p = 1 / z."""
    pull = 1 / (z - 1).clamp_(min=LEAST_REST)
    weights.mul_(torch.where(weights < 0, pull, torch.ones_like(pull)))


def _loss(weights: Tensor, total: Tensor) -> float:
    """The summed loss where some contexts are dislikes. `weights` [B] as they were given, `total` [B]."""
    likelihood = weights * total.log()
    unlikelihood = weights * torch.log1p(-1 / total.clamp(min=1 + LEAST_REST))
    return float(torch.where(weights < 0, unlikelihood, likelihood).sum())


def segment_sum(value: Tensor, entries: Entries, n: int, length: int) -> Tensor:
    """[B]: the sum of each context's entries, no two of which have the same lag."""
    dense = value.new_zeros(n * (length + 1))
    dense[entries.owner * (length + 1) + entries.lag] = value
    return dense.view(n, length + 1).sum(1)


def stable_order(rows: NDArray[np.int64], bound: int) -> NDArray[np.int64]:
    """The stable argsort of rows in [0, bound)."""
    if bound <= 1 << 16:  # radix sort: 0.2 ms for 60,000 entries, where the comparing sort takes 3.6
        return np.argsort(rows.astype(np.uint16), kind="stable")
    return np.sort((rows << 32) | np.arange(len(rows))) & 0xFFFFFFFF  # a vectorised sort of distinct keys: 2.2 ms


def _counted_already(
    column: NDArray[np.int64], contexts: Contexts, target: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """(context, column of the sample) where a sampled item is the context's target or in its history; by context."""
    owner = np.concatenate([contexts.owner, np.arange(contexts.n)])
    at = np.concatenate([column[contexts.rows], column[target]])
    owner, at = owner[at >= 0], at[at >= 0]
    order = np.argsort(owner, kind="stable")
    return owner[order], at[order]
