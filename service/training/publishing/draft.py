"""The sum of all submissions, and what of it has changed since the last version.

A version is written from here, so learning never stops for one, however large the model.
"""

from model_store.changes import Changes
from model_store.weights import State, Update
from service.training.publishing.submission import Submission, for_trainers


class Draft:
    def __init__(self, state: State, unsaved: Changes) -> None:
        """unsaved: which rows of the trainer's own state the last version lacks."""
        self.state = state
        self._weights, self._trainers = Changes(lambda name: not for_trainers(name)), unsaved
        self._latest: Submission | None = None

    def add(self, submission: Submission) -> None:
        self.state.apply(submission.update)
        self._note(submission.update)
        self._latest = submission

    @property
    def latest(self) -> Submission:
        assert self._latest is not None, "no submission has been added yet"
        return self._latest

    def take(self, *, checkpoint: bool) -> Update:
        """What has changed since the last time; of the trainer's own state only for a checkpoint."""
        changed = self._weights.take(self.state)
        if not checkpoint:
            return changed
        own = self._trainers.take(self.state)
        return Update(changed.full, {**changed.tables, **own.tables}, {**changed.tensors, **own.tensors})

    def give_back(self, update: Update) -> None:
        """What was taken is in no version after all."""
        self._note(update)

    def _note(self, update: Update) -> None:
        for changes in (self._weights, self._trainers):
            changes.add(update)
