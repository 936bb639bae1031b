"""What was measured, as JSON: kept beside the checkout so that a run takes up where another stopped, and published."""

import hashlib
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import orjson

from benchmarks.quality.ranking import Figure, Figures
from benchmarks.rivals.rival import Settings


@dataclass(frozen=True)
class Result:
    """A rival on a stream."""

    stream: str
    events: int
    rival: str  # the file's name, or "tidemill"
    title: str
    figures: Figures
    learned_per_second: float | None  # None where it is not measured by itself, as is the next
    ms_a_list: float | None
    seconds: float  # the whole run with the settings found
    settings: Settings
    trials: int  # of settings, on the first fifth
    search_seconds: float
    versions: dict[str, str]  # package -> version

    @property
    def place(self) -> tuple[str, int, str]:
        """There is one result of these."""
        return self.stream, self.events, self.rival


def read_results(path: Path) -> list[Result]:
    """An empty list where there is no such file."""
    return [_result(entry) for entry in orjson.loads(path.read_bytes())] if path.exists() else []


def write_results(path: Path, results: list[Result]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(orjson.dumps([asdict(result) for result in results], option=orjson.OPT_INDENT_2) + b"\n")


def merged(old: list[Result], new: list[Result]) -> list[Result]:
    """The old results, and the new ones in the place of those of the same stream, events and rival."""
    by_place = {result.place: result for result in [*old, *new]}
    return list(by_place.values())


def digest(of: dict[str, Any]) -> str:
    """A short name of what a result depends on.

    >>> digest({"a": 1, "b": 2}) == digest({"b": 2, "a": 1})
    True
    """
    data = orjson.dumps(of, option=orjson.OPT_SORT_KEYS)
    return hashlib.sha256(data).hexdigest()[:16]


def _result(entry: dict[str, Any]) -> Result:
    figures = entry["figures"]
    means = {name: Figure(**figures[name]) for name in ("hit_rate", "mrr", "ndcg")}
    return Result(**(entry | {"figures": Figures(ranked=figures["ranked"], **means)}))
