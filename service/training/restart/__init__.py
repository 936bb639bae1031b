"""Where a run begins, and learning again what was learned: after a crash, and as a proof."""
