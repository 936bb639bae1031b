"""What a trainer that nobody kills makes of the same batches: one learner, in one process, from the first event on."""

import hashlib
import itertools
import math
from collections.abc import Sequence

import torch

from consumers.batcher import MicroBatcher
from consumers.decode import DecodeRules, decode
from consumers.records import Record
from model_store.weights import State
from service.settings import TrainerSettings
from service.training.configuration import learner_config
from service.training.learner import Learner


def fingerprint(state: State) -> str:
    """SHA-256 over every table and tensor of a version, those for trainers too: names, types, shapes and bits."""
    whole = hashlib.sha256()
    content = {name: state.table(name) for name in state.tables} | {name: state.tensor(name) for name in state.tensors}
    for name, values in sorted(content.items()):
        if isinstance(values, list):
            kind, data = "strings", "\n".join(values).encode()
        else:
            kind, data = f"{values.dtype}{values.shape}", values.tobytes()
        whole.update(f"{name} {kind} {len(data)}\n".encode() + data)
    return whole.hexdigest()


def fingerprints(topic: str, records: Sequence[tuple[bytes, bytes]], seed: int, batch_events: int) -> dict[int, str]:
    """By the offset it has learned through: the fingerprint after each batch of a partition's (key, value) records.

    Without replay. As `tidemill trainer` does it: one thread, the same settings.
    """
    torch.set_num_threads(1)
    torch.set_deterministic_debug_mode("error")
    settings = TrainerSettings(seed=seed, events_topic=topic, threads=1)
    learner = Learner(learner_config(settings, "cpu"))
    rules = DecodeRules(event_types=settings.event_weights)
    batcher = MicroBatcher(batch_events, math.inf, list(settings.event_weights), itertools.count().__next__)
    decoded = decode([Record(topic, 0, at, 0, key, value) for at, (key, value) in enumerate(records)], rules, 2**42)
    state = State()
    state.apply(learner.snapshot())
    learner.drain()
    found = {0: fingerprint(state)}
    for batch in batcher.add(decoded):
        learner.learn(batch, replay=0)
        state.apply(learner.drain())
        found[batch.ranges[0].end] = fingerprint(state)
    return found
