"""The sum of all candidates, and what of it has changed since the last version.

A version is written from here, so learning never stops for one, however large the model.
"""

from model_store.changes import Changes
from model_store.weights import State, Update
from service.training.publishing.candidate import Candidate, for_trainers


class Draft:
    def __init__(self, state: State, unsaved: Changes) -> None:
        """unsaved: which rows of the trainer's own state the last version lacks."""
        self.state = state
        self._weights, self._trainers = Changes(lambda name: not for_trainers(name)), unsaved
        self._latest: Candidate | None = None

    def add(self, candidate: Candidate) -> None:
        self.state.apply(candidate.update)
        self._note(candidate.update)
        self._latest = candidate

    @property
    def latest(self) -> Candidate:
        assert self._latest is not None, "no candidate has been added yet"
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
