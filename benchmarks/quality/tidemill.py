"""Tidemill's own row: `tidemill evaluate FILE --json`, in a process of its own, with the settings it comes with."""

import gzip
import math
import os
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from itertools import islice
from pathlib import Path
from typing import Any

import orjson

from benchmarks.quality.ranking import Figure, Figures
from benchmarks.quality.results import Result
from benchmarks.quality.stream import Stream

NAME, TITLE = "tidemill", "**Tidemill**"
_RUN = "import sys; from service.entry import main; sys.exit(main())"
_ONE_CORE = {"TIDEMILL_THREADS": "1", "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}


class CommandError(RuntimeError):
    """The command failed, or printed no JSON; the message is one line."""


def evaluate(path: Path, stream: Stream, lines: int | None) -> Result:
    """Runs the command on the stream's file, or on its first `lines` lines. Raises: CommandError."""
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        file = path if lines is None else _cut(path, lines, Path(folder))
        # without the caller's TIDEMILL_ settings: the row is of those that the product comes with
        clean = {name: value for name, value in os.environ.items() if not name.startswith("TIDEMILL_")}
        done = subprocess.run(
            [sys.executable, "-c", _RUN, "evaluate", str(file), "--json"],
            env=clean | _ONE_CORE,
            capture_output=True,
            check=False,
        )
    if done.returncode:
        lines_said = done.stderr.decode(errors="replace").strip().splitlines() or ["nothing said"]
        raise CommandError(f"tidemill evaluate ended with {done.returncode}: {lines_said[-1]}")
    try:
        found: dict[str, Any] = orjson.loads(done.stdout)
    except orjson.JSONDecodeError:
        raise CommandError("tidemill evaluate printed no JSON") from None
    return result_of(found, stream, time.perf_counter() - began)


def result_of(found: dict[str, Any], stream: Stream, seconds: float) -> Result:
    """The command's JSON as a result. `seconds`: the whole process."""
    ranked, errors = int(found["ranked"]), found.get("standard_error", {})

    def figure(name: str) -> Figure:
        mean = float(found[name])
        binomial = math.sqrt(mean * (1 - mean) / ranked) if ranked and name == "hr_at_20" else None
        return Figure(mean, errors.get(name, binomial))

    its_own = float(found.get("seconds", seconds))
    return Result(
        stream=stream.name,
        events=len(stream),
        rival=NAME,
        title=TITLE,
        figures=Figures(ranked, figure("hr_at_20"), figure("mrr_at_20"), figure("ndcg_at_20")),
        learned_per_second=found["events"] / its_own if its_own else None,
        ms_a_list=None,
        seconds=seconds,
        settings={},
        trials=0,
        search_seconds=0.0,
        versions={"torch": version("torch")},
    )


def _cut(path: Path, lines: int, folder: Path) -> Path:
    """A file of the first lines, of the same name."""
    cut = folder / path.name
    source = gzip.open(path, "rb") if path.suffix == ".gz" else open(path, "rb")  # noqa: SIM115
    with source, gzip.open(cut, "wb", compresslevel=1) if path.suffix == ".gz" else open(cut, "wb") as out:
        out.writelines(islice(source, lines))
    return cut
