"""Stands in for the trainer or a scorer in tests of `tidemill up`: answers /metrics and /health, writes to Redis.

    python standin.py NAME [--die-after SECONDS] [--deaf] [--status N] [--grandchild] [--lists] [--stuck]

The figures are made up, but grow as real ones do. `--deaf` ignores SIGTERM; `--stuck` learns from nothing.
"""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter, deque
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from confluent_kafka import Consumer
from prometheus_client import CollectorRegistry, generate_latest

from model_store.keys import Keys
from model_store.redis_connection import RedisConnection, connect
from service.metrics import ScorerMetrics, TrainerMetrics


def _serve(registry: CollectorRegistry) -> None:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = generate_latest(registry) if self.path == "/metrics" else b'{"status": "ok"}'
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args: object) -> None:
            pass

    class Server(ThreadingHTTPServer):
        def handle_error(self, request: object, client_address: object) -> None:
            """Who asked has gone away: nothing for the log."""

    server = Server(("127.0.0.1", int(os.environ["TIDEMILL_METRICS_PORT"])), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()


def _lists(redis: RedisConnection, keys: Keys) -> None:
    """Lists, for every user who acts, of what was last acted on by anybody."""
    consumer = Consumer(
        {
            "bootstrap.servers": os.environ["TIDEMILL_KAFKA_BOOTSTRAP"],
            "group.id": "standins",
            "auto.offset.reset": "earliest",
            "fetch.wait.max.ms": 10,
        }
    )
    consumer.subscribe(["events"])
    latest: deque[str] = deque(maxlen=200)
    seen: Counter[str] = Counter()
    while True:
        message = consumer.poll(1.0)
        if message is None or message.error() is not None:
            continue
        event = json.loads(message.value() or b"{}")
        user = event["user_id"]
        seen[user] += 1
        if "item_id" in event:
            latest.append(event["item_id"])
        items = [{"item_id": item, "score": -float(n)} for n, item in enumerate(dict.fromkeys(reversed(latest)))]
        version = int(redis.call("GET", keys.live) or 0)
        recs = {"user_id": user, "model_version": version, "events_seen": seen[user], "items": items[:50]}
        redis.call("SET", f"tidemill:recs:{user}", json.dumps(recs))


def main(arguments: list[str]) -> None:
    name = arguments[0]
    if "--deaf" in arguments:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if "--grandchild" in arguments:
        subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    redis = connect(os.environ["TIDEMILL_REDIS_URL"])
    redis.call("RPUSH", "standin:pids", os.getpid())
    print(f"{name} is running", flush=True)
    if "--status" in arguments:
        print("something is badly wrong", flush=True)
        raise SystemExit(int(arguments[arguments.index("--status") + 1]))
    lives = float(arguments[arguments.index("--die-after") + 1]) if "--die-after" in arguments else 1e9
    began = time.monotonic()
    keys = Keys()
    trainer, scorer = TrainerMetrics(), ScorerMetrics()
    _serve(trainer.registry if name == "trainer" else scorer.registry)
    version = 0
    if "--lists" in arguments:
        threading.Thread(target=_lists, args=(redis, keys), daemon=True).start()
    while time.monotonic() - began < lives:
        version += 1
        if name == "trainer":
            redis.call(
                "SET",
                keys.manifest(version),
                json.dumps(
                    {
                        "version": version,
                        "created_at": datetime.now(UTC).isoformat(),
                        "events_trained": version * 60,
                        "trained_through": {
                            "events": {str(n): 0 if "--stuck" in arguments else 10**9 for n in range(4)}
                        },
                    }
                ),
            )
            redis.call("SET", keys.live, version)
            trainer.recall.set(0.3 - 0.3 / (1 + version / 20))
            trainer.ndcg.set(0.15 - 0.15 / (1 + version / 20))
            trainer.lag_events.labels("events", "0").set(version % 7)
            trainer.model_version.set(version)
        else:
            live = int(redis.call("GET", keys.live) or 0)
            scorer.model_version.set(live)
            for n in range(50):
                scorer.freshness.labels("history").observe(0.004 + n * 0.001)
                scorer.freshness.labels("learned").observe(0.2 + n * 0.01)
        time.sleep(0.2)
    raise SystemExit(1)


if __name__ == "__main__":
    main(sys.argv[1:])
