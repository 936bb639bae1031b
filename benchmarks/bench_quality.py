"""How well real streams are predicted, event by event (the protocol of `service/training/evaluation/evaluate_file.py`).

Reads event files in the contract's format, named on the command line or found in TIDEMILL_DATA.
"""

import argparse
import os
from pathlib import Path

import torch

from consumers.decode import DecodeRules
from consumers.file_reading import open_reading
from service.model.registry import NEW_MODEL
from service.training.evaluation.evaluate_file import evaluate_file
from service.training.learner import Learner


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("files", nargs="*", type=Path)
    parser.add_argument("--replay", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    data = Path(os.environ.get("TIDEMILL_DATA", "../shared/data"))
    files = arguments.files or sorted(data.glob("*.events.jsonl.gz"))
    if not files:
        print("no event files: name some, or set TIDEMILL_DATA")
    for path in files:
        reading = open_reading(path, "events", DecodeRules())
        result = evaluate_file(reading, Learner(NEW_MODEL), replay=arguments.replay)
        print(
            f"{path.name}: HR@20 {result.hit_rate:.4f}  MRR@20 {result.mrr:.4f}  NDCG@20 {result.ndcg:.4f}  "
            f"over {result.ranked:,} of {result.events:,} events, {result.events_per_second:,.0f} events/s",
            flush=True,
        )


if __name__ == "__main__":
    main()
