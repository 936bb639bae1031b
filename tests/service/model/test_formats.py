"""Models that earlier releases wrote: read, verified, and gone on with.

tests/golden/models holds one of each form ever written: the manifests and blobs of a short run, and the events it
learned. A new form adds a file: `python -m tests.service.model.golden NAME` writes it.
"""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from consumers.events import DEFAULT_EVENT_WEIGHTS
from model_store.chain import load
from model_store.memory_store import MemoryStore
from service.model.formats import as_flat, is_flat, sections_of, upgraded
from service.model.recommender import Recommender
from service.model.registry import parse
from service.training.configuration import config_digest, config_of
from service.training.learner import Learner
from tests.service.model.configs import ranked, small
from tests.service.model.golden import GOLDEN, Model, arithmetic
from tests.service.training.runs import Run, manifests, prove

MODELS = sorted(GOLDEN.glob("*.json.gz"))
FIELDS: dict[str, Any] = {
    "negatives": 16,
    "replay_capacity": 60,
    "replay_recent": 20,
    "max_items": 45,
    "max_users": 30,
}
TYPES_THEN = ("view", "click", "add_to_cart", "purchase", "like", "dislike", "rating", "search")
MEANT = {
    "flat-config": small(
        **FIELDS, remember_unlisted=False, event_weights={kind: DEFAULT_EVENT_WEIGHTS[kind] for kind in TYPES_THEN}
    ),
    "sections": small(**FIELDS, dislikes=1.0),
    "ranker": ranked(network=True, **FIELDS, dislikes=1.0),
}
LIMITED = small(**FIELDS)  # a trainer of this release, with the event types that came since


@pytest.fixture(params=MODELS, ids=lambda path: path.name.partition(".")[0])
def model(request: pytest.FixtureRequest) -> Model:
    path: Path = request.param
    return Model.read(path)


def must_be_of_this_arithmetic(model: Model) -> None:
    """Skips where the bits of what is learned cannot be compared."""
    if model.arithmetic != arithmetic():
        pytest.skip("learned on another kind of machine, where sums differ in their last bits")


def test_its_configuration_means_what_it_meant(model: Model, request: pytest.FixtureRequest) -> None:
    wanted = MEANT[request.node.callspec.id]
    for manifest in model.manifests:
        config = config_of(manifest)
        assert config_digest(config) == config_digest(wanted)
        assert config.limits == wanted.limits
        assert parse(config.to_json()) == config


def test_readers_make_lists_of_it(model: Model) -> None:
    store, newest = model.store(), model.manifests[-1]
    reader = Recommender(config_of(newest))
    reader.apply(load(store, newest.version, readers=True).snapshot())
    rows, scores = reader.top_k(np.arange(10)[:, None], 10)
    learner = Learner.restore(config_of(newest), load(store, newest.version))
    wanted_rows, wanted_scores = learner.recommender.top_k(np.arange(10)[:, None], 10)
    assert rows.tobytes() == wanted_rows.tobytes()
    assert scores.tobytes() == wanted_scores.tobytes()
    assert (rows >= 0).all()
    assert len({tuple(row) for row in rows.tolist()}) > 5  # the history counts: the network was read as well


def test_it_is_verified(model: Model) -> None:
    must_be_of_this_arithmetic(model)
    store = model.store()
    for manifest in model.manifests:
        proof = prove(store, manifest.version, model.fed)
        assert (proof.difference, proof.departs_at) == (None, None), manifest.version
        proof = prove(store, manifest.version, model.fed, start=0)
        assert (proof.difference, proof.departs_at) == (None, None), manifest.version


def test_it_goes_on_and_the_first_version_of_its_own_is_a_snapshot(model: Model) -> None:
    store = model.store()
    newest = model.manifests[-1]
    run = Run(store, config=LIMITED)
    assert (run.beginning.standing.parent, run.progress.events_trained) == (newest.version, newest.events_trained)
    again = Learner.restore(run.learner.config, load(store, newest.version))
    run.go(model.fed[7:8])
    made = [manifest for manifest in manifests(store) if manifest.version > newest.version]
    if made[0].config_digest != newest.config_digest:  # readers take a delta only of the configuration they have
        assert made[0].kind == "snapshot"
    assert not is_flat(made[0].config)
    assert made[-1].events_trained == newest.events_trained + 20
    again.learn(model.fed[7])
    left, right = load(store, made[-1].version), again.snapshot()
    for name, rows in right.tables.items():
        assert np.array_equal(np.asarray(left.table(name)), np.asarray(rows.values), equal_nan=False), name
    for name, tensor in right.tensors.items():
        assert left.tensor(name).tobytes() == tensor.tobytes(), name


def test_what_was_learned_after_the_last_checkpoint_is_held_against_what_was_published(model: Model) -> None:
    must_be_of_this_arithmetic(model)
    store: MemoryStore = model.store()
    for manifest in model.manifests[-1:]:  # as if the last version were no checkpoint
        store.tamper(manifest=(manifest.version, manifest.model_copy(update={"checkpoint": False}).to_json()))
    run = Run(store, config=LIMITED, log=model.log())
    assert run.metric("versions_relearned_total", same="yes") == 1
    assert run.beginning.standing.parent == model.manifests[-1].version


def test_names_change_and_change_back() -> None:
    learner = Learner(small())
    today = learner.snapshot()
    assert upgraded(today) is today
    for_readers = {name: tensor for name, tensor in today.tensors.items() if not name.startswith("trainer/")}
    then = as_flat(today)
    assert {"network/log_scale", "network/prior", "network/repeat"} < then.tensors.keys()
    back = upgraded(then)
    assert {name: tensor.tobytes() for name, tensor in back.tensors.items() if name in for_readers} == {
        name: tensor.tobytes() for name, tensor in for_readers.items()
    }


def test_a_configuration_in_sections_is_left_as_it_is() -> None:
    said = small().to_json()
    assert sections_of(said) == said
