"""What goes in comes out, at most so much waits in between, and either end hears when the other is gone."""

import threading
import time
from multiprocessing import Pipe

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from consumers.batcher import MicroBatcher
from consumers.decode import DecodeRules, decode
from consumers.letters import Refused
from consumers.micro_batch import MicroBatch
from consumers.pipe import (
    FeederDied,
    FeederStatus,
    ParentDied,
    PipeReceiver,
    PipeSender,
    decode_message,
    encode,
)
from consumers.records import Record, TopicPartition
from tests.consumers.samples import NOW_MS, event_json, event_record, ids, refusals, streams

RULES = DecodeRules()
COLUMNS = ("user", "item", "type", "ts", "value", "event_key", "kafka_ts")


def batch_of(records: list[Record]) -> MicroBatch:
    batcher = MicroBatcher(10_000, 1.0, list(RULES.event_types), time.monotonic)
    batcher.note_ends({TopicPartition("events", 0): 2**62})
    batcher.add(decode(records, RULES, NOW_MS))
    batcher.add(decode([event_record(None, offset=2**40)], RULES, NOW_MS))  # so that there is one, also of nothing
    batch = batcher.flush()
    assert batch is not None
    return batch


def assert_same(got: object, sent: MicroBatch) -> None:
    assert isinstance(got, MicroBatch)
    for name in COLUMNS:
        column, expected = getattr(got, name), getattr(sent, name)
        assert column.dtype == expected.dtype
        np.testing.assert_array_equal(column, expected)
    for name in set(MicroBatch.__dataclass_fields__) - set(COLUMNS):
        assert getattr(got, name) == getattr(sent, name), name


@settings(max_examples=40, deadline=None)
@given(streams())
def test_a_batch_comes_out_as_it_went_in(records: list[Record]) -> None:
    batch = batch_of(records)
    assert_same(decode_message(encode(batch)), batch)


@given(
    st.booleans(),
    ids,
    st.booleans(),
    st.dictionaries(st.builds(TopicPartition, ids, st.integers(0, 99)), st.integers(0, 2**62)),
)
def test_a_status_comes_out_as_it_went_in(
    healthy: bool, message: str, items_read: bool, ends: dict[TopicPartition, int]
) -> None:
    status = FeederStatus(healthy, message, items_read, ends)
    assert decode_message(encode(status)) == status


@given(refusals())
def test_a_refused_letter_comes_out_as_it_went_in(refused: Refused) -> None:
    assert decode_message(encode(refused)) == refused


def big_batch() -> MicroBatch:
    return batch_of([event_record(event_json(user_id=f"{k:0250d}"), offset=k) for k in range(1000)])


def test_messages_arrive_in_order_and_a_closed_sender_is_a_dead_feeder() -> None:
    ours, theirs = Pipe()
    receiver, sender = PipeReceiver(ours), PipeSender(theirs)
    batch = big_batch()
    sender.send(FeederStatus(True))
    sender.send(batch)
    theirs.close()
    assert receiver.receive(5) == FeederStatus(True)
    assert_same(receiver.receive(5), batch)
    for _ in range(2):
        with pytest.raises(FeederDied):
            receiver.receive(5)
    receiver.close()


def test_receive_waits_no_longer_than_asked() -> None:
    ours, theirs = Pipe()
    receiver = PipeReceiver(ours)
    assert receiver.receive(0) is None
    start = time.monotonic()
    assert receiver.receive(0.05) is None
    assert time.monotonic() - start < 1
    receiver.close()
    theirs.close()


def test_a_full_pipe_makes_the_sender_wait() -> None:
    ours, theirs = Pipe()
    receiver, sender = PipeReceiver(ours, capacity=3), PipeSender(theirs)
    batch, sent = big_batch(), []

    def send_all() -> None:
        for n in range(20):
            sender.send(batch)
            sent.append(n)

    thread = threading.Thread(target=send_all)
    thread.start()
    time.sleep(0.5)
    held = len(sent)
    assert (
        held <= 3 + 2
    )  # the queue, one in the receiving thread's hand, and what the kernel's buffer holds of the next
    for _ in range(20):
        assert_same(receiver.receive(5), batch)
    thread.join(5)
    assert len(sent) == 20
    receiver.close()
    theirs.close()


def test_a_sender_whose_parent_is_gone_hears_of_it() -> None:
    ours, theirs = Pipe()
    receiver, sender = PipeReceiver(ours), PipeSender(theirs)
    receiver.close()
    with pytest.raises(ParentDied):
        sender.send(FeederStatus(True))
    theirs.close()


def test_a_sender_that_waits_for_room_is_woken_when_its_parent_goes() -> None:
    ours, theirs = Pipe()
    receiver, sender = PipeReceiver(ours, capacity=1), PipeSender(theirs)
    batch, heard = big_batch(), threading.Event()

    def send_all() -> None:
        try:
            while True:
                sender.send(batch)
        except ParentDied:
            heard.set()

    thread = threading.Thread(target=send_all)
    thread.start()
    time.sleep(0.3)
    receiver.close()
    assert heard.wait(5)
    thread.join()
    theirs.close()
