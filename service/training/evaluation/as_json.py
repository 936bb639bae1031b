"""The figures of an evaluation as `tidemill evaluate --json` prints them."""

import math
from typing import Any

from service.training.evaluation.ader import AderEvaluation
from service.training.evaluation.evaluate_file import Evaluation
from service.training.evaluation.quality import Mean, Quality


def as_json(found: Evaluation | AderEvaluation) -> dict[str, Any]:
    return _ader(found) if isinstance(found, AderEvaluation) else _prequential(found)


def _prequential(found: Evaluation) -> dict[str, Any]:
    """A standard error is null where fewer than two events were ranked."""
    return {
        "protocol": "prequential",
        "events": found.events,
        **_figures(found.quality),
        "slices": {name: _figures(quality) for name, quality in found.slices.items()},
        "channels": {name: _figures(quality) for name, quality in found.channels.items()},
        "seconds": round(found.seconds, 3),
    }


def _ader(found: AderEvaluation) -> dict[str, Any]:
    """In percent, as the published table."""
    return {
        "protocol": "ader",
        "events": found.events,
        "ranked": found.ranked,
        **_percent(found.recall, found.mrr),
        "periods": [
            {
                "period": each.period,
                "ranked": len(each.ahead),
                **_percent(each.quality.hit_rate, each.quality.mrr),
            }
            for each in found.periods
        ],
        "seconds": round(found.seconds, 3),
    }


def _figures(quality: Quality) -> dict[str, Any]:
    means = {"hr_at_20": quality.hit_rate, "mrr_at_20": quality.mrr, "ndcg_at_20": quality.ndcg}
    return {
        "ranked": quality.ranked,
        **{name: mean.value for name, mean in means.items()},
        "standard_error": {name: _error(mean) for name, mean in means.items()},
    }


def _percent(recall: Mean, mrr: Mean) -> dict[str, Any]:
    means = {"recall_at_20": recall, "mrr_at_20": mrr}
    means = {name: Mean(100 * mean.value, 100 * mean.standard_error) for name, mean in means.items()}
    return {
        **{name: mean.value for name, mean in means.items()},
        "standard_error": {name: _error(mean) for name, mean in means.items()},
    }


def _error(mean: Mean) -> float | None:
    return None if math.isnan(mean.standard_error) else mean.standard_error
