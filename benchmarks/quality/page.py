"""The generated part of `docs/quality.md`: a table a stream, then the settings that were found."""

from itertools import groupby
from pathlib import Path

from benchmarks.quality import tidemill
from benchmarks.quality.ranking import Figure
from benchmarks.quality.results import Result

BEGIN = "<!-- figures: written by `python -m benchmarks.bench_quality` -->"
END = "<!-- end of figures -->"


def write_page(path: Path, results: list[Result], order: list[str]) -> None:
    """Puts the tables between the page's two marks. `order`: the rivals of a table, first to last.

    Raises: ValueError where the page has not both marks.
    """
    page = path.read_text()
    if page.count(BEGIN) != 1 or page.count(END) != 1:
        raise ValueError(f"{path.name} has not one {BEGIN!r} and one {END!r}")
    before, rest = page.split(BEGIN)
    _, after = rest.split(END)
    path.write_text(f"{before}{BEGIN}\n{tables(results, order)}\n{END}{after}")


def tables(results: list[Result], order: list[str]) -> str:
    """Markdown."""

    def world(result: Result) -> tuple[str, int]:
        return result.stream, result.events

    by_place = sorted(results, key=lambda r: (world(r), order.index(r.rival) if r.rival in order else len(order)))
    return "".join(_section(name, events, list(part)) for (name, events), part in groupby(by_place, world))


def _section(stream: str, events: int, results: list[Result]) -> str:
    lines = [
        f"\n## {stream}, {events:,} events\n",
        "| | HR@20 | MRR@20 | NDCG@20 | ranked | learns, events/s | ms a list |",
        "|---|---|---|---|---|---|---|",
        *(_row(result) for result in results),
        "",
        "| settings found on the first fifth | | tried | search, s | run, s | versions |",
        "|---|---|---|---|---|---|",
        *(_settings(result) for result in results if result.rival != tidemill.NAME),
    ]
    return "\n".join(lines) + "\n"


def _row(result: Result) -> str:
    figures = result.figures
    whole = " (ranking too)" if result.rival == tidemill.NAME else ""
    speed = "-" if result.learned_per_second is None else f"{_two_digits(result.learned_per_second)}{whole}"
    cells = [
        result.title,
        _mean(figures.hit_rate),
        _mean(figures.mrr),
        _mean(figures.ndcg),
        f"{figures.ranked:,}",
        speed,
        "-" if result.ms_a_list is None else _milliseconds(result.ms_a_list),
    ]
    return f"| {' | '.join(cells)} |"


def _settings(result: Result) -> str:
    named = ", ".join(f"{name} {_word(value)}" for name, value in result.settings.items())
    of = ", ".join(f"{package} {version}" for package, version in result.versions.items())
    cells = [result.title, named, str(result.trials), f"{result.search_seconds:.0f}", f"{result.seconds:.0f}", of]
    return f"| {' | '.join(cells)} |"


def _mean(figure: Figure) -> str:
    """
    >>> _mean(Figure(0.28612, 0.00148))
    '.2861 ± .0015'
    """
    error = "" if figure.error is None else f" ± {figure.error:.4f}"
    return f"{figure.mean:.4f}{error}".replace("0.", ".")


def _milliseconds(value: float) -> str:
    return "< .01" if value < 0.01 else f"{value:.2g}".removeprefix("0")


def _two_digits(value: float) -> str:
    """
    >>> _two_digits(38_412.0)
    '38,000'
    """
    return f"{float(f'{value:.2g}'):,.0f}"


def _word(value: object) -> str:
    return {True: "yes", False: "no"}[value] if isinstance(value, bool) else str(value)
