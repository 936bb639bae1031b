"""A Kafka that refuses what it is told to: librdkafka's mock cluster in this process, with errors for its answers."""

import ctypes
from enum import IntEnum

from confluent_kafka import cimpl

_PRODUCER = 0  # rd_kafka_type_t
_MANY = 100_000  # errors in a row: longer than any test asks


class Request(IntEnum):
    """Kafka's numbers of requests."""

    PRODUCE = 0
    FETCH = 1
    LIST_OFFSETS = 2
    METADATA = 3
    OFFSET_FETCH = 9
    FIND_COORDINATOR = 10
    JOIN_GROUP = 11
    HEARTBEAT = 12
    INIT_PRODUCER_ID = 22


class RefusingKafka:
    """Four partitions a topic, made on first use. `close` it."""

    def __init__(self) -> None:
        kafka = self._kafka = ctypes.CDLL(cimpl.__file__)
        for function in (kafka.rd_kafka_conf_new, kafka.rd_kafka_new, kafka.rd_kafka_mock_cluster_new):
            function.restype = ctypes.c_void_p
        kafka.rd_kafka_mock_cluster_bootstraps.restype = ctypes.c_char_p
        why = ctypes.create_string_buffer(512)
        conf = ctypes.c_void_p(kafka.rd_kafka_conf_new())
        kafka.rd_kafka_conf_set(conf, b"log_level", b"0", why, len(why))
        self._client = ctypes.c_void_p(kafka.rd_kafka_new(_PRODUCER, conf, why, len(why)))
        self._cluster = ctypes.c_void_p(kafka.rd_kafka_mock_cluster_new(self._client, 1))
        kafka.rd_kafka_mock_group_initial_rebalance_delay_ms(self._cluster, ctypes.c_int32(100))
        self.bootstrap: str = kafka.rd_kafka_mock_cluster_bootstraps(self._cluster).decode()

    def refuse(self, request: Request, error: int, times: int = _MANY) -> None:
        """Answer the next requests of this kind with this error (a code of `KafkaError`)."""
        errors = (ctypes.c_int * times)(*[error] * times)
        self._kafka.rd_kafka_mock_push_request_errors_array(
            self._cluster, ctypes.c_int16(request), ctypes.c_size_t(times), errors
        )

    def allow(self, request: Request) -> None:
        self._kafka.rd_kafka_mock_clear_request_errors(self._cluster, ctypes.c_int16(request))

    def close(self) -> None:
        self._kafka.rd_kafka_mock_cluster_destroy(self._cluster)
        self._kafka.rd_kafka_destroy(self._client)
