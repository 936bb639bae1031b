"""The embedded Kafka: librdkafka's mock cluster, alive as long as this process. Run as a script by `service.local`.

It speaks the Kafka protocol on 127.0.0.1 at a port of its own choosing, which is printed as one line. Its limits: four
partitions a topic, about 5 MB kept of each, nothing on disk, no compaction, no call to create topics.
"""

import signal

from confluent_kafka import Producer


def main() -> None:
    # the cluster lives inside this producer, which must therefore not be collected
    cluster = Producer({"bootstrap.servers": "unused", "test.mock.num.brokers": 1, "log_level": 0})
    brokers = cluster.list_topics(timeout=10).brokers.values()
    print(",".join(f"{broker.host}:{broker.port}" for broker in brokers), flush=True)
    while True:
        signal.pause()


if __name__ == "__main__":
    main()
