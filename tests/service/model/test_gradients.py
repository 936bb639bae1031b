"""The gradients written by hand, against autograd through the plain formula."""

import numpy as np
import pytest
import torch
from torch import Tensor

from service.model.blend import Blend
from service.model.config import BlendConfig
from service.model.contexts import Contexts
from service.model.encoders.decay import decay_parameters
from service.model.encoders.directions import normalise
from service.model.losses import CHUNK, Sample, sampled_softmax, stable_order
from service.model.parameters import Parameters

DIM, LENGTH, FEATURES = 6, 5, 2


def parameters(seed: int, spread: float) -> tuple[Parameters, Blend]:
    """Of the encoder and of the blend, drawn at random."""
    generator = torch.Generator().manual_seed(seed)
    dense, blend = decay_parameters(DIM, 7, LENGTH), Blend(BlendConfig(), FEATURES, LENGTH)
    for vector in (dense.vector, blend.parameters.vector):
        vector.copy_(torch.randn(vector.shape, generator=generator) * spread)
    return dense, blend


def plain_loss(
    dense: dict[str, Tensor],
    rows: Tensor,
    features: Tensor,
    histories: np.ndarray,
    target: np.ndarray,
    weight: np.ndarray,
    sample: Sample,
    bucket: np.ndarray,
) -> Tensor:
    """The same loss, one context and one candidate at a time, as the docstrings of losses.py and ranker.py have it."""
    unit = rows / rows.norm(dim=1, keepdim=True)
    total = torch.zeros((), dtype=rows.dtype)
    for b, history in enumerate(histories):
        latest_first = [(lag, int(row)) for lag, row in enumerate(history[::-1]) if row >= 0]
        mean = torch.stack([dense["lag_weight"][lag].exp() * unit[row] for lag, row in latest_first]).sum(0)
        mean = mean / mean.norm()
        joined = torch.cat([mean, unit[latest_first[0][1]]])
        out = mean + (joined @ dense["in_weight"] + dense["in_bias"]).relu() @ dense["out_weight"] + dense["out_bias"]
        direction = out / out.norm()
        lag_of: dict[int, int] = {}
        for lag, row in latest_first:
            lag_of.setdefault(row, lag)

        def logit(row: int, b: int = b, direction: Tensor = direction, lag_of: dict[int, int] = lag_of) -> Tensor:
            score: Tensor = dense["log_scale"][bucket[b]].exp() * (direction @ unit[row])
            score = score + dense["prior"][bucket[b]] @ features[row]
            return score + dense["repeat"][lag_of[row]] if row in lag_of else score

        certain = [int(target[b]), *(row for row in lag_of if row != target[b])]
        z = torch.stack([logit(row).exp() for row in certain]).sum()
        for row, expected in zip(sample.rows.tolist(), sample.log_expected.tolist(), strict=True):
            if row not in certain:
                z = z + (logit(row) - expected).exp()
        likelihood = logit(int(target[b])) - z.log()
        if weight[b] < 0:  # disliked
            total = total + float(weight[b]) * (1 - likelihood.exp()).log()
        else:
            total = total - float(weight[b]) * likelihood
    return total


@pytest.mark.parametrize("contexts", [1, 9])
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("least", [0.0, -1.0])
def test_hand_gradients_are_autograd_s(contexts: int, seed: int, least: float) -> None:
    """`least`: of the weights; below 0 some of the targets are disliked."""
    generator = torch.Generator().manual_seed(seed)
    rng = np.random.default_rng(seed)
    items = 12
    dense, blend = parameters(seed, 0.5)
    rows = torch.randn(items, DIM, generator=generator)
    features = torch.randn(items, FEATURES, generator=generator)
    histories = rng.integers(-1, items, (contexts, LENGTH)).astype(np.int32)
    histories[:, -1] = np.maximum(histories[:, -1], 0)
    target = rng.integers(0, items, contexts)
    target[0] = histories[0, -1]  # a repeat
    weight = rng.uniform(least, 1, contexts).astype(np.float32)
    sample = Sample(np.array([1, 4, 5, 11]), rng.normal(size=4).astype(np.float32))
    context = Contexts.of(histories)
    unit, norm = normalise(rows)
    got = sampled_softmax(dense, blend, unit, norm, features, context, target, weight, sample, contexts)

    both = dense.views | blend.parameters.views
    wanted = {name: view.double().clone().requires_grad_() for name, view in both.items()}
    wanted_rows = rows.double().clone().requires_grad_()
    loss = plain_loss(wanted, wanted_rows, features.double(), histories, target, weight, sample, context.bucket)
    loss.backward()  # type: ignore[no-untyped-call]
    assert got.loss == pytest.approx(float(loss.detach()), rel=1e-5)
    torch.testing.assert_close(got.rows.double(), wanted_rows.grad, rtol=1e-4, atol=1e-5)
    for name, view in (got.dense.views | got.blend.views).items():
        torch.testing.assert_close(view.double(), wanted[name].grad, rtol=1e-4, atol=1e-5, msg=name)


