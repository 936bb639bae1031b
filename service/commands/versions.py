"""`tidemill versions`: which versions there are, and which one is live, or was."""

import argparse

from rich.console import Console
from rich.table import Table

from consumers.times import iso
from model_store.errors import DamagedManifest
from model_store.redis_store import RedisStore
from model_store.store import CHAMPION
from service.argument_types import count, moment
from service.process import Fatal
from service.settings import CommandSettings
from service.stores import model_store


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--limit", type=count, default=20, metavar="N", help="the newest N (default 20)")
    parser.add_argument("--at", type=moment, metavar="TIME", help="which version was live then (ISO 8601)")


def run(args: argparse.Namespace) -> int:
    store = model_store(CommandSettings())
    if args.at is not None:
        return _show_live_at(store, args.at)
    return _show_versions(store, args.limit)


def _show_versions(store: RedisStore, limit: int) -> int:
    names, pinned = _names(store), store.pinned()
    every = store.versions()
    numbers = sorted({*every[-limit:], *(names.keys() & every)})  # what has a name may be older
    if not numbers:
        raise Fatal("there are no versions yet: has a trainer run?")
    table = Table(box=None, header_style="bold", pad_edge=False)
    for column in ("version", "made", "kind", "events", "bytes", "recall@20", "ndcg@20", ""):
        table.add_column(column, justify="left" if column in ("made", "kind", "") else "right")
    for version, data in zip(numbers, store.manifest_bytes(numbers), strict=True):
        if data is None:
            continue  # retired meanwhile
        notes = names.get(version, [])
        try:
            manifest = store.read_head(version, data)
        except DamagedManifest as error:
            table.add_row(str(version), "-", "-", "-", "-", "-", "-", ", ".join([*notes, str(error)]))
            continue
        if not manifest.checkpoint:
            notes = [*notes, "no checkpoint"]
        table.add_row(
            str(version),
            manifest.created_at,
            manifest.kind,
            f"{manifest.events_trained:,}",
            f"{sum(blob.bytes for blob in manifest.blobs.values()):,}",
            _figure(manifest.metrics.get("prequential_recall_at_20")),
            _figure(manifest.metrics.get("prequential_ndcg_at_20")),
            ", ".join(notes),
        )
    console = Console()
    if not console.is_terminal:
        console.width = 120
    console.print(table)
    if pinned is not None:
        print("the pointer is pinned: `tidemill promote` follows new versions again")
    return 0


def _names(store: RedisStore) -> dict[int, list[str]]:
    """What versions are called, the live one first."""
    aliases = store.aliases()
    names: dict[int, list[str]] = {}
    if (live := aliases.pop(CHAMPION, None)) is not None:
        names[live] = ["live, pinned" if store.pinned() is not None else "live"]
    for alias, version in sorted(aliases.items()):
        names.setdefault(version, []).append(alias)
    return names


def _show_live_at(store: RedisStore, at_ms: int) -> int:
    # the log's times are those of Redis, which has none before the epoch
    version = store.live_at(at_ms / 1000) if at_ms >= 0 else None
    if version is None:
        raise Fatal(f"no version was live at {iso(at_ms)}, as far as the log reaches")
    print(version)
    return 0


def _figure(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"
