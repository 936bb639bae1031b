"""The draft: the state that all submissions add up to, and what of it has changed since the last version.

Versions are written from the draft, not from the learner, so learning goes on meanwhile, however large the model is.
"""

from model_store.changes import Changes
from model_store.weights import State, Update
from service.training.publishing.submission import Submission, for_trainers


class Draft:
    def __init__(self, state: State, unsaved: Changes) -> None:
        """unsaved: the rows of trainers' tables that the last version lacks."""
        self.state = state
        self._weights, self._trainers = Changes(lambda name: not for_trainers(name)), unsaved
        self._latest: Submission | None = None

    def add(self, submission: Submission) -> None:
        """Applies a submission."""
        self.state.apply(submission.update)
        self._note(submission.update)
        self._latest = submission

    @property
    def latest(self) -> Submission:
        """The submission that was added last."""
        assert self._latest is not None, "no submission has been added yet"
        return self._latest

    def take(self, *, checkpoint: bool) -> Update:
        """What has changed since the last call; with trainers' tables and tensors only for a checkpoint."""
        changed = self._weights.take(self.state)
        if not checkpoint:
            return changed
        own = self._trainers.take(self.state)
        return Update(changed.full, {**changed.tables, **own.tables}, {**changed.tensors, **own.tensors})

    def give_back(self, update: Update) -> None:
        """Counts what was taken as changed again, because no version could be made of it."""
        self._note(update)

    def _note(self, update: Update) -> None:
        for changes in (self._weights, self._trainers):
            changes.add(update)
