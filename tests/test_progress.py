"""The display says how things stand: live on a terminal, plain lines elsewhere, or nothing."""

import io
import re
import sys
import threading
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from orchestrator.adapters.progress import (
    LiveDisplay,
    PlainLines,
    Silence,
    plain_line,
    progress_for,
)
from orchestrator.core.pace import Standing

STANDING = Standing(
    total=10_000,
    waiting=3_188,
    running=5_000,
    tools=12,
    done=1_797,
    failed=3,
    calls_per_minute=598.4,
    rpm=600.0,
    tokens_in=1_234_567,
    tokens_out=89_123,
    cost_usd=1.23456,
    seconds_left=860.0,
    seconds_passed=80.0,
)
UNKNOWN = Standing(None, 0, 1, 0, 2, 0, 1.0, None, 0, 0, None, None, 0.0)


class Terminal(io.StringIO):
    """A stream that says that a person looks at it."""

    def isatty(self):
        return True


@pytest.fixture(autouse=True)
def _plain_environment(monkeypatch):
    for name in ("NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE", "COLUMNS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")


def at(seconds):
    return Standing(10, 9, 1, 0, 0, 0, 0.0, None, 0, 0, 0.0, None, seconds)


def drawn(standing, *, width=80, name="support-tickets", **settings):
    """The lines that the live display leaves behind, without escape codes."""
    stream = Terminal()
    display = LiveDisplay(Console(file=stream, width=width, force_terminal=True, **settings), name)
    display.show(standing)
    display.close()
    # What it leaves is what follows the last place where a line is drawn over.
    text = stream.getvalue().rpartition("\x1b[2K")[2]
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text).rstrip("\n").split("\n")


class TestChoice:
    def test_by_the_stream(self, monkeypatch):
        """A terminal gets the live display, anything else plain lines."""
        assert isinstance(progress_for(Terminal(), name="job"), LiveDisplay)
        assert isinstance(progress_for(io.StringIO(), name="job"), PlainLines)
        monkeypatch.setenv("FORCE_COLOR", "1")
        assert isinstance(progress_for(io.StringIO(), name="job"), PlainLines)
        monkeypatch.setenv("TERM", "dumb")
        assert isinstance(progress_for(Terminal(), name="job"), PlainLines)

    def test_quiet(self):
        """Quiet means that not a character is written."""
        stream = Terminal()
        progress = progress_for(stream, name="job", quiet=True)
        assert isinstance(progress, Silence)
        progress.show(STANDING)
        progress.close()
        assert not stream.getvalue()


class TestPlainLines:
    def test_a_line(self):
        """A line has all that a person looks for, in words that can be searched."""
        stream = io.StringIO()
        progress_for(stream, name="support-tickets").show(STANDING)
        assert stream.getvalue() == (
            "progress: support-tickets 1,800 of 10,000 (18 %) | waiting 3,188 | running 5,000 | "
            "tools 12 | done 1,797 | failed 3 | calls/min 598 of 600 | "
            "tokens 1,234,567 in 89,123 out | cost $1.2346 | passed 0:01:20 | left 0:14:20\n"
        )

    def test_unknowns(self):
        """What is not known is called unknown."""
        stream = io.StringIO()
        progress_for(stream, name="job").show(UNKNOWN)
        assert stream.getvalue() == (
            "progress: job 2 ended | waiting 0 | running 1 | tools 0 | done 2 | failed 0 | "
            "calls/min 1 | tokens 0 in 0 out | cost unknown | passed 0:00:00 | left unknown\n"
        )

    def test_seldom(self):
        """There is a line at once, one every ten seconds at most, and one at the end."""
        stream = io.StringIO()
        progress = progress_for(stream, name="job")
        for quarter in range(4 * 25):
            progress.show(at(quarter / 4))
        progress.close()
        progress.close()
        lines = stream.getvalue().splitlines()
        assert [line.split(":")[0] for line in lines] == ["progress"] * 3 + ["end"]
        passed = [re.search(r"passed (\S+)", line)[1] for line in lines]
        assert passed == ["0:00:00", "0:00:10", "0:00:20", "0:00:25"]

    @given(st.text(st.characters(exclude_categories=["Cs"])))
    def test_one_line_whatever_the_name(self, name):
        """A job's name can't break the line or rule the terminal."""
        stream = io.StringIO()
        progress_for(stream, name=name).show(STANDING)
        assert len(stream.getvalue().splitlines()) == 1
        assert "\x1b" not in stream.getvalue()

    @given(st.integers(0, 1_000), st.integers(0, 1_000))
    def test_percent(self, ended, more):
        """A hundred per cent is said when nothing is left, and not before."""
        standing = Standing(ended + more, 0, 0, 0, ended, 0, 0, None, 0, 0, 0, None, 0)
        stream = io.StringIO()
        progress_for(stream, name="job").show(standing)
        assert ("(100 %)" in stream.getvalue()) == (more == 0)


