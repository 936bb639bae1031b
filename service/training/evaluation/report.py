"""The figures of an evaluation as lines of a table, for people."""

import math
from collections.abc import Sequence

from service.training.evaluation.ader import AderEvaluation
from service.training.evaluation.evaluate_file import Evaluation
from service.training.evaluation.quality import Mean, Quality
from service.training.evaluation.slices import SLICES, inside

STATED = "±: standard error of the mean, as if events were independent"


def summary(found: Evaluation | AderEvaluation) -> str:
    """One line of the main figures."""
    if isinstance(found, AderEvaluation):
        figures = f"Recall@20 {100 * found.recall.value:.2f} %  MRR@20 {100 * found.mrr.value:.2f} %"
        return f"{found.ranked} ranked, {len(found.periods)} periods: {figures}"
    figures = f"HR@20 {found.hit_rate:.4f}  MRR@20 {found.mrr:.4f}  NDCG@20 {found.ndcg:.4f}"
    return f"{found.ranked} ranked before being learned from: {figures}"


def table(found: Evaluation | AderEvaluation) -> list[str]:
    """The lines of the table, and what its figures mean."""
    return _periods(found) if isinstance(found, AderEvaluation) else _slices(found)


def _slices(found: Evaluation) -> list[str]:
    """All, each slice, and beside them the hit rate of each channel, had it ranked alone."""
    channels = sorted(found.each.alone)
    head = ["", "ranked", "HR@20", "MRR@20", "NDCG@20", *(f"{name} alone" for name in channels)]
    rows = [_row("all", found.quality, [found.channels[name] for name in channels])]
    for k, each in enumerate(SLICES):
        here = inside(found.each.slices, k)
        alone = [Quality.of(found.each.alone[name][here]) for name in channels]
        rows.append(_row(each.words, Quality.of(found.each.ahead[here]), alone))
    beside = "; of single channels the HR@20" if channels else ""
    return [*_aligned([head, *rows]), STATED + beside]


def _periods(found: AderEvaluation) -> list[str]:
    """Each period, and the mean of the periods, in percent."""
    rows = [
        [f"period {each.period}", f"{len(each.ahead):,}", *_percents(each.quality.hit_rate, each.quality.mrr)]
        for each in found.periods
    ]
    mean = ["mean of periods", f"{found.ranked:,}", *_percents(found.recall, found.mrr)]
    return [*_aligned([["", "ranked", "Recall@20 %", "MRR@20 %"], *rows, mean]), STATED]


def _row(words: str, quality: Quality, alone: Sequence[Quality]) -> list[str]:
    shown = quality.ranked > 0
    means = [_plus_minus(mean, 4) if shown else "-" for mean in (quality.hit_rate, quality.mrr, quality.ndcg)]
    return [words, f"{quality.ranked:,}", *means, *(_fixed(q.hit_rate.value, 4) if shown else "-" for q in alone)]


def _percents(*means: Mean) -> list[str]:
    return [_plus_minus(Mean(100 * mean.value, 100 * mean.standard_error), 2) for mean in means]


def _plus_minus(mean: Mean, digits: int) -> str:
    error = "" if math.isnan(mean.standard_error) else f" ± {_fixed(mean.standard_error, digits)}"
    return _fixed(mean.value, digits) + error


def _fixed(value: float, digits: int) -> str:
    return f"{value:.{digits}f}"


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """The first column to the left, the others to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            cell.rjust(width) if k else cell.ljust(width)
            for k, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    ]
