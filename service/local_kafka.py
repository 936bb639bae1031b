"""The embedded Kafka: librdkafka's mock cluster, alive as long as this process. Run as a script by `service.local`.

It speaks the Kafka protocol on 127.0.0.1 at a port of its own choosing, which is printed as one line. Its limits: four
partitions a topic, about 5 MB kept of each, nothing on disk, no compaction, no call to create topics, and whenever a
group changes, its members wait out the session timeout less a second.
"""

import ctypes
import importlib.util
import signal
from pathlib import Path

_PRODUCER = 0  # rd_kafka_type_t
_JOIN_DELAY_MS = 100  # how long an empty group waits for more members; 3 s if nobody says otherwise


def main() -> None:
    # By librdkafka's own functions: a cluster made by confluent_kafka (a Producer with `test.mock.num.brokers`) cannot
    # be told the delay, and everyone's first list came 3 s later.
    kafka = ctypes.CDLL(_library())
    for function in (kafka.rd_kafka_conf_new, kafka.rd_kafka_new, kafka.rd_kafka_mock_cluster_new):
        function.restype = ctypes.c_void_p
    kafka.rd_kafka_mock_cluster_bootstraps.restype = ctypes.c_char_p

    why = ctypes.create_string_buffer(512)
    conf = ctypes.c_void_p(kafka.rd_kafka_conf_new())
    if kafka.rd_kafka_conf_set(conf, b"log_level", b"0", why, len(why)) != 0:
        raise SystemExit(why.value.decode())
    client = ctypes.c_void_p(kafka.rd_kafka_new(_PRODUCER, conf, why, len(why)))
    if not client:
        raise SystemExit(why.value.decode())
    cluster = ctypes.c_void_p(kafka.rd_kafka_mock_cluster_new(client, 1))
    if not cluster:
        raise SystemExit("librdkafka made no mock cluster")
    kafka.rd_kafka_mock_group_initial_rebalance_delay_ms(cluster, ctypes.c_int32(_JOIN_DELAY_MS))
    print(kafka.rd_kafka_mock_cluster_bootstraps(cluster).decode(), flush=True)
    while True:
        signal.pause()


def _library() -> str:
    """Where librdkafka lies: within the package, which itself is not imported, as everybody waits for this process."""
    package = importlib.util.find_spec("confluent_kafka")
    assert package is not None
    assert package.submodule_search_locations is not None
    return str(next(Path(package.submodule_search_locations[0]).glob("cimpl*.so")))


if __name__ == "__main__":
    main()