class TestLive:
    def test_legible(self):
        """On 80 columns the display is a bar and three lines."""
        top, *lines = drawn(STANDING)
        assert re.fullmatch(r"support-tickets  [━╸╺ ]+  1,800 of 10,000 \(18 %\)", top)
        assert lines == [
            "waiting 3,188   running 5,000   tools 12   done 1,797   failed 3",
            "calls/min 598 of 600   tokens 1,234,567 in, 89,123 out   cost $1.2346",
            "passed 0:01:20   left 0:14:20",
        ]

    @pytest.mark.parametrize("width", [40, 60, 80, 200])
    def test_narrow(self, width):
        """Nothing is lost or broken on a narrow terminal."""
        lines = drawn(STANDING, width=width)
        assert max(map(len, lines)) <= width
        text = "\n".join(lines)
        for words in ("1,800 of 10,000", "failed 3", "598 of 600", "$1.2346", "left 0:14:20"):
            assert words in text

    def test_unknown_total(self):
        """Without a total there is no bar, only what ended."""
        lines = drawn(UNKNOWN)
        assert "━" not in "".join(lines)
        assert lines[0].endswith("2 ended")
        assert lines[-1].endswith("left unknown")

    def test_nothing_to_do(self):
        """A total of zero is all done."""
        standing = Standing(0, 0, 0, 0, 0, 0, 0, None, 0, 0, 0.0, 0.0, 0.0)
        assert drawn(standing)[0].endswith("0 of 0 (100 %)")

    def test_name_is_only_text(self):
        """A name with rich's markup or escape codes is shown as it is written."""
        assert drawn(STANDING, name="[red]a[/] \x1b[2J")[0].startswith("[red]a[/]  [2J")
        assert drawn(STANDING, name="[/nothing]")[0].startswith("[/nothing]")

    def test_no_color(self, monkeypatch):
        """NO_COLOR is respected."""

        def codes():
            stream = Terminal()
            display = progress_for(stream, name="job")
            display.show(STANDING)
            display.close()
            return re.findall(r"\x1b\[(?:\d+;)*(?:3[0-8]|4[0-8]|9[0-7])[;m]", stream.getvalue())

        assert codes()
        monkeypatch.setenv("NO_COLOR", "1")
        assert not codes()

    def test_no_thread(self):
        """The display draws when it is shown something, not by a thread of its own."""
        before = set(threading.enumerate())
        display = progress_for(Terminal(), name="job")
        display.show(STANDING)
        assert set(threading.enumerate()) <= before
        display.close()

    def test_gives_streams_back(self, monkeypatch):
        """Standard output is never led elsewhere, and the error stream only while it shows."""
        out, err = io.StringIO(), Terminal()
        monkeypatch.setattr(sys, "stdout", out)
        monkeypatch.setattr(sys, "stderr", err)
        display = progress_for(err, name="job")
        display.show(STANDING)
        sys.stdout.write("for a program")
        sys.stderr.write("a warning\n")
        display.close()
        assert out.getvalue() == "for a program"
        assert "a warning" in err.getvalue()
        assert (sys.stdout, sys.stderr) == (out, err)

    def test_close_is_the_end(self):
        """What comes after the end is not shown, and closing twice is fine."""
        stream = Terminal()
        display = progress_for(stream, name="job")
        display.show(STANDING)
        display.close()
        written = stream.getvalue()
        display.close()
        display.show(STANDING)
        assert stream.getvalue() == written


@pytest.mark.parametrize("kind", [Terminal, io.StringIO])
def test_broken_stream(kind):
    """A stream that goes away ends the display, not the execution."""
    before = sys.stdout, sys.stderr
    stream = kind()
    display = progress_for(stream, name="job")
    display.show(STANDING)
    stream.close()
    display.show(at(100))
    display.show(at(200))
    display.close()
    assert (sys.stdout, sys.stderr) == before


@pytest.mark.parametrize("kind", [Terminal, io.StringIO])
def test_nothing_shown(kind):
    """An execution that ends before anything was shown leaves nothing behind."""
    stream = kind()
    progress_for(stream, name="job").close()
    assert not stream.getvalue()


def test_batches_tell_what_they_have_answered():
    """Their results come when they end; until then the server's count shows that they live."""
    standing = replace(STANDING, batches=2, running=1_000, answered_in_batches=412)

    assert "running 1,000 (412 answered in 2 batches)" in plain_line("job", standing)
