"""`tidemill verify [N]`: the user's own proof that a version is what its events make of it."""

import argparse
import logging
import sys
import time
from contextlib import ExitStack

import torch
from confluent_kafka import KafkaException
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from consumers.kafka_identity import KafkaIdentity, identify
from consumers.recorded import EventsGone, NoAnswer
from model_store.errors import ModelStoreError
from model_store.store import ModelStore
from model_store.version import Manifest
from service.argument_types import count, count_or_none
from service.process import Fatal
from service.settings import TrainerSettings
from service.stores import model_store
from service.training.configuration import compute_as, config_of, differences, environment
from service.training.restart.rebuild import from_kafka
from service.training.restart.verify import Route, route_to, verify


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("version", type=count, nargs="?", metavar="N", help="the live one by default")
    parser.add_argument(
        "--from",
        dest="start",
        type=count_or_none,
        metavar="M",
        help="begin with version M, or 0: nothing (default: the nearest)",
    )


def run(args: argparse.Namespace) -> int:
    return run_verify(args.version, args.start)


def run_verify(version: int | None, start: int | None) -> int:
    """0 when every bit is the same, 1 when not. Raises Fatal when it cannot be found out."""
    logging.getLogger().addHandler(logging.NullHandler())  # what goes wrong is said in one line, at the end
    settings = TrainerSettings()
    store = model_store(settings, checkpoint_url=settings.checkpoint_url)
    number = version if version is not None else store.live()
    if number is None:
        raise Fatal("there is no live version yet: has a trainer run?")
    try:
        return _prove(settings, store, route_to(store, number, start))
    except (EventsGone, NoAnswer, ModelStoreError) as error:
        raise Fatal(f"version {number} cannot be made again: {error}") from error


def _prove(settings: TrainerSettings, store: ModelStore, chosen: Route) -> int:
    made = chosen.version
    _same_kafka(settings, made)
    device = _device(made)
    _warn(chosen, device)
    torch.set_deterministic_debug_mode("error")
    types = config_of(made).history.event_weights
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    began = time.perf_counter()
    with ExitStack() as stack:
        read = from_kafka(stack, settings.kafka_bootstrap, settings.kafka_config, types, settings.items_topic)(
            chosen.manifests
        )
        shown = stack.enter_context(Progress(*columns, console=console, disable=not console.is_terminal))
        task = shown.add_task("micro-batches", total=chosen.batches)

        def show(done: int, _: int) -> None:
            shown.update(task, completed=done)

        proof = verify(store, chosen, read, device, prepare=compute_as, progress=show)
    seconds = time.perf_counter() - began
    since = "nothing" if chosen.base is None else f"version {chosen.base.version}"
    work = f"made again from {since}, {chosen.batches} micro-batches and {proof.events} events, in {seconds:.1f} s"
    if proof.difference is None:
        print(
            f"version {made.version} is identical: {work}; "
            f"{proof.values:,} values in {proof.tables} tables and tensors are the same, bit for bit"
        )
        return 0
    departs = "" if proof.departs_at is None else f"; the first version that departs is {proof.departs_at}"
    print(f"version {made.version} is NOT identical: {proof.difference} ({work}{departs})")
    return 1


def _same_kafka(settings: TrainerSettings, made: Manifest) -> None:
    try:
        found = identify(settings.kafka_bootstrap, list(made.kafka.topics), extra=settings.kafka_config)
    except KafkaException as error:
        raise Fatal(f"Kafka at {settings.kafka_bootstrap} cannot be asked: {error.args[0].str()}") from error
    if (why := KafkaIdentity(made.kafka.cluster_id, made.kafka.topics).difference(found)) is not None:
        raise Fatal(f"version {made.version} cannot be made again: {why}")


def _device(made: Manifest) -> str:
    device = str(made.environment.get("device", "cpu"))
    return device if device == "cpu" or torch.cuda.is_available() else "cpu"


def _warn(chosen: Route, device: str) -> None:
    """Of everything but events and settings that may make a difference, before one is met."""
    said: set[str] = set()
    for manifest in chosen.manifests:
        compute_as(manifest)
        for difference in differences(manifest.environment, environment(device)):
            if manifest.batches and difference not in said:
                said.add(difference)
                line = f"version {manifest.version} was computed with another {difference}; bits may differ by that"
                print(f"warning: {line}", file=sys.stderr)
