"""What a person can get wrong on the command line: told in two lines, nothing is sent."""

import pytest
from support.command import (
    GOOD,
    assert_told_in_two_lines,
    command_in,
    json_lines,
    write_job,
)

pytestmark = pytest.mark.real_time


@pytest.fixture
def command(monkeypatch, capsys, tmp_path):
    return command_in(tmp_path, monkeypatch, capsys)


@pytest.fixture
def emulator(emulator_with_rules):
    return emulator_with_rules


@pytest.mark.parametrize("key", [None, "", "  \n"], ids=["none", "empty", "blank"])
def test_without_a_key_nothing_is_looked_at(command, monkeypatch, tmp_path, key):
    """A missing or blank key is told before the source is looked at, with the cure."""
    if key is None:
        monkeypatch.delenv("OPENAI_API_KEY")
    else:
        monkeypatch.setenv("OPENAI_API_KEY", key)
    ended = command("run", "no-such-job", "--rpm", "nan", "--base-url", "nonsense")
    assert ended.code == 2
    assert_told_in_two_lines(ended)
    assert "OPENAI_API_KEY" in ended.err
    assert "--emulator" in ended.err
    assert list(tmp_path.iterdir()) == []


MISTAKEN_LINES = {
    "bad json": (GOOD + b'\n{"prompt": ', "requests.jsonl, line 2"),
    "no object": (b"[1]", "jq -c"),
    "no model": (b'{"prompt": "x"}', 'line 1: "model" is missing'),
    "same id": (GOOD + b"\n" + GOOD, 'line 2 (custom_id "a"): line 1 has the same'),
    "unknown url": (
        GOOD.replace(b"embeddings", b"nonsense"),
        'line 1 (custom_id "a"): the url',
    ),
    "no body": (b'{"custom_id": "a", "url": "/v1/responses"}', 'line 1 (custom_id "a")'),
    "empty": (b"", "the file is empty"),
    "blank": (b"\n \r\n", "the file is empty"),
    "bom alone": (b"\xef\xbb\xbf", "the file is empty"),
    "utf-16": (GOOD.decode().encode("utf-16"), "it is UTF-16 text"),
    "gzip": (b"\x1f\x8b\x08\x00", "it is packed by gzip"),
}


@pytest.mark.parametrize("name", MISTAKEN_LINES)
def test_mistaken_lines_are_told_with_file_and_line(command, emulator, tmp_path, name):
    """Nothing is sent of a file with a mistake in it, and no folder is made."""
    content, complaint = MISTAKEN_LINES[name]
    (tmp_path / "requests.jsonl").write_bytes(content)
    before = emulator.books()["calls_served"]
    ended = command("run", "requests.jsonl", "--base-url", emulator.base_url)
    assert ended.code == 2
    assert_told_in_two_lines(ended)
    assert "requests.jsonl" in ended.err
    assert complaint in ended.err
    assert ended.err.endswith("Nothing was sent.\n")
    assert [path.name for path in tmp_path.iterdir()] == ["requests.jsonl"]
    assert emulator.books()["calls_served"] == before


def test_lines_of_every_system_are_read(command, tmp_path):
    """A byte order mark, CRLF and a last line without its end are no mistakes."""
    other = GOOD.replace(b'"a"', b'"b"')
    (tmp_path / "requests.jsonl").write_bytes(b"\xef\xbb\xbf" + GOOD + b"\r\n" + other)
    ended = command("run", "requests.jsonl", "--emulator", "--out", "out")
    assert ended.code == 0
    found = {line["custom_id"] for line in json_lines(tmp_path / "out/results.jsonl")}
    assert found == {"a", "b"}


TWO_OF_A_NAME = "def f(a: int) -> int: return a\ndef g(a: int) -> int: return a\ng.__name__ = 'f'\n"
MISTAKEN_JOBS = {
    "no toml": ({"job.toml": "rpm = \n"}, "job.toml: line 1 is no valid TOML"),
    "unknown key": ({"job.toml": "[limits]\nrmp = 3\n"}, 'Did you mean "rpm"'),
    "bad number": ({"job.toml": "[limits]\nrpm = nan\n"}, "[limits] rpm = nan"),
    "no such tools": ({"job.toml": 'tools = "mine.py"\n'}, 'tools = "mine.py"'),
    "bad emulator": ({"job.toml": '[emulator]\nfaults = "sloow"\n'}, "unknown fault 'sloow'"),
    "no requests": ({"requests.jsonl": None}, "there is no requests.jsonl"),
    "tools with an error": ({"tools.py": "def f(:\n"}, "tools.py, line 1"),
    "tools that exit": ({"tools.py": "raise SystemExit(0)\n"}, "SystemExit"),
    "no tools in it": ({"tools.py": "x = 1\n"}, "there is no public function"),
    "not a tool": ({"tools.py": "def f(a): return a\n"}, "The tool 'f'"),
    "tools of one name": ({"tools.py": TWO_OF_A_NAME}, "another tool has the same name"),
}


