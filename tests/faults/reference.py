"""What a trainer that nobody kills makes of the same batches: one learner, in one process, from the first event on."""

import hashlib
import itertools
import math
from collections.abc import Sequence

import torch

from consumers.batcher import MicroBatcher
from consumers.decode import DecodeRules, decode
from consumers.records import Record
from model_store.weights import TRAINER, State
from service.settings import TrainerSettings
from service.training.configuration import model_config
from service.training.effort import Effort
from service.training.learner import Learner


def fingerprint(state: State, *, checkpoint: bool = True) -> str:
    """SHA-256 over every table and tensor of a version: names, types, shapes and bits.

    Those for trainers too, but for a version that is no checkpoint: it does not bring them.
    """
    whole = hashlib.sha256()
    content = {name: state.table(name) for name in state.tables} | {name: state.tensor(name) for name in state.tensors}
    for name, values in sorted(content.items()):
        if name.startswith(TRAINER) and not checkpoint:
            continue
        if isinstance(values, list):
            kind, data = "strings", "\n".join(values).encode()
        else:
            kind, data = f"{values.dtype}{values.shape}", values.tobytes()
        whole.update(f"{name} {kind} {len(data)}\n".encode() + data)
    return whole.hexdigest()


def fingerprints(
    topic: str, records: Sequence[tuple[bytes, bytes]], seed: int, batch_events: int
) -> dict[tuple[int, bool], str]:
    """By the offset it has learned through, and whether it is a checkpoint: fingerprints after each batch.

    `records`: (key, value) of a partition. As `tidemill trainer` does it without replay: one thread, the same settings.
    """
    torch.set_num_threads(1)
    torch.set_deterministic_debug_mode("error")
    settings = TrainerSettings(seed=seed, events_topic=topic, threads=1)
    learner = Learner(model_config(settings))
    rules = DecodeRules(event_types=settings.event_weights)
    batcher = MicroBatcher(batch_events, math.inf, list(settings.event_weights), itertools.count().__next__)
    decoded = decode([Record(topic, 0, at, 0, key, value) for at, (key, value) in enumerate(records)], rules, 2**42)
    state = State()
    state.apply(learner.snapshot())
    learner.drain()
    found = {(0, whole): fingerprint(state, checkpoint=whole) for whole in (True, False)}
    for batch in batcher.add(decoded):
        learner.learn(batch, Effort(replay=0))
        state.apply(learner.drain())
        for whole in (True, False):
            found[batch.ranges[0].end, whole] = fingerprint(state, checkpoint=whole)
    return found
