"""The laws of every encoder: gradients, lengths, empty histories, and bits."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from service.model.blend import Blend
from service.model.config import BlendConfig
from service.model.contexts import Contexts
from service.model.encoders.directions import normalise
from service.model.encoders.encoder import Encoder
from service.model.encoders.entries import Entries
from service.model.encoders.kinds import EncoderName, encoder_of
from service.model.losses import Gradients, Sample, sampled_softmax
from service.model.parameters import Parameters

DIM, HIDDEN, LENGTH, FEATURES, ITEMS = 6, 7, 5, 2, 12
NAMES: tuple[EncoderName, ...] = ("decay", "gru", "transformer")
CPU = torch.device("cpu")


def encoder(name: EncoderName) -> Encoder:
    return encoder_of(name, layers=2, heads=2)


def drawn(which: Encoder, seed: int, spread: float = 0.5) -> Parameters:
    dense = which.parameters(DIM, HIDDEN, LENGTH, "cpu")
    dense.vector.copy_(torch.randn(dense.vector.shape, generator=torch.Generator().manual_seed(seed)) * spread)
    return dense


def histories_of(seed: int, n: int) -> np.ndarray:
    """None of them empty; with holes."""
    found = np.random.default_rng(seed).integers(-3, ITEMS, (n, LENGTH)).clip(-1).astype(np.int32)
    found[:, 2] = np.maximum(found[:, 2], 0)
    return found


class Problem:
    """A step over a few contexts, in double precision so that differences are exact enough."""

    def __init__(self, name: EncoderName, seed: int) -> None:
        rng, generator = np.random.default_rng(seed), torch.Generator().manual_seed(seed)
        self.encoder = encoder(name)
        self.dense, self.blend = drawn(self.encoder, seed), Blend(BlendConfig(), FEATURES, LENGTH)
        for parameters in (self.dense, self.blend.parameters):
            parameters.vector = parameters.vector.double()
            parameters.views = dict(parameters._views(parameters.vector))
        self.rows = torch.randn(ITEMS, DIM, generator=generator, dtype=torch.float64)
        self.features = torch.randn(ITEMS, FEATURES, generator=generator, dtype=torch.float64)
        self.contexts = Contexts.of(histories_of(seed, 4))
        self.target = rng.integers(0, ITEMS, 4)
        self.weight: Any = rng.uniform(0.5, 1, 4)
        log_expected: Any = rng.normal(size=4)
        self.sample = Sample(np.array([1, 4, 5, 11]), log_expected)

    def gradients(self) -> Gradients:
        unit, norm = normalise(self.rows)
        return sampled_softmax(
            *(self.dense, self.blend, unit, norm, self.features, self.contexts, self.target, self.weight),
            *(self.sample, 4, self.encoder),
        )


@pytest.fixture
def _double() -> Iterator[None]:
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.mark.usefixtures("_double")
@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("name", NAMES)
def test_gradients_are_finite_differences(name: EncoderName, seed: int) -> None:
    problem = Problem(name, seed)
    got = problem.gradients()
    step = 1e-6
    for what, values, gradient in (
        ("rows", problem.rows, got.rows),
        *((n, view, got.dense[n]) for n, view in problem.dense.views.items()),
    ):
        flat, of_flat = values.view(-1), gradient.reshape(-1)
        for at in np.random.default_rng(seed).choice(len(flat), min(len(flat), 12), replace=False).tolist():
            before = float(flat[at])
            losses = []
            for moved in (before + step, before - step):
                flat[at] = moved
                losses.append(problem.gradients().loss)
            flat[at] = before
            assert float(of_flat[at]) == pytest.approx((losses[0] - losses[1]) / (2 * step), rel=1e-4, abs=1e-6), what


def directions(name: EncoderName, dense: Parameters, unit: Tensor, histories: np.ndarray) -> Tensor:
    contexts = Contexts.of(histories)
    return encoder(name).directions(dense, unit, Entries.of(contexts, contexts.rows, CPU))


@pytest.mark.parametrize("name", NAMES)
def test_directions_have_length_1_and_those_of_empty_histories_0(name: EncoderName) -> None:
    unit, _ = normalise(torch.randn(ITEMS, DIM, generator=torch.Generator().manual_seed(0)))
    dense = drawn(encoder(name), 0)
    histories = histories_of(0, 6)
    histories[[1, 4]] = -1
    found = directions(name, dense, unit, histories)
    torch.testing.assert_close(found.norm(dim=1), torch.tensor([1.0, 0, 1, 1, 0, 1]))
    assert not directions(name, dense, unit, np.full((2, LENGTH), -1)).any()
    assert directions(name, dense, unit, np.empty((0, LENGTH), np.int32)).shape == (0, DIM)


@pytest.mark.parametrize("name", NAMES)
def test_a_direction_does_not_depend_on_the_histories_beside_it(name: EncoderName) -> None:
    unit, _ = normalise(torch.randn(ITEMS, DIM, generator=torch.Generator().manual_seed(0)))
    dense, histories = drawn(encoder(name), 0), histories_of(3, 8)
    alone = torch.cat([directions(name, dense, unit, history[None]) for history in histories])
    torch.testing.assert_close(directions(name, dense, unit, histories), alone)


@pytest.mark.parametrize("name", NAMES)
def test_readers_and_learning_encode_alike_and_the_same_bits_twice(name: EncoderName) -> None:
    unit, _ = normalise(torch.randn(ITEMS, DIM, generator=torch.Generator().manual_seed(0)))
    contexts = Contexts.of(histories_of(1, 40))
    entries = Entries.of(contexts, contexts.rows, CPU)
    which, gradient = encoder(name), torch.ones(40, DIM)
    results = []
    for _ in range(2):
        dense = which.parameters(DIM, HIDDEN, LENGTH, "cpu")
        which.initialise(dense, seed=3)
        encoded, into = which.encode(dense, unit, entries), dense.like()
        assert torch.equal(encoded.direction, which.directions(dense, unit, entries))
        owed = encoded.backward(gradient, into)
        results.append((dense.vector, encoded.direction, into.vector, owed.vectors))
    assert all(torch.equal(one, other) for one, other in zip(*results, strict=True))
    other = which.parameters(DIM, HIDDEN, LENGTH, "cpu")
    which.initialise(other, seed=4)
    assert not torch.equal(other.vector, results[0][0])


def test_the_gru_is_torch_s() -> None:
    dense = drawn(encoder("gru"), 0)
    unit, _ = normalise(torch.randn(ITEMS, DIM, generator=torch.Generator().manual_seed(0)))
    plain: Any = torch.nn.GRU(DIM, HIDDEN, batch_first=True)
    with torch.no_grad():
        plain.weight_ih_l0.copy_(dense["gru_in"].T)
        plain.weight_hh_l0.copy_(dense["gru_state"].T)
        plain.bias_ih_l0.copy_(dense["gru_in_bias"])
        plain.bias_hh_l0.copy_(dense["gru_state_bias"])
        for history in ([3], [1, 2, 3], [5, 0, 5, 7, 2]):
            _, state = plain(unit[history].unsqueeze(0))
            wanted = normalise(unit[history[-1:]] + state[0] @ dense["out_weight"] + dense["out_bias"])[0]
            padded = np.array([[-1] * (LENGTH - len(history)) + history])
            torch.testing.assert_close(directions("gru", dense, unit, padded), wanted)


def test_the_transformer_heeds_the_order_of_older_items() -> None:
    dense = drawn(encoder("transformer"), 0)
    unit, _ = normalise(torch.randn(ITEMS, DIM, generator=torch.Generator().manual_seed(0)))
    one, other = directions("transformer", dense, unit, np.array([[-1, -1, 1, 2, 3], [-1, -1, 2, 1, 3]]))
    assert not torch.allclose(one, other, atol=1e-3)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("name", NAMES)
def test_a_gpu_computes_the_same_gradients(name: EncoderName) -> None:
    which, contexts = encoder(name), Contexts.of(histories_of(1, 40))
    unit, _ = normalise(torch.randn(ITEMS, DIM, generator=torch.Generator().manual_seed(0)))
    found = []
    for device in ("cpu", "cuda", "cuda"):
        dense = which.parameters(DIM, HIDDEN, LENGTH, device)
        which.initialise(dense, seed=3)
        entries, into = Entries.of(contexts, contexts.rows, torch.device(device)), dense.like()
        encoded = which.encode(dense, unit.to(device), entries)
        owed = encoded.backward(torch.ones(40, DIM, device=device), into)
        found.append((encoded.direction.cpu(), into.vector.cpu(), owed.vectors.cpu()))
    for of_cpu, of_gpu, again in zip(*found, strict=True):
        torch.testing.assert_close(of_gpu, of_cpu, rtol=1e-3, atol=1e-4)
        assert torch.equal(of_gpu, again)
