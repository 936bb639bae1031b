"""A picture of quality over time. matplotlib is optional: the extra `plot`."""

from typing import TYPE_CHECKING, BinaryIO

import numpy as np
from numpy.typing import NDArray

from service.process import Fatal
from service.training.evaluation.ader import AderEvaluation
from service.training.evaluation.evaluate_file import Evaluation
from service.training.evaluation.quality import Quality

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

POINTS = 60  # of a line, at most
EVENTS = 200  # that a point is the mean of, at least, where there are so many


def check() -> None:
    """Raises Fatal where matplotlib cannot be imported."""
    try:
        import matplotlib.figure  # noqa: F401
    except ImportError as error:
        raise Fatal(f"--plot needs matplotlib (pip install 'tidemill[plot]'): {error}") from None


def plot(file: BinaryIO, found: Evaluation | AderEvaluation, title: str) -> None:
    """Writes a PNG. Raises OSError."""
    figure, axes = _begun(title)
    if isinstance(found, AderEvaluation):
        _draw_periods(axes, found)
    else:
        _draw_stream(axes, found)
    _finish(figure, axes, file)


def _draw_stream(axes: "Axes", found: Evaluation) -> None:
    """The measures over the lines of the file, and thinner the hit rate of each channel alone."""
    axes.set_xlabel("line of the file")
    parts = parts_of(len(found.each))
    at = [float(found.each.line[part].mean()) for part in parts]
    every = [Quality.of(found.each.ahead[part]) for part in parts]
    axes.plot(at, [quality.hit_rate.value for quality in every], label="HR@20")
    axes.plot(at, [quality.ndcg.value for quality in every], label="NDCG@20")
    axes.plot(at, [quality.mrr.value for quality in every], label="MRR@20")
    for name, ahead in found.each.alone.items():
        alone = [Quality.of(ahead[part]).hit_rate.value for part in parts]
        axes.plot(at, alone, linewidth=0.8, linestyle="--", label=f"HR@20 of {name} alone")


def _draw_periods(axes: "Axes", found: AderEvaluation) -> None:
    """Recall and MRR of each period."""
    axes.set_xlabel("period")
    every = [each for each in found.periods if len(each.ahead)]
    at = [each.period for each in every]
    axes.plot(at, [each.quality.hit_rate.value for each in every], marker="o", label="Recall@20")
    axes.plot(at, [each.quality.mrr.value for each in every], marker="o", label="MRR@20")


def parts_of(n: int) -> list[NDArray[np.int64]]:
    """n events in parts of equal size, which follow one another: POINTS of them, or fewer of EVENTS each.

    >>> [len(part) for part in parts_of(450)]
    [225, 225]
    """
    return [part for part in np.array_split(np.arange(n), max(1, min(POINTS, n // EVENTS))) if len(part)]


def _begun(title: str) -> "tuple[Figure, Axes]":
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 5), layout="constrained")
    axes = figure.add_subplot()
    axes.set_title(title)
    return figure, axes


def _finish(figure: "Figure", axes: "Axes", file: BinaryIO) -> None:
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.3)
    if axes.lines:
        figure.legend(loc="outside right upper")  # beside the lines, not over them
    figure.savefig(file, format="png", dpi=120)
