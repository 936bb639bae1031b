"""What `tidemill up` shows: a live picture on a terminal, lines elsewhere. Draws only what it is given."""

import math
from collections.abc import Sequence

from rich import box
from rich.console import Group, RenderableType
from rich.layout import Layout
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from service.up.figures import Quantiles
from service.up.view import View

ABSENT = "-"
_SPARKS = "▁▂▃▄▅▆▇█"
_STYLES = {"view": "dim", "click": "cyan", "add_to_cart": "yellow", "purchase": "bold green", "search": "magenta"}


# Figures as text


def count(value: float | None) -> str:
    return ABSENT if value is None else f"{value:,.0f}"


def seconds(value: float | None) -> str:
    """A duration in the unit that suits it."""
    if value is None:
        return ABSENT
    if value < 0.0995:
        return f"{value * 1000:.0f} ms"
    if value < 9.95:
        return f"{value:.2f} s" if value < 0.995 else f"{value:.1f} s"
    return f"{value:.0f} s" if value < 600 else clock(value)


def share(value: float | None) -> str:
    return ABSENT if value is None else f"{value:.3f}"


def rate(value: float | None) -> str:
    return ABSENT if value is None else f"{value:,.0f}/s"


def clock(value: float) -> str:
    """Minutes and seconds, with hours when there are any."""
    minutes, rest = divmod(int(value), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def sparkline(values: Sequence[float], width: int) -> str:
    """The course of a figure, lowest to highest; empty for fewer than two values."""
    kept = [value for value in values if math.isfinite(value)][-width:]
    if len(kept) < 2:
        return ""
    low, high = min(kept), max(kept)
    step = (high - low) or 1.0
    return "".join(_SPARKS[int((value - low) / step * (len(_SPARKS) - 1))] for value in kept)


# On a terminal


def render(view: View) -> RenderableType:
    """The picture. Made for 100 by 30 characters and more; it also holds together at 80 by 24."""
    layout = Layout()
    parts = [
        Layout(_header(view), name="header", size=4 if view.traffic is not None else 3),
        Layout(_figures(view), name="figures", size=7),
        Layout(_processes(view), name="processes", size=len(view.processes) + 3),
    ]
    said = _headlines(view.messages)
    parts.append(Layout(_shopper(view), name="shopper", ratio=1, minimum_size=6))
    if said:
        parts.append(Layout(_messages(said), name="messages", size=len(said) + 2))
    layout.split_column(*parts)
    return layout


def _panel(content: RenderableType, title: str, style: str = "blue") -> Panel:
    return Panel(content, title=f"[bold]{title}[/]", title_align="left", border_style=style, box=box.ROUNDED)


def _beside(*panels: Panel, ratios: Sequence[int] = ()) -> Layout:
    """Panels side by side, all as high as the place they get."""
    row = Layout()
    row.split_row(
        *(Layout(panel, ratio=ratio) for panel, ratio in zip(panels, ratios or [1] * len(panels), strict=True))
    )
    return row


def _header(view: View) -> RenderableType:
    addresses = Table.grid(expand=True, padding=(0, 2))
    addresses.add_column(ratio=1, no_wrap=True)
    addresses.add_column(justify="right", no_wrap=True)
    running = f"up {clock(view.uptime)}" + (f", {clock(view.remaining)} left" if view.remaining is not None else "")
    addresses.add_row(Text.assemble(("Kafka ", "bold"), view.kafka, ("   Redis ", "bold"), view.redis), running)
    lines: list[RenderableType] = [addresses]
    if view.traffic is not None:
        traffic = Table.grid(expand=True, padding=(0, 2))
        traffic.add_column(no_wrap=True)
        traffic.add_column(ratio=1)
        traffic.add_column(justify="right", no_wrap=True)
        bar: RenderableType = ""
        if view.share is not None:
            bar = ProgressBar(total=1.0, completed=view.share, complete_style="cyan", finished_style="green")
        said = view.traffic_state if view.share is None else f"{view.traffic_state} {view.share:4.0%}"
        traffic.add_row(Text.assemble(("Traffic ", "bold"), view.traffic), bar, Text(said, "cyan"))
        lines.append(traffic)
    return _panel(Group(*lines), "Tidemill", "cyan")


def _pairs(rows: Sequence[tuple[str, str | Text, str]]) -> Table:
    table = Table.grid(expand=True, padding=(0, 1))
    table.add_column(style="dim", no_wrap=True)
    table.add_column(justify="right", style="bold", no_wrap=True)
    table.add_column(ratio=1, justify="right", no_wrap=True, style="cyan")
    for row in rows:
        table.add_row(*row)
    return table


def _figures(view: View) -> RenderableType:
    figures = view.figures
    stream = _pairs(
        [
            ("published", rate(view.published_rate) if view.traffic is not None else ABSENT, ""),
            ("learned", rate(figures.learned_rate), sparkline(view.rates, 6)),
            ("in all", count(figures.events_learned), ""),
            ("lag", count(figures.lag), ""),
            ("scorers' lag", count(figures.scorer_lag), ""),
        ]
    )
    model = _pairs(
        [
            ("version", count(figures.live_version), ""),
            ("age", seconds(figures.version_age), ""),
            ("recall@20", share(figures.recall), sparkline(view.recalls, 6)),
            ("NDCG@20", share(figures.ndcg), ""),
            ("rejected", count(figures.rejected), ""),
        ]
    )
    freshness = Table.grid(expand=True, padding=(0, 1))
    freshness.add_column(style="dim", no_wrap=True)
    freshness.add_column(justify="right", style="bold", no_wrap=True)
    freshness.add_column(justify="right", style="bold", no_wrap=True)
    freshness.add_row("", Text("p50", "dim"), Text("p99", "dim"))
    for name, stage in (("history", figures.history), ("learned", figures.learned)):
        freshness.add_row(name, seconds(stage.p50), seconds(stage.p99))
    return _beside(_panel(stream, "Stream"), _panel(model, "Model"), _panel(freshness, "Freshness, last 30 s"))


def _state(state: str) -> Text:
    style = "green" if state == "ok" else "yellow" if state.startswith(("starting", "no answer")) else "red"
    return Text(f"● {state}", style, overflow="ellipsis", no_wrap=True)


def _processes(view: View) -> RenderableType:
    table = Table(box=None, expand=True, padding=(0, 1), header_style="dim", show_edge=False)
    table.add_column("process", no_wrap=True)
    table.add_column("health", ratio=1, no_wrap=True)
    for name in ("version", "pid", "metrics at", "running", "restarts"):
        table.add_column(name, justify="right", no_wrap=True)
    for row in view.processes:
        table.add_row(
            Text(row.name, "bold"),
            _state(row.state),
            count(row.version),
            ABSENT if row.pid is None else str(row.pid),
            ABSENT if row.port is None else f":{row.port}",
            ABSENT if row.uptime is None else clock(row.uptime),
            Text(str(row.restarts), "red" if row.restarts else "dim"),
        )
    return _panel(table, "Processes")


def _shopper(view: View) -> RenderableType:
    shopper = view.shopper
    if shopper is None:
        return _panel(Text("nobody has done anything yet", "dim"), "A shopper", "green")
    liked = {shown.category for shown in shopper.actions if shown.category}
    did = Table.grid(expand=True, padding=(0, 1))
    did.add_column(justify="right", style="dim", no_wrap=True)
    did.add_column(no_wrap=True)
    did.add_column(ratio=1, no_wrap=True)
    for shown in shopper.actions:
        did.add_row(
            f"{shown.ago:.0f} s",
            Text(shown.action.replace("add_to_cart", "to cart"), _STYLES.get(shown.action, "")),
            Text(shown.title, overflow="ellipsis", no_wrap=True),
        )
    listed = Table.grid(expand=True, padding=(0, 1))
    listed.add_column(justify="right", style="dim", no_wrap=True)
    listed.add_column(ratio=1, no_wrap=True)
    listed.add_column(justify="right", no_wrap=True)
    for place, shown in enumerate(shopper.items or (), 1):
        style = "green" if shown.category in liked else ""
        listed.add_row(
            str(place), Text(shown.title, style, overflow="ellipsis", no_wrap=True), Text(shown.category, "dim")
        )
    if not shopper.items:
        listed.add_row("", Text("no list yet", "dim"), "")
    title = "Recommended now"
    if shopper.items is not None:
        title += f" (version {count(shopper.model_version)}, {count(shopper.events_seen)} events seen)"
    return _beside(_panel(did, f"{shopper.user_id} did", "green"), _panel(listed, title, "green"), ratios=(9, 11))


def _headlines(messages: Sequence[str]) -> list[str]:
    """The latest messages without what is indented under them, but for the very last line of all."""
    heads = [message for message in messages if not message.startswith(" ")][-3:]
    return [*heads, messages[-1]] if messages and messages[-1].startswith(" ") else heads


def _messages(lines: Sequence[str]) -> RenderableType:
    return _panel(Group(*(Text(line, overflow="ellipsis", no_wrap=True) for line in lines)), "Messages", "yellow")


# Without a terminal


def line(view: View) -> str:
    """The same figures as one line."""
    figures = view.figures
    parts = [
        clock(view.uptime),
        f"published {rate(view.published_rate)}" if view.traffic is not None else "",
        f"{view.share:.0%} of the file" if view.share is not None else "",
        f"learned {rate(figures.learned_rate)}, {count(figures.events_learned)} in all",
        f"version {count(figures.live_version)}, age {seconds(figures.version_age)}",
        f"history {_two(figures.history)}",
        f"learned {_two(figures.learned)}",
        f"recall@20 {share(figures.recall)}",
        f"NDCG@20 {share(figures.ndcg)}",
        f"lag {count(figures.lag)}",
        ", ".join(f"{row.name} {row.state}" for row in view.processes),
    ]
    return " | ".join(part for part in parts if part)


def shopper_line(view: View) -> str | None:
    """The watched shopper as one line; None where there is none."""
    shopper = view.shopper
    if shopper is None or not shopper.actions:
        return None
    did = ", ".join(f"{shown.action} {shown.title}" for shown in shopper.actions[:3])
    listed = "; ".join(shown.title for shown in (shopper.items or ())[:5]) or "no list yet"
    return f"    {shopper.user_id}: {did} => {listed}"


def summary(view: View, versions_published: int | None) -> list[str]:
    """What there is to say at the end."""
    figures = view.figures
    lines = [f"ran for {clock(view.uptime)}"]
    if view.traffic is not None:
        lost = f", {view.failed:,} not" if view.failed else ""
        lines.append(f"published {view.published:,} events{lost} ({view.traffic})")
    lines += [
        f"learned {count(figures.events_learned)} events, rejected {count(figures.rejected)}, lag {count(figures.lag)}",
        f"live version {count(figures.live_version)}, {count(versions_published)} published in this run",
        f"freshness of the last 30 s: history {_two(figures.history)}, learned {_two(figures.learned)}",
        f"recall@20 {share(figures.recall)}, NDCG@20 {share(figures.ndcg)}, measured before learning",
    ]
    if restarts := sum(row.restarts for row in view.processes):
        lines.append(f"processes started again: {restarts}")
    return lines


def _two(quantiles: Quantiles) -> str:
    return f"p50 {seconds(quantiles.p50)} p99 {seconds(quantiles.p99)}"
