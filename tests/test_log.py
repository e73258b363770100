"""The log says what happened, keeps secrets out, and never stops an execution."""

import io
import json
import os
import resource
import signal
import stat
import sys
from contextlib import contextmanager
from datetime import datetime, timedelta

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.adapters.log import DEPTH_MAX, TEXT_CHARACTERS_MAX, execution_log, quiet_log
from orchestrator.errors import OutputFolderUnusable

KEY = "sk-proj-abcdefghijklmnop"
REGISTERED = "a registered secret"


@pytest.fixture
def path(tmp_path):
    return tmp_path / "log.jsonl"


def lines_of(path):
    text = path.read_text(encoding="utf-8")
    assert not text or text.endswith("\n")
    return [json.loads(line) for line in text.split("\n")[:-1]]


def logged(path, event="thing.happened", /, **fields):
    with execution_log(path, secrets=[REGISTERED, "short", " "]) as log:
        log.info(event, **fields)
    return lines_of(path)[-1]


def break_with(message):
    raise ValueError(message)


@contextmanager
def disk_full_after(file_bytes):
    """The operating system refuses what makes a file longer."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (file_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, ignored)


class TestLines:
    def test_a_line(self, path):
        """A line tells when, how grave, what, and the facts, in this order."""
        line = logged(path, "run.created", custom_id="r-1", tokens=12, list=[1, None, True])
        assert list(line)[:3] == ["timestamp", "level", "event"]
        when = datetime.fromisoformat(line.pop("timestamp"))
        assert when.utcoffset() == timedelta(0)
        assert line == {
            "level": "info",
            "event": "run.created",
            "custom_id": "r-1",
            "tokens": 12,
            "list": [1, None, True],
        }

    def test_level(self, path):
        """Only what is grave enough is written."""
        with execution_log(path, level="warning") as log:
            log.info("too.little")
            log.warning("enough")
            log.error("more")
        assert [line["level"] for line in lines_of(path)] == ["warning", "error"]

    def test_bound_fields(self, path):
        """What is bound to a logger is in all its lines."""
        with execution_log(path) as log:
            log.bind(run="run-1").info("thing.happened")
        assert lines_of(path)[0]["run"] == "run-1"

    def test_exceptions_are_text(self, path):
        """An exception is in the line with its traceback, as text."""
        with execution_log(path) as log:
            try:
                break_with("what went wrong")
            except ValueError as error:
                log.exception("call.broken")
                log.warning("driver.broken", exc_info=error)
        for line in lines_of(path):
            assert line["exception"].startswith("Traceback")
            assert line["exception"].endswith("ValueError: what went wrong")

    def test_for_the_user_alone(self, path):
        """Nobody else can read the log."""
        logged(path)
        assert stat.S_IMODE(path.stat().st_mode) == 0o600

    def test_appends(self, path):
        """Lines of an earlier execution are kept."""
        logged(path, "first")
        logged(path, "second")
        assert [line["event"] for line in lines_of(path)] == ["first", "second"]

    def test_unusable_folder(self, tmp_path):
        """A file that can't be made is told before anything is sent."""
        with (
            pytest.raises(OutputFolderUnusable, match="missing"),
            execution_log(tmp_path / "missing" / "log.jsonl"),
        ):
            pass

    def test_structlog_is_left_alone(self, path):
        """A program that embeds us keeps its own logging."""
        logged(path)
        quiet_log()
        assert not structlog.is_configured()

    @given(
        st.dictionaries(
            st.text(st.characters(), min_size=1).filter(lambda name: name.isidentifier()),
            st.recursive(
                st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters()),
                lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
            ),
        )
    )
    def test_any_fields(self, tmp_path_factory, fields):
        """Whatever the facts, there is one line that is JSON."""
        path = tmp_path_factory.mktemp("log") / "log.jsonl"
        reserved = {"event", "exc_info", "self", "level", "timestamp"}
        logged(path, **{name: fields[name] for name in fields.keys() - reserved})
        assert [line["event"] for line in lines_of(path)] == ["thing.happened"]


class TestOddValues:
    def test_what_json_has_no_words_for(self, path):
        """Values that JSON can't write are written as Python shows them."""
        line = logged(path, a=b"\xff", b=float("inf"), c=object, d={1: (2, 3)})
        assert line["a"] == "b'\\xff'"
        assert line["b"] == "inf"
        assert line["c"] == "<class 'object'>"
        assert line["d"] == {"1": [2, 3]}

    def test_half_of_a_surrogate_pair(self, path):
        """Text that UTF-8 can't write is written as JSON's escape and comes back the same."""
        assert logged(path, message="\ud83d!")["message"] == "\ud83d!"

    def test_without_end(self, path):
        """A value that holds itself, and one that is too long, end somewhere."""
        circle = []
        circle.append(circle)
        line = logged(path, circle=circle, long="x" * 10**6, nested=[[[[[[[[["deep"]]]]]]]]])
        assert len(line["long"]) < TEXT_CHARACTERS_MAX + 100
        assert line["long"].endswith("(1,000,000 characters)")
        assert json.dumps(line["circle"]).count("[") < DEPTH_MAX + 5

    def test_value_that_breaks(self, path):
        """A value that can't even be shown costs its line, not the execution."""

        class Broken:
            def __repr__(self):
                raise RuntimeError

        line = logged(path, value=Broken())
        assert line["event"] == "log.line_lost"
        assert line["problem"] == "RuntimeError"


