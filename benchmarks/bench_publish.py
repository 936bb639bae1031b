"""What do a publish and a checkpoint cost, and how long does learning stall for them, as a model and its users grow?

Several worlds side by side, each a trainer with its publisher over a real Redis, and in each the very same events,
which touch the same 10,000 of its items: 10,000 items in all against a million, 10,000 users against half a million.
They take turns, so that whatever else the machine does meets all alike, and figures are medians and ratios of one run.
"""

import argparse
import os
import platform
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import torch

from benchmarks.publishing_worlds import Step, Stream, World, take_turns
from service.model.negatives import STEPS_AHEAD
from tests.redis_server import redis_server


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--versions", type=int, default=40, help="a world, one at a time and nothing else going on")
    parser.add_argument("--snapshots", type=int, default=3, help="a world, while it learns")
    parser.add_argument("--all", action="store_true", help="seven worlds, in 6 GB of memory, instead of two")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    print(f"machine: {os.cpu_count()} cores, {platform.machine()}, torch {torch.__version__}, numpy {np.__version__}")
    with ExitStack() as stack:
        server = stack.enter_context(redis_server())
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="tidemill-bench-")))
        connection = stack.enter_context(server.client())
        worlds = [
            World("10k items", 10_000, 10_000),
            World("1M items", 1_000_000, 10_000),
        ]
        more = [
            World("10k items, no checkpoints", 10_000, 10_000, checkpoint_interval_s=1e9),
            World("1M items, no checkpoints", 1_000_000, 10_000, checkpoint_interval_s=1e9),
            World("10k items, file://", 10_000, 10_000, folder=folder),
            World("1M items, file://", 1_000_000, 10_000, folder=folder),
            World("10k items, 500k users", 10_000, 500_000),
        ]
        worlds += more if arguments.all else []
        for world in worlds:
            began = time.perf_counter()
            world.begin(connection, 1)
            stack.callback(world.end)
            print(f"{world.name}: version 1 after {time.perf_counter() - began:.1f} s")
        stream = Stream(1)
        at = take_turns(worlds, stream, 0, 2, 3)
        for world in worlds:
            world.forget()
        at = take_turns(worlds, stream, at, max(1, arguments.versions // 5), 5)
        costs(worlds)
        for world in worlds:
            world.forget()
            world.probe = True
        at = take_turns(worlds, stream, at, 4, 3)
        for _ in range(arguments.snapshots):
            for world in worlds:
                world.store.request_snapshot("bench")
                world.go((), alone=True, linger_s=1.0)
        print("\nlongest that a thread beside it had to wait while a version was published: ms, p50 and worst")
        for world in worlds:
            for kind, holds in world.holds.items():
                print(f"  {world.name:<28} {kind:<9} {np.median(holds):7.1f} {max(holds):7.1f}")
        stalls(worlds, stream, at, arguments.snapshots)


def costs(worlds: Sequence[World]) -> None:
    print("\na version, alone: ms from submit to live, p50 and p90; kB of weights, and of all; ms to drain and submit;")
    print("ms a step, and of it ms to evaluate")
    base: dict[str, float] = {}
    for world in worlds:
        deltas = [each for each in world.store.published if each.kind == "delta" and each.live]
        taken = np.array([each.live - each.submitted for each in deltas]) * 1e3
        submits = np.array(world.trainer.submits) * 1e3
        step = np.median([each.ended - each.began for each in world.steps]) * 1e3
        rank = np.median(world.learner.ranked) * 1e3
        base[world.name] = float(np.median(taken))
        print(
            f"  {world.name:<28} {np.median(taken):7.1f} {np.percentile(taken, 90):7.1f}  "
            f"{np.mean([each.weights_bytes for each in deltas]) / 1e3:7.0f} "
            f"{np.mean([each.all_bytes for each in deltas]) / 1e3:7.0f}  "
            f"{np.median(submits):6.1f} {submits.max():6.1f}  {step:6.0f} {rank:5.1f}"
        )
    for small, large in (
        ("10k items", "1M items"),
        ("10k items, no checkpoints", "1M items, no checkpoints"),
        ("10k items, file://", "1M items, file://"),
        ("10k items", "10k items, 500k users"),
    ):
        if small in base and large in base:
            print(f"  {large} ÷ {small}: {base[large] / base[small]:.2f}")


def stalls(worlds: Sequence[World], stream: Stream, at: int, snapshots: int) -> None:
    """Learning without a pause: what a step takes longer while a version is under way."""
    for world in worlds:
        world.forget()
        world.probe = False
        world.learner.evaluate_sample = 0  # it, and drawing negatives, come every few steps and are no stall
    for _ in range(snapshots):
        for world in worlds:
            for may, wanted, steps in ((False, False, 24), (True, False, 24), (True, True, 48)):
                world.publisher.may = may
                if wanted:
                    world.store.request_snapshot("bench")
                world.go(stream.batches(world, at, steps), alone=False)
                at += steps
    print(
        "\nhow much longer than usual a step took, ms: p50, p90, p99 and worst; and for how long it waited for another"
    )
    print("thread of the trainer: p50, p99 and worst")
    for world in worlds:
        shown_stalls(world)
    print("\na snapshot beside learning: s, MB, and how many times the weights of a delta, and all of it")
    for world in worlds:
        shown_sizes(world)


def shown_stalls(world: World) -> None:
    groups: dict[str, list[Step]] = {"none": [], "delta": [], "snapshot": []}
    for step in world.steps:
        if step.number % STEPS_AHEAD:
            beside = {v.kind for v in world.store.published if v.began < step.ended and v.live > step.began}
            kind = "snapshot" if "snapshot" in beside else "delta" if beside else "none"
            groups[kind].append(step)
    usual = float(np.median([step.ended - step.began for step in groups["none"]]))
    for kind, steps in groups.items():
        if steps:
            extra = [step.ended - step.began - usual for step in steps]
            blocked = [step.blocked for step in steps]
            seconds = (*np.percentile(extra, [50, 90, 99, 100]), *np.percentile(blocked, [50, 99, 100]))
            figures = " ".join(f"{value * 1e3:6.1f}" for value in seconds)
            print(f"  {world.name:<28} {kind:<9} {len(steps):4d} steps of {usual * 1e3:.0f} {figures}")


def shown_sizes(world: World) -> None:
    written = [each for each in world.store.published if each.kind == "snapshot" and each.live]
    deltas = [each for each in world.store.published if each.kind == "delta"]
    weights, everything = (
        float(np.mean([getattr(each, what) for each in written]) / np.mean([getattr(each, what) for each in deltas]))
        for what in ("weights_bytes", "all_bytes")
    )
    seconds = np.median([each.live - each.began for each in written])
    print(f"  {world.name:<28} {seconds:6.2f} {written[-1].all_bytes / 1e6:6.0f} {weights:7.1f} {everything:7.1f}")


if __name__ == "__main__":
    main()
