"""What `tidemill evaluate --ranks` writes: one JSON line for each event that the figures are of.

In the order of the stream; of the protocol ader session by session, with the period instead of origin and slices.
`rank` counts from 1, and is null where the item was not listed; `origin` is what proposed it: a channel, `history` (the
user's own items) or `reserve` (popular items where channels propose few), null where nothing did.
"""

from functools import cache
from typing import BinaryIO

import orjson

from service.model.reranking import NOT_LISTED
from service.training.evaluation.ader import AderEvaluation
from service.training.evaluation.evaluate_file import Evaluation
from service.training.evaluation.ranked_events import FAR
from service.training.evaluation.slices import names_of

AT_ONCE = 1 << 16  # events, whose columns are Python's numbers meanwhile


def write_ranks(file: BinaryIO, found: Evaluation | AderEvaluation) -> None:
    """Raises OSError."""
    if isinstance(found, AderEvaluation):
        _write_periods(file, found)
    else:
        _write_stream(file, found)


def _write_stream(file: BinaryIO, found: Evaluation) -> None:
    users, items, origins = found.counts.users.ids, found.counts.items.ids, found.each.origins
    named, each = cache(names_of), found.each
    for start in range(0, len(each), AT_ONCE):
        part = slice(start, start + AT_ONCE)
        columns = (each.line, each.user, each.item, each.ahead, each.slices, each.origin)
        for line, user, item, ahead, bits, origin in zip(*(column[part].tolist() for column in columns), strict=True):
            _write(
                file,
                line=line,
                user=users[user],
                item=items[item],
                rank=ahead + 1 if ahead < FAR else None,
                origin=origins[origin] or None,
                slices=named(bits),
            )


def _write_periods(file: BinaryIO, found: AderEvaluation) -> None:
    users, items = found.counts.users.ids, found.counts.items.ids
    for each in found.periods:
        asked = each.predictions
        columns = (asked.line, asked.user, asked.item, each.ahead)
        for line, user, item, ahead in zip(*(column.tolist() for column in columns), strict=True):
            rank = ahead + 1 if ahead < NOT_LISTED else None
            _write(file, line=line, user=users[user], item=items[item], rank=rank, period=each.period)


def _write(file: BinaryIO, **fields: object) -> None:
    file.write(orjson.dumps(fields, option=orjson.OPT_APPEND_NEWLINE))