class TestSecrets:
    @pytest.mark.parametrize(
        "fields",
        [
            {"message": f"Incorrect API key provided: {KEY}."},
            {"api_key": KEY},
            {"OPENAI_API_KEY": "plain-words"},
            {"headers": {"Authorization": "Bearer plain-words"}},
            {"headers": {"X-Api-Key": "plain-words"}},
            {"settings": [{"clientSecret": "plain-words"}]},
            {"webhook_secret": "plain-words"},
            {"message": "Authorization: Bearer plain-words"},
            {"message": '{"api_key": "plain-words"}'},
            {"message": json.dumps({"inner": '{"api_key": "plain-words"}'})},
            {"message": "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"},
            {"url": "https://user:plain-words@host/v1"},
            {"url": "https://host/v1?api_key=plain-words"},
            {"url": f"https://host/{REGISTERED}/v1"},
            {"value": "short"},
            {"nested": [{"deep": {REGISTERED: 1}}]},
            {"deep": [[[[[[[[{"api_key": "plain-words"}]]]]]]]]},
            {"bytes": KEY.encode()},
            {"error": ValueError(KEY)},
            {"long": "x" * (TEXT_CHARACTERS_MAX - 8) + REGISTERED},
        ],
    )
    def test_masked(self, path, fields):
        """Keys are masked by their look, by the name of their field, and when they are known."""
        logged(path, **fields)
        text = path.read_text()
        assert "***" in text
        for secret in ("abcdefgh", "plain", "MfKQ", "a regis", '"short"'):
            assert secret not in text

    def test_masked_in_exceptions_and_events(self, path):
        """Keys are masked in tracebacks and in the event itself."""
        with execution_log(path) as log:
            try:
                break_with(KEY)
            except ValueError:
                log.exception("failed with %s", KEY)
        assert "abcdefgh" not in path.read_text()

    def test_ordinary_words_stay(self, path):
        """What only sounds like a secret is still readable."""
        said = "a risk-assessment of the task-force took 12 tokens, in a short while"
        line = logged(path, message=said, tokens=12, tokens_in=3, custom_id="r-1", api_key=None)
        assert line["message"] == said
        assert (line["tokens"], line["tokens_in"], line["custom_id"]) == (12, 3, "r-1")
        assert line["api_key"] is None


class TestNeverRaises:
    def test_closed(self, path):
        """A line that comes after the end is lost and does no harm."""
        with execution_log(path) as log:
            log.info("before")
        log.error("after")
        assert [line["event"] for line in lines_of(path)] == ["before"]

    def test_full_disk(self, path):
        """A full disk costs lines; those before and after it are whole."""
        with execution_log(path) as log:
            log.info("before")
            with disk_full_after(path.stat().st_size + 10):
                log.info("torn")
                log.info("lost")
            log.info("after")
        first, torn, last = path.read_text().splitlines()
        assert json.loads(first)["event"] == "before"
        assert len(torn) == 10
        assert json.loads(last)["event"] == "after"

    @pytest.mark.skipif(not os.path.exists("/dev/full"), reason="Linux has it")  # noqa: PTH110 - shorter
    def test_full_device(self, path):
        """A device that takes nothing is no reason to stop."""
        path.symlink_to("/dev/full")
        with execution_log(path) as log:
            log.info("lost")

    def test_leaves_exceptions_alone(self, path):
        """An exception inside of the block goes through, and the file is closed."""
        with pytest.raises(KeyboardInterrupt), execution_log(path) as log:
            raise KeyboardInterrupt
        log.info("after")
        assert lines_of(path) == []


class TestQuietLog:
    def test_one_line_of_text(self, capsys):
        """Warnings are lines for people on the error stream; nothing else is written."""
        log = quiet_log()
        log.info("too.little")
        log.warning("tool.failed", custom_id="r-1", tool="look up", message="two\nlines")
        out, err = capsys.readouterr()
        assert not out
        assert err == (
            "orchestrator: warning: tool.failed custom_id=r-1 tool='look up' "
            "message='two\\nlines'\n"
        )

    def test_exceptions_in_a_word(self, capsys):
        """An exception is told on the same line, without a traceback, masked."""
        quiet_log().error("driver.broken", exc_info=ValueError(f"bad key {KEY}"))
        assert capsys.readouterr().err == (
            "orchestrator: error: driver.broken exception='ValueError: bad key sk-***'\n"
        )

    def test_no_escape_codes(self, capsys):
        """What a server said does not rule the terminal."""
        quiet_log().warning("call.failed\x1b[2J", message="\x1b]0;title\x07")
        assert "\x1b" not in capsys.readouterr().err

    @pytest.mark.parametrize("stream", [None, "closed"])
    def test_no_error_stream(self, monkeypatch, stream):
        """A process without an error stream loses the warning and nothing else."""
        if stream == "closed":
            stream = io.StringIO()
            stream.close()
        monkeypatch.setattr(sys, "stderr", stream)
        quiet_log().warning("tool.failed")