def test_replayed_contexts_teach_neither_scale_nor_prior_nor_repeat() -> None:
    rng = np.random.default_rng(0)
    dense, blend = parameters(0, 1.0)
    unit, norm = normalise(torch.randn(9, DIM, generator=torch.Generator().manual_seed(1)))
    histories = rng.integers(0, 9, (4, LENGTH))
    target = rng.integers(0, 9, 4)
    sample = Sample(np.arange(3), np.zeros(3, np.float32))

    def gradient(weight: list[float], fresh: int) -> dict[str, Tensor]:
        weights = np.array(weight, np.float32)
        context = Contexts.of(histories)
        got = sampled_softmax(dense, blend, unit, norm, torch.ones(9, 2), context, target, weights, sample, fresh)
        return got.dense.views | got.blend.views

    replayed, without = gradient([1, 1, 1, 1], 2), gradient([1, 1, 0, 0], 4)
    for name in ("log_scale", "prior", "repeat"):
        torch.testing.assert_close(replayed[name], without[name])
    assert not torch.allclose(replayed["out_bias"], without["out_bias"])


def test_chunks_make_no_difference() -> None:
    rng = np.random.default_rng(0)
    n, items = 2 * CHUNK + 3, 50
    dense, blend = parameters(0, 0.3)
    unit, norm = normalise(torch.randn(items, DIM, generator=torch.Generator().manual_seed(1)))
    features = torch.randn(items, 2, generator=torch.Generator().manual_seed(2))
    histories, target = rng.integers(0, items, (n, LENGTH)), rng.integers(0, items, n)
    sample = Sample(np.arange(0, items, 3), np.zeros(17, np.float32))
    weight = rng.random(n).astype(np.float32)
    whole = sampled_softmax(dense, blend, unit, norm, features, Contexts.of(histories), target, weight, sample, n)
    loss, rows = 0.0, torch.zeros_like(whole.rows)
    for part in np.array_split(np.arange(n), 7):
        of_part = sampled_softmax(
            dense, blend, unit, norm, features, Contexts.of(histories[part]), target[part], weight[part], sample, n
        )
        loss += of_part.loss
        rows += of_part.rows
    assert whole.loss == pytest.approx(loss, rel=1e-5)
    torch.testing.assert_close(whole.rows, rows, rtol=1e-3, atol=1e-4)


def test_large_logits_stay_finite() -> None:
    dense, blend = decay_parameters(DIM, 7, LENGTH), Blend(BlendConfig(), FEATURES, LENGTH)
    blend.parameters["log_scale"].fill_(5.0)  # e^5 = 148 times the cosine
    unit, norm = normalise(torch.randn(9, DIM, generator=torch.Generator().manual_seed(1)))
    got = sampled_softmax(
        dense,
        blend,
        unit,
        norm,
        torch.zeros(9, 2),
        Contexts.of(np.array([[-1, -1, 0, 1, 2]])),
        np.array([3]),
        np.ones(1, np.float32),
        Sample(np.array([4, 5, 6, 7, 8]), np.full(5, -5, np.float32)),
        1,
    )
    assert np.isfinite(got.loss)
    assert bool(torch.isfinite(got.rows).all())


@pytest.mark.parametrize("bound", [100, 1 << 17])
def test_order_is_stable(bound: int) -> None:
    rows = np.random.default_rng(0).integers(0, 100, 1000)
    assert np.array_equal(stable_order(rows, bound), np.argsort(rows, kind="stable"))