@pytest.mark.parametrize("name", MISTAKEN_JOBS)
def test_a_mistaken_job_is_told(command, tmp_path, name):
    """What is wrong in a job's files is found before a folder is made."""
    files, complaint = MISTAKEN_JOBS[name]
    job = write_job(tmp_path / "job", ["x"])
    for file, text in files.items():
        (job / file).unlink(missing_ok=True)
        if text is not None:
            (job / file).write_text(text)
    ended = command("run", "job", "--emulator")
    assert ended.code == 2
    assert_told_in_two_lines(ended)
    assert complaint in ended.err
    assert [path.name for path in tmp_path.iterdir()] == ["job"]


MISTAKEN_WORDS = [
    ("run", "Missing argument 'SOURCE'"),
    ("run no-such-job", "no-such-job does not exist"),
    ("run .", "the folder has no job.toml"),
    ("run job/job.toml", "Give its folder, job"),
    ("run job --foo", "No such option: --foo"),
    ("run job --rpm abc", "Invalid value for '--rpm'"),
    ("run job --connections 1.5", "Invalid value for '--connections'"),
    ("run job job", "unexpected extra argument"),
    ("walk job", "No such command 'walk'"),
    ("run job --rpm nan", "rpm = nan"),
    ("run job --rpm inf", "rpm = inf"),
    ("run job --rpm -1", "rpm = -1"),
    ("run job --tpm 0", "tpm = 0"),
    ("run job --checks-rpm nan", "checks_rpm = nan"),
    ("run job --connections 0", "connections = 0"),
    ("run job --max-in-flight -5", "max_in_flight = -5"),
    ("run job --deadline nan", "deadline_seconds = nan"),
    ("run job --url /v1/nonsense", 'the url "/v1/nonsense" is unknown'),
    ("run job --tools no-such.py", "no-such.py can't be loaded"),
    ("run job --log-level loud", "Use one of: debug, info, warning, error"),
    ("run job --via bulk", "via = 'bulk' can't be used: there is no such way. Say \"batch\", or"),
    ("run job --via", "Option '--via' requires an argument"),
    ("run job --direct-below -1", "direct_below = -1"),
    ("run job --enqueued-tokens 0", "enqueued_tokens = 0"),
    ("run job --emulator --base-url http://x", "Leave out --base-url or --emulator"),
    ("run job --base-url nonsense", "does not begin with http:// or https://"),
]


@pytest.mark.parametrize(("words", "complaint"), MISTAKEN_WORDS)
def test_a_mistake_in_the_words_is_told(command, tmp_path, words, complaint):
    """Unknown and unusable words end with code 2 and say where to look; nothing is made."""
    write_job(tmp_path / "job", ["x"])
    ended = command(*words.split())
    assert ended.code == 2
    assert_told_in_two_lines(ended)
    assert complaint in ended.err
    assert [path.name for path in tmp_path.iterdir()] == ["job"]


def test_a_blank_base_url_is_not_the_default_server(command, tmp_path):
    """`--base-url "$UNSET"` is refused: the requests were not meant for the default server."""
    write_job(tmp_path / "job", ["x"])
    ended = command("run", "job", "--base-url", " ")
    assert ended.code == 2
    assert_told_in_two_lines(ended)
    assert "it is blank" in ended.err


@pytest.mark.parametrize(
    ("out", "complaint"),
    [
        ("taken", "already holds the results of another execution"),
        ("file", "file is not a folder"),
        ("file/below", "file is not a folder"),
        ("x" * 300, "File name too long"),
    ],
)
def test_an_output_folder_that_cannot_be_used(command, emulator, tmp_path, out, complaint):
    """Nothing is overwritten, and nothing is sent when there is no place for the results."""
    write_job(tmp_path / "job", ["x"])
    (tmp_path / "file").write_text("mine")
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken/results.jsonl").write_text("mine")
    before = emulator.books()["calls_served"]
    ended = command("run", "job", "--base-url", emulator.base_url, "--out", out)
    assert ended.code == 2
    assert_told_in_two_lines(ended)
    assert complaint in ended.err
    assert (tmp_path / "file").read_text() == "mine"
    assert (tmp_path / "taken/results.jsonl").read_text() == "mine"
    assert emulator.books()["calls_served"] == before


def test_the_folder_for_executions_may_be_in_the_way(command, tmp_path):
    """A file named executions is left alone, and --out is the cure."""
    write_job(tmp_path / "job", ["x"])
    (tmp_path / "executions").write_text("mine")
    ended = command("run", "job", "--emulator")
    assert ended.code == 2
    assert_told_in_two_lines(ended)
    assert "Give another one with --out" in ended.err
