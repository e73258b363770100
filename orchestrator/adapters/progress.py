"""Shows how an execution stands: a live display on a terminal, plain lines where there is none.

It writes to the stream that it is given, standard error as a rule, so that standard output stays
for programs. It keeps no thread and no clock: it draws when it is shown something. A stream that
breaks ends the display and nothing else.
"""

import sys
from collections.abc import Iterator
from contextlib import suppress
from typing import Protocol, TextIO

from rich.console import Console, ConsoleOptions, RenderResult
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from orchestrator.core.pace import Standing

# Often enough to see that it lives, seldom enough for the log of a night.
PLAIN_LINE_SECONDS = 10.0

NAME_CHARACTERS_MAX = 24

# Between what stands on one line.
GAP = "   "


class Progress(Protocol):
    """Where the standing of an execution is shown."""

    def show(self, standing: Standing) -> None:
        """How things stand now; a few times a second is enough."""
        ...

    def close(self) -> None:
        """Leave the last standing behind. Closing twice is fine."""
        ...


def progress_for(stream: TextIO, *, name: str, quiet: bool = False) -> Progress:
    """The display that suits a stream: live on a terminal, plain lines elsewhere, or none.

    Args:
        stream: Where to; standard error as a rule.
        name: Of the job, as the user wrote it.
        quiet: Whether nothing is to be shown.
    """
    if quiet:
        return Silence()
    console = Console(file=stream)
    # rich takes FORCE_COLOR for a terminal; where lines are collected nothing may be redrawn.
    if stream.isatty() and console.is_terminal and not console.is_dumb_terminal:
        return LiveDisplay(console, name)
    return PlainLines(stream, name)


class Silence:
    """Nothing at all."""

    def show(self, standing: Standing) -> None:
        pass

    def close(self) -> None:
        pass


class PlainLines:
    """One line every ten seconds and one at the end, always with the same fields in one order."""

    def __init__(self, stream: TextIO, name: str) -> None:
        self._stream = stream
        self._name = _printable(name)
        self._last: Standing | None = None
        self._next_seconds = 0.0

    def show(self, standing: Standing) -> None:
        self._last = standing
        if standing.seconds_passed >= self._next_seconds:
            self._next_seconds = standing.seconds_passed + PLAIN_LINE_SECONDS
            self._write("progress", standing)

    def close(self) -> None:
        last, self._last = self._last, None
        if last is not None:
            self._write("end", last)

    def _write(self, word: str, standing: Standing) -> None:
        with suppress(OSError, ValueError):
            self._stream.write(f"{word}: {plain_line(self._name, standing)}\n")
            self._stream.flush()


class LiveDisplay:
    """A few lines that are drawn anew each time."""

    def __init__(self, console: Console, name: str) -> None:
        self._console = console
        self._name = _printable(name)
        self._live: Live | None = None
        self._over = False

    def show(self, standing: Standing) -> None:
        if self._over:
            return
        picture = _Picture(self._name, standing)
        try:
            if self._live is None:
                self._live = self._started()
            self._live.update(picture, refresh=True)
        except (OSError, ValueError):  # the terminal is gone
            self.close()

    def close(self) -> None:
        self._over = True
        live, self._live = self._live, None
        if live is not None:
            with suppress(OSError, ValueError):
                live.stop()

    def _started(self) -> Live:
        live = Live(
            console=self._console,
            auto_refresh=False,
            # What others print goes above the display, but never from one stream to the other.
            redirect_stdout=sys.stdout is not None and sys.stdout.isatty(),
            redirect_stderr=True,
        )
        live.start()
        return live


