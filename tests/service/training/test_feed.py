"""A real feeder that is stopped by a signal: it lives, and says nothing more."""

import os
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import replace

import pytest

from consumers.feeder import FeederConfig
from consumers.feeder_process import Feeder, start_feeder
from consumers.micro_batch import MicroBatch
from consumers.records import Offsets, TopicPartition, next_offsets
from service.health import Health
from service.metrics import TrainerMetrics
from service.training import feed as module
from service.training import heartbeat
from service.training.feed import Feed
from tests import brokers
from tests.consumers.samples import event_json


def test_a_frozen_feeder_is_said_and_replaced_and_no_event_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heartbeat, "SAID_AFTER_S", 2.0)  # its status comes every second
    monkeypatch.setattr(heartbeat, "KILLED_AFTER_S", 4.0)
    monkeypatch.setattr(module, "KILLED_AFTER_S", 4.0)
    monkeypatch.setattr(module, "SAID_AFTER_S", 2.0)
    bootstrap = brokers.mock_cluster()
    events, items = brokers.unique_topic("events"), brokers.unique_topic("items")
    for topic in (events, items):
        brokers.create_topic(bootstrap, topic)
    config = FeederConfig(bootstrap, events, items, batch_wait_s=0.01, group_id=events)
    feeders: list[Feeder] = []
    learned: dict[TopicPartition, int] = {}
    health, metrics = Health("trainer"), TrainerMetrics()
    health.started()

    def start(offsets: Offsets) -> Feeder:
        feeders.append(start_feeder(replace(config, start=dict(offsets))))
        return feeders[-1]

    feed = Feed(start, learned, metrics=metrics, health=health, stop=threading.Event())
    got = 0

    def until(true: Callable[[], bool]) -> None:
        nonlocal got
        deadline = time.monotonic() + 60.0
        while not true():
            assert time.monotonic() < deadline, (got, health.report())
            message = feed.receive(0.02)
            if isinstance(message, MicroBatch):
                learned.update(next_offsets(message.ranges))
                got += len(message)

    def publish(n: int) -> None:
        for _ in range(n):
            brokers.produce(bootstrap, events, event_json(user_id="u"), key=b"u")
        brokers.flush(bootstrap)

    try:
        publish(3)
        until(lambda: got == 3)
        assert health.report()[0]
        os.kill(feeders[0].pid, signal.SIGSTOP)
        until(lambda: not health.report()[0])
        assert "the feeder has been silent for" in str(health.report()[1]["checks"])
        assert feed.silent_s >= 2.0
        publish(4)
        until(lambda: len(feeders) == 2)
        assert not feeders[0].alive
        until(lambda: got == 7)
        assert health.report()[0]
        assert feed.silent_s == 0.0
        assert metrics.registry.get_sample_value("tidemill_feeder_restarts_total") == 1
    finally:
        feed.close()
    assert not feeders[1].alive
