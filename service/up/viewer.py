"""Puts together what is shown of a run, from what each part of it says of itself."""

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import replace

from service.shop.spotlight import Action
from service.shop.traffic import Catalogue
from service.up.figures import Figures, Listed
from service.up.publishing import Publishing
from service.up.running import Run
from service.up.supervisor import Service, Supervisor
from service.up.view import ProcessRow, Shown, View, WatchedShopper

_STARTING_SECONDS = 30.0  # a process that does not answer so soon after its start is still starting
_LISTED = 20  # items of a list
_COURSE = 60  # looks of the observer


class Course:
    """How two figures went lately: one point for each look at them, none where they were not known."""

    def __init__(self) -> None:
        self.rates: deque[float] = deque(maxlen=_COURSE)  # learned per second
        self.recalls: deque[float] = deque(maxlen=_COURSE)
        self._last: Figures | None = None

    def note(self, figures: Figures) -> None:
        if figures is self._last:
            return
        self._last = figures
        if figures.learned_rate is not None:
            self.rates.append(figures.learned_rate)
        if figures.recall is not None:
            self.recalls.append(figures.recall)


class Viewer:
    """What there is to see of a run at a moment. `now` is by the clock of the run's times."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._course = Course()

    def note(self) -> None:
        """Keep the course of what is there now."""
        self._course.note(self._run.observer.figures)

    def view(self, now: float, messages: Iterable[str]) -> View:
        run, figures = self._run, self._run.observer.figures
        view = View(
            uptime=now - run.began,
            kafka=run.kafka.shown,
            redis=run.redis.shown,
            figures=figures,
            processes=[process_row(service, run.supervisor, figures) for service in run.supervisor.services],
            messages=[f"Redis: {figures.redis}", *messages] if figures.redis else list(messages),
            rates=list(self._course.rates),
            recalls=list(self._course.recalls),
            remaining=None if run.until is None else max(0.0, run.until - now),
        )
        return view if run.publishing is None else self._with_traffic(view, run.publishing, now)

    def _with_traffic(self, view: View, publishing: Publishing, now: float) -> View:
        watched = publishing.spotlight.watched(now)
        shopper = None
        if watched is not None:
            user, actions = watched
            shopper = watched_shopper(user, actions, self._run.observer.list_of(user), publishing.catalogue, now)
        return replace(
            view,
            traffic=publishing.name,
            traffic_state=publishing.state,
            published=publishing.published,
            published_rate=publishing.rate,
            failed=publishing.failed,
            share=publishing.share,
            shopper=shopper,
        )


def process_row(service: Service, supervisor: Supervisor, figures: Figures) -> ProcessRow:
    running = service.running
    uptime = supervisor.uptime(service) if running else None
    return ProcessRow(
        name=service.name,
        state=process_state(figures.health.get(service.name), uptime),
        pid=service.child.pid if running and service.child is not None else None,
        port=service.port,
        uptime=uptime,
        restarts=service.restarts,
        version=figures.versions.get(service.name),
    )


def process_state(health: str | None, uptime: float | None) -> str:
    """In words. health: None before anybody has looked. uptime: seconds; None: it does not run."""
    if uptime is None:
        return "ended, to be started again"
    if health is None or (health == "no answer" and uptime < _STARTING_SECONDS):
        return "starting"
    return health


def watched_shopper(
    user: str, actions: Sequence[Action], listed: Listed | None, catalogue: Catalogue, now: float
) -> WatchedShopper:
    """Ids become titles. actions: the latest first. listed: None where there is no list yet."""
    did = [
        Shown(
            catalogue.title(action.item_id) if action.item_id else f'"{action.query or ""}"',
            catalogue.category(action.item_id) if action.item_id else "",
            action.type,
            now - action.at,
        )
        for action in actions
    ]
    if listed is None:
        return WatchedShopper(user, did, None)
    items = [Shown(catalogue.title(item), catalogue.category(item)) for item in listed.item_ids[:_LISTED]]
    return WatchedShopper(user, did, items, listed.model_version, listed.events_seen)