class _Picture:
    """The lines of the live display, in the width that there is."""

    def __init__(self, name: str, standing: Standing) -> None:
        self._name = name
        self._standing = standing

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield self._top(options.max_width)
        for words in (_states(self._standing), _means(self._standing)):
            yield from _packed(words, options.max_width)

    def _top(self, width: int) -> Table:
        standing = self._standing
        name_width = min(NAME_CHARACTERS_MAX, width // 4)  # most of a narrow line is for the bar
        top = Table.grid(padding=(0, 2), expand=True)
        top.add_column(max_width=name_width, no_wrap=True, overflow="ellipsis")
        top.add_column(ratio=1)
        top.add_column(no_wrap=True, justify="right")
        top.add_row(
            Text(self._name, style="bold"),
            "" if standing.total is None else _bar(standing.total, standing.ended),
            Text(_ended_of_total(standing)),
        )
        return top


def _bar(total: int, ended: int) -> ProgressBar:
    # rich's own colour is a red, which on this display means that something failed.
    return ProgressBar(total, ended, complete_style="cyan", finished_style="green")


def _states(standing: Standing) -> list[Text]:
    return [
        _word("waiting", f"{standing.waiting:,}"),
        _word("running", _running(standing)),
        _word("tools", f"{standing.tools:,}"),
        _word("done", f"{standing.done:,}", "green"),
        _word("failed", f"{standing.failed:,}", "red" if standing.failed else ""),
    ]


def _means(standing: Standing) -> list[Text]:
    return [
        _word("calls/min", _calls(standing)),
        _word("tokens", f"{standing.tokens_in:,} in, {standing.tokens_out:,} out"),
        _word("cost", _cost(standing)),
        _word("passed", _duration(standing.seconds_passed)),
        _word("left", _left(standing)),
    ]


def _word(label: str, value: str, style: str = "") -> Text:
    return Text.assemble((label, "dim"), " ", (value, style))


def _packed(words: list[Text], width: int) -> Iterator[Text]:
    """As many words on a line as fit; a word is never broken."""
    line = Text(no_wrap=True, overflow="ellipsis")
    for word in words:
        if line and line.cell_len + len(GAP) + word.cell_len > width:
            yield line
            line = Text(no_wrap=True, overflow="ellipsis")
        line.append_text(Text(GAP if line else "")).append_text(word)
    yield line


def plain_line(name: str, standing: Standing) -> str:
    """A standing on one line, for people and for grep."""
    fields = [
        f"{name} {_ended_of_total(standing)}",
        f"waiting {standing.waiting:,}",
        f"running {_running(standing)}",
        f"tools {standing.tools:,}",
        f"done {standing.done:,}",
        f"failed {standing.failed:,}",
        f"calls/min {_calls(standing)}",
        f"tokens {standing.tokens_in:,} in {standing.tokens_out:,} out",
        f"cost {_cost(standing)}",
        f"passed {_duration(standing.seconds_passed)}",
        f"left {_left(standing)}",
    ]
    return " | ".join(fields)


def _ended_of_total(standing: Standing) -> str:
    if standing.total is None:
        return f"{standing.ended:,} ended"
    # Rounded down: 100 % means that nothing is left.
    percent = 100 * standing.ended // standing.total if standing.total else 100
    return f"{standing.ended:,} of {standing.total:,} ({percent} %)"


def _running(standing: Standing) -> str:
    running = f"{standing.running:,}"
    if not standing.batches:
        return running
    batches = "1 batch" if standing.batches == 1 else f"{standing.batches:,} batches"
    return f"{running} ({standing.answered_in_batches:,} answered in {batches})"


def _calls(standing: Standing) -> str:
    calls = f"{standing.calls_per_minute:,.0f}"
    if standing.rpm is None:
        return calls
    return f"{calls} of {f'{standing.rpm:,.1f}'.removesuffix('.0')}"


def _cost(standing: Standing) -> str:
    return "unknown" if standing.cost_usd is None else f"${standing.cost_usd:,.4f}"


def _left(standing: Standing) -> str:
    return "unknown" if standing.seconds_left is None else _duration(standing.seconds_left)


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:,}:{minutes:02}:{rest:02}"


def _printable(name: str) -> str:
    """The name on one line, without the escape codes that would rule a terminal."""
    return "".join(letter if letter.isprintable() else " " for letter in name)
