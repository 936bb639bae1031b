"""How good Tidemill's lists are beside what a user could put in its place: same streams, same protocol, one table.

    python -m benchmarks.bench_quality [FILE ...] [--events N] [--rivals NAME ...] [--again] [--draft]

The protocol is in `benchmarks/quality/protocol.py`, the rivals in `benchmarks/rivals/`. Each rival's settings are
searched inside the first fifth of each stream. Results go to `docs/quality.json` and from there into `docs/quality.md`;
those of rivals that are not named stay as they are. What was measured is kept in `.cache/quality` too, and is measured
again only where the stream, the protocol, the grid or a version is another, or with `--again`. Tidemill is always run.

The libraries are the extra `quality`; a rival without its library is left out, and said.
"""

import argparse
import hashlib
import sys
import time
from pathlib import Path

from benchmarks.quality import protocol, tidemill
from benchmarks.quality.page import write_page
from benchmarks.quality.results import Result, digest, merged, read_results, write_results
from benchmarks.quality.search import run_with, search
from benchmarks.quality.stream import Stream, read_stream
from benchmarks.rivals.rival import Entry, Settings
from benchmarks.rivals.roster import ROSTER, entry, versions
from consumers.event_file import FileError

ROOT = Path(__file__).resolve().parents[1]
DATA = ROOT.parent / "shared" / "data"
PUBLISHED, PAGE, CACHE = ROOT / "docs" / "quality.json", ROOT / "docs" / "quality.md", ROOT / ".cache" / "quality"
WARMING = 20_000  # events of a run before the one that is timed, so that what is compiled is compiled
ALL = (tidemill.NAME, *ROSTER)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="*", type=Path, metavar="FILE", help="default: ../shared/data")
    parser.add_argument("--events", type=int, metavar="N", help="the first N lines of each file, for every rival")
    parser.add_argument("--rivals", nargs="+", choices=ALL, default=ALL, metavar="NAME", help=", ".join(ALL))
    parser.add_argument("--again", action="store_true", help="also what has been measured already")
    parser.add_argument("--draft", action="store_true", help="print only: docs/quality.* stay as they are")
    arguments = parser.parse_args()
    files = arguments.files or sorted(DATA.glob("*.events.jsonl.gz"))
    if not files:
        print("no event files: name some")
    missed = False
    for path in files:
        try:
            stream = read_stream(path, arguments.events)
        except FileError as error:
            print(error, file=sys.stderr)
            return 1
        content = hashlib.sha256(path.read_bytes()).hexdigest()
        print(f"{path.name}: {len(stream):,} events, {len(protocol.eligible(stream)):,} can be ranked", flush=True)
        for name in arguments.rivals:
            try:
                if name == tidemill.NAME:
                    result = tidemill.evaluate(path, stream, arguments.events)
                else:
                    result = _rival(name, stream, content, arguments.again)
            except (ImportError, tidemill.CommandError) as error:
                print(f"  {name} left out: {error}", file=sys.stderr)
                missed = True
                continue
            print(f"  {_line(result)}", flush=True)
            if not arguments.draft:
                write_results(PUBLISHED, merged(read_results(PUBLISHED), [result]))
    if files and not arguments.draft:
        write_page(PAGE, read_results(PUBLISHED), list(ALL))
    return int(missed)


def _rival(name: str, stream: Stream, content: str, again: bool) -> Result:
    """Kept from an earlier run, or measured. Raises: ImportError where its library is not installed."""
    found = entry(name)
    depends = {
        "stream": content,
        "events": len(stream),
        "rival": name,
        "revision": found.revision,
        "grid": dict(found.grid),
        "lists": [found.lists, found.search_lists],
        "protocol": [protocol.BATCH_EVENTS, protocol.WARM_UP],
        "versions": versions(found),
    }
    kept = CACHE / f"{stream.name}-{name}-{digest(depends)}.json"
    if not again and (old := read_results(kept)):
        return old[0]
    result = _measured(name, found, stream)
    write_results(kept, [result])
    return result


def _measured(name: str, found: Entry, stream: Stream) -> Result:
    began = time.perf_counter()
    best = search(stream, found, _show)
    searched = time.perf_counter()
    run_with(stream.first(WARMING), found, best.settings, 10)
    warm = time.perf_counter()
    run = run_with(stream, found, best.settings, found.lists)
    return Result(
        stream=stream.name,
        events=len(stream),
        rival=name,
        title=found.title,
        figures=run.figures,
        learned_per_second=run.learned_per_second,
        ms_a_list=run.ms_a_list,
        seconds=time.perf_counter() - warm,
        settings=best.settings,
        trials=best.trials,
        search_seconds=searched - began,
        versions=versions(found),
    )


def _show(settings: Settings, run: protocol.Run) -> None:
    """A trial, where somebody watches."""
    if sys.stderr.isatty():
        print(f"    NDCG@20 {run.figures.ndcg.mean:.4f}  {settings}", file=sys.stderr, flush=True)


def _line(result: Result) -> str:
    figures = result.figures
    speed = "" if result.learned_per_second is None else f", {result.learned_per_second:,.0f} events/s"
    return (
        f"{result.rival}: HR@20 {figures.hit_rate.mean:.4f}  MRR@20 {figures.mrr.mean:.4f}  "
        f"NDCG@20 {figures.ndcg.mean:.4f}  over {figures.ranked:,} events{speed}, "
        f"{result.search_seconds:.0f} + {result.seconds:.0f} s  {result.settings or ''}"
    )


if __name__ == "__main__":
    sys.exit(main())
