"""What a person sees while trials run: one line per running job, one for the whole."""

from __future__ import annotations

import time
import uuid
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn
from rich.text import Text

from bench.core.texts import printable

EVERY_S = 0.5  # how often a notebook is sent what has changed
STYLES = {"ok": "green", "n/a": "dim"}


def duration(seconds: float) -> str:
    """``8 s``, ``3 min``, ``1 h 20 min``: as exact as an estimate deserves."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60:02d} min"


class TimeLeft(ProgressColumn):
    """The estimated time left of a task, from the pace of its current phase."""

    def render(self, task: Task) -> Text:
        """The text of one bar."""
        left = task.fields.get("left")
        if left is None and task.total and task.completed and task.start_time is not None:
            spent = time.monotonic() - task.fields["since"]
            steps = task.completed - task.fields.get("first", 0)  # a resumed loop starts above 0
            left = spent * (task.total - task.completed) / steps if steps > 0 else None
        return Text("" if left is None else f"{duration(left)} left", style="cyan")


class Count(ProgressColumn):
    """``3/10 epoch``; nothing while a task has not said how much it has to do."""

    def render(self, task: Task) -> Text:
        """The text of one bar."""
        if task.total is None:
            return Text("")
        return Text(f"{task.completed:.0f}/{task.total:.0f} {task.fields['unit']}")


class Cell:
    """The bars in a cell of a notebook, replaced in place.

    Not rich's own way there, which shows nothing without the package ipywidgets.
    """

    def __init__(self) -> None:
        from IPython import display

        self._update = display.update_display
        self._shown = 0.0
        self._id = f"bench-{uuid.uuid4()}"
        display.display(Text(), display_id=self._id)

    def show(self, progress: Progress, *, now: bool = False) -> None:
        """Show the bars as they are, unless they were shown a moment ago."""
        if now or time.monotonic() - self._shown > EVERY_S:
            self._update(progress.make_tasks_table(progress.tasks), display_id=self._id)
            self._shown = time.monotonic()

    def clear(self) -> None:
        """Leave nothing of the bars."""
        self._update(Text(), display_id=self._id)


class Display:
    """Live progress on a terminal or in a notebook; elsewhere one line per finished trial."""

    def __init__(self, console: Console, n_trials: int, seconds: float | None) -> None:
        self.console = console
        self._progress = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=24),
            Count(),
            TimeLeft(),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self._whole = self._progress.add_task(
            "all", total=n_trials, unit="trials", left=seconds, since=time.monotonic()
        )
        self._tasks: dict[int, Any] = {}
        self._phases: dict[int, str] = {}
        self._cell: Cell | None = None

    def __enter__(self) -> Display:
        self._progress.start()
        if self.console.is_jupyter and not self.console.quiet:
            self._cell = Cell()
            self._refresh(now=True)
        return self

    def __exit__(self, *error: object) -> None:
        self._progress.stop()
        if self._cell is not None:
            self._cell.clear()

    def _refresh(self, *, now: bool = False) -> None:
        """Show what has changed; a terminal is refreshed without being told."""
        if self._cell is not None:
            self._cell.show(self._progress, now=now)

    def start(self, job: int, title: str) -> None:
        """Show a bar for a job."""
        now = time.monotonic()
        self._tasks[job] = self._progress.add_task(title, total=None, unit="", since=now, left=None)
        self._refresh()

    def event(self, job: int, title: str, event: dict[str, Any]) -> None:
        """Show what a worker says of itself: the stage it is in, how far its loop has come."""
        task, stage = self._tasks[job], event.get("in")
        if event["event"] == "stage":
            self._progress.update(task, description=_inside(title, event["name"]))
        elif event["event"] == "progress":
            done, total = event["of"]
            phase = f"{stage} {event['what']}"
            if self._phases.get(job) != phase:
                self._phases[job] = phase
                self._progress.update(task, since=time.monotonic(), first=done)
            self._progress.update(
                task,
                description=_inside(title, stage),
                completed=done,
                total=total,
                unit=event["what"],
            )
        self._refresh()

    def finish(self, job: int) -> None:
        """Take the bar of a job away."""
        self._progress.remove_task(self._tasks.pop(job))
        self._refresh()

    def line(self, text: Text) -> None:
        """Print one line above the bars."""
        self.console.print(text, highlight=False)

    def whole(self, done: int, left: float | None) -> None:
        """Set how many trials are over and how many seconds are left."""
        self._progress.update(self._whole, completed=done, left=left)
        self._refresh(now=True)


def _inside(title: str, stage: str | None) -> str:
    """A job's title with the stage it is in, unless the job is that stage."""
    return title if stage is None or title.endswith(stage) else f"{title} · {stage}"


def result_line(title: str, status: str, headline: float | None, message: str | None) -> Text:
    """One finished trial for the terminal."""
    value = f" {headline:.4f}" if headline is not None else ""
    reason = f": {message}" if message and status != "n/a" else ""
    text = printable(f" {title}{value}{reason}")
    return Text.assemble((status, STYLES.get(status, "red")), text)
