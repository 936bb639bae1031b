"""What a learner is told: numbers with their reasons; measurements are in docs/decisions/learning.md."""

from dataclasses import dataclass

from consumers.events import DEFAULT_EVENT_WEIGHTS


@dataclass(frozen=True)
class LearnerConfig:
    seed: int = 0
    device: str = "cpu"
    # the configured event types, in the order that numbers `MicroBatch.type`, and their weights: see model/history.py
    event_types: tuple[str, ...] = tuple(DEFAULT_EVENT_WEIGHTS)
    event_weights: tuple[float, ...] = tuple(DEFAULT_EVENT_WEIGHTS.values())
    rating_scale: tuple[float, float] | None = None
    dim: int = 64  # 128 bought little and doubles what travels
    hidden: int = 128
    history: int = 20  # items; sessions are shorter, and raters' older items add little
    half_lives: tuple[float, ...] = (1_000.0, 20_000.0)  # events: what is going on now, and what is popular
    negatives: int = 2_048  # a step; 1,024 cost .006 of HR@20 and .009 of MRR@20, and learn a third faster
    row_rate: float = 0.1  # row-wise Adagrad; .07 has a little less HR@20 and more MRR@20, .14 less of both
    dense_rate: float = 2e-3
    scalar_rate: float = 1e-2  # scale, prior, repeat, lag weights: few, and needed soon
    decay: float = 1e-2  # of the dense layers alone
    scale: float = 12.0  # of the cosine, to begin with
    replay_capacity: int = 200_000
    replay_recent: int = 20_000
    replay_recent_share: float = 0.7
    dropout: float = 0.15  # of a replayed history's items; 0.3 had .003 less HR@20, none was as good
    evaluate_sample: int | None = 32  # events ranked before learning, a batch; None: all
    max_items: int | None = None  # rows; when full, those unused longest make room
    max_users: int | None = None
