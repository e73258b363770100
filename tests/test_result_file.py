"""Result files: the Batch output format, one whole line a result, whatever happens."""

import json
import os
import resource
import signal
import subprocess
import sys
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from orchestrator.adapters.result_file import (
    ResultFiles,
    cut_torn_line,
    prepare_folder,
    result_line,
)
from orchestrator.core.model import (
    NO_USAGE,
    Answer,
    Family,
    Outcome,
    Request,
    Result,
    RunError,
)
from orchestrator.errors import OutputFailed, OutputFolderTaken, OutputFolderUnusable


@dataclass(frozen=True)
class NoBody:
    def read(self):
        return b"{}"


def result_of(
    custom_id="a",
    outcome=Outcome.COMPLETED,
    *,
    body=b'{"id": "resp_1"}',
    error=None,
    run_id="resp_1",
):
    request = Request(custom_id, "/v1/responses", Family.RESPONSES, "m", 1, NoBody())
    answer = None if body is None else Answer(200, "req_1", body)
    return Result(request, outcome, answer, error, NO_USAGE, run_id, 1, 1, 0, 1.0)


def lines_of(path):
    return [json.loads(line) for line in path.read_bytes().splitlines()]


@contextmanager
def files_no_larger_than(size):
    """The system refuses to let files grow: what a full disk does, and as suddenly."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


class TestLines:
    def test_a_completed_request(self, tmp_path):
        """It is in results.jsonl with its answer and no error."""
        with ResultFiles(tmp_path) as files:
            files.record(result_of(error=RunError("odd", "An error that came with a success.")))
            assert (files.results_count, files.errors_count) == (1, 0)

        [line] = lines_of(tmp_path / "results.jsonl")
        assert line.pop("id").startswith("batch_req_")
        assert line == {
            "custom_id": "a",
            "response": {"status_code": 200, "request_id": "req_1", "body": {"id": "resp_1"}},
            "error": None,
        }
        assert lines_of(tmp_path / "errors.jsonl") == []

    @pytest.mark.parametrize("outcome", [o for o in Outcome if o is not Outcome.COMPLETED])
    def test_any_other_outcome(self, tmp_path, outcome):
        """It is in errors.jsonl with its outcome, its error and the run to look for."""
        with ResultFiles(tmp_path) as files:
            files.record(result_of(outcome=outcome, error=RunError("server_error", "Sorry.")))
            assert (files.results_count, files.errors_count) == (0, 1)

        [line] = lines_of(tmp_path / "errors.jsonl")
        assert line["outcome"] == outcome
        assert line["run_id"] == "resp_1"
        assert line["response"]["body"] == {"id": "resp_1"}
        assert line["error"] == {"code": "server_error", "message": "Sorry."}

    @pytest.mark.parametrize("error", [None, RunError("", "")])
    def test_an_outcome_without_an_error_of_its_own(self, error):
        """A line that is no success always has an error; the outcome's name is its code then."""
        result = result_of(outcome=Outcome.STOPPED, body=None, run_id="", error=error)
        line = json.loads(result_line(result))

        assert line["response"] is None
        assert "run_id" not in line
        assert line["error"] == {
            "code": "stopped",
            "message": "The outcome of this request is stopped.",
        }

    def test_ids_are_unique_and_stable(self):
        """The same request has the same id whenever its line is written."""
        ids = [json.loads(result_line(result_of(name)))["id"] for name in "abab"]

        assert ids[:2] == ids[2:]
        assert len(set(ids)) == 2

    def test_an_answer_goes_in_as_it_came(self):
        """A printed-out answer becomes one line; strings, numbers and order stay as they were."""
        body = '{\r\n "z": "a\\nb\\u2028 \u2028",\n "a": 1.00,\n "n": 123456789012345678901\n}\n'
        on_one_line = '{   "z": "a\\nb\\u2028 \u2028",  "a": 1.00,  "n": 123456789012345678901 }'

        line = result_line(result_of(body=body.encode()))

        assert line.count(b"\n") == 1
        assert f'"body":{on_one_line}}}' in line.decode()

    @pytest.mark.parametrize(
        ("body", "told"),
        [
            (b"", None),
            (b" \n", None),
            (b"<html>\n502</html>", "<html>\n502</html>"),
            (b'{"a": NaN}', '{"a": NaN}'),
            (b'{"a": 1', '{"a": 1'),
            (b'{"a": 1}\n{"b": 2}', '{"a": 1}\n{"b": 2}'),
            (b'"\xff"', '"\ufffd"'),
            (b"[" * 100_000, "[" * 100_000),
        ],
    )
    def test_an_answer_that_is_no_json(self, body, told):
        """A line can be parsed whatever a server sent; what it sent is there as text."""
        assert json.loads(result_line(result_of(body=body)))["response"]["body"] == told

    @given(
        st.binary()
        | st.recursive(st.none() | st.text() | st.floats(), st.lists).map(
            lambda value: json.dumps(value, indent=1).encode()
        ),
        st.text(),
        st.text(),
        st.sampled_from(Outcome),
    )
    @example(b"{}", "\ud800", "\udfff", Outcome.FAILED)
    def test_lines_always_parse_back(self, body, custom_id, message, outcome):
        """Every result is one line of strict JSON in UTF-8."""
        error = RunError(message, message)
        result = result_of(custom_id, outcome, body=body, error=error, run_id=message)

        line = result_line(result)

        assert line.endswith(b"\n")
        assert b"\n" not in line[:-1]
        assert b"\r" not in line
        parsed = json.loads(line.decode())
        assert parsed["custom_id"] == custom_id.encode("utf-8", "replace").decode()
        assert (parsed["error"] is None) == (outcome is Outcome.COMPLETED)


class TestWholeLinesOnly:
    @pytest.mark.parametrize("room_bytes", [0, 1, 100])
    def test_a_full_disk(self, tmp_path, room_bytes):
        """What was torn is cut off, the error says so, and with room again it goes on."""
        path = tmp_path / "results.jsonl"
        with ResultFiles(tmp_path) as files:
            files.record(result_of("first"))
            whole = path.read_bytes()
            with (
                files_no_larger_than(len(whole) + room_bytes),
                pytest.raises(OutputFailed, match=r"results\.jsonl can't be written"),
            ):
                files.record(result_of("second"))
            assert path.read_bytes() == whole
            assert files.results_count == 1
            files.record(result_of("third"))

        assert [line["custom_id"] for line in lines_of(path)] == ["first", "third"]

    def test_after_the_end(self, tmp_path):
        """Closing twice is fine; writing after it is an error that we know."""
        files = ResultFiles(tmp_path)
        files.close()
        files.close()

        with pytest.raises(OutputFailed, match="it is closed"):
            files.record(result_of())

    @pytest.mark.real_time
    @pytest.mark.slow
    def test_a_killed_process(self, tmp_path):
        """Whatever moment it is killed at, each line in the file is whole."""
        program = (
            "import sys; from pathlib import Path; sys.path.insert(0, sys.argv[2])\n"
            "from test_result_file import ResultFiles, result_of\n"
            "files = ResultFiles(Path(sys.argv[1]))\n"
            "while True:\n"
            "    files.record(result_of(body=b'[' + b'1,' * 50_000 + b'1]'))\n"
            "    print(files.results_count, flush=True)\n"
        )
        command = [sys.executable, "-c", program, str(tmp_path), str(Path(__file__).parent)]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as process:  # our own program
            told = [int(process.stdout.readline()) for _ in range(50)]
            process.send_signal(signal.SIGKILL)

        assert cut_torn_line(tmp_path / "results.jsonl") == 0
        assert len(lines_of(tmp_path / "results.jsonl")) >= told[-1] == 50

    @pytest.mark.parametrize(
        ("content", "kept"),
        [
            (b"", b""),
            (b"{}\n", b"{}\n"),
            (b"{}\n{}\n", b"{}\n{}\n"),
            (b"{}\n{", b"{}\n"),
            (b"{}\n{}", b"{}\n"),
            (b"{", b""),
            (b"{}\n" + b"x" * 200_000, b"{}\n"),
            (b"x" * 200_000, b""),
            (b"x" * 200_000 + b"\ny", b"x" * 200_000 + b"\n"),
        ],
    )
    def test_a_torn_line_is_cut(self, tmp_path, content, kept):
        """A line without its break was not finished; how much was cut is told."""
        path = tmp_path / "results.jsonl"
        path.write_bytes(content)

        assert cut_torn_line(path) == len(content) - len(kept)
        assert path.read_bytes() == kept

    def test_where_there_is_nothing_to_cut(self, tmp_path):
        """No file is a whole file; a folder in its place is an error."""
        assert cut_torn_line(tmp_path / "none.jsonl") == 0
        with pytest.raises(OutputFailed):
            cut_torn_line(tmp_path)


class TestFolders:
    def test_it_is_made_for_the_user_alone(self, tmp_path):
        """With all folders above it; the files in it are the user's alone, too."""
        folder = tmp_path / "a" / "b"
        prepare_folder(folder)
        with ResultFiles(folder):
            pass

        modes = {path.name: path.stat().st_mode & 0o777 for path in tmp_path.rglob("*")}
        assert modes == {"a": 0o700, "b": 0o700, "results.jsonl": 0o600, "errors.jsonl": 0o600}

    def test_a_folder_that_is_there_keeps_its_mode(self, tmp_path):
        """It may hold other things, and others may look at those."""
        tmp_path.chmod(0o755)
        (tmp_path / "notes.txt").touch()

        prepare_folder(tmp_path)

        assert tmp_path.stat().st_mode & 0o777 == 0o755

    @pytest.mark.parametrize("name", ["results.jsonl", "errors.jsonl", "summary.json"])
    def test_a_folder_with_the_results_of_another_execution(self, tmp_path, name):
        """Results are never overwritten."""
        (tmp_path / name).write_text("precious")

        with pytest.raises(OutputFolderTaken) as caught:
            prepare_folder(tmp_path)

        assert str(caught.value) == (
            f"{tmp_path} already holds the results of another execution. Give another folder with "
            "--out; results are never overwritten. Nothing was sent."
        )
        assert (tmp_path / name).read_text() == "precious"

    @pytest.mark.parametrize("name", ["results.jsonl", "errors.jsonl"])
    def test_files_that_appear_after_the_folder_was_prepared(self, tmp_path, name):
        """Two executions that race for a folder: one gets it, and leaves no trace of the other."""
        (tmp_path / name).write_text("precious")

        with pytest.raises(OutputFolderTaken):
            ResultFiles(tmp_path)

        assert [path.name for path in tmp_path.iterdir()] == [name]
        assert (tmp_path / name).read_text() == "precious"

    @pytest.mark.parametrize("below", ["", "below", "far/below"])
    def test_a_file_in_its_place(self, tmp_path, below):
        """The message names what is in the way."""
        (tmp_path / "file").touch()

        with pytest.raises(OutputFolderUnusable, match=r"file is not a folder\. Give another"):
            prepare_folder(tmp_path / "file" / below)

    @pytest.mark.parametrize("name", ["a\0b", "x" * 5_000])
    def test_an_impossible_name(self, tmp_path, name):
        """It is told as the user's mistake."""
        with pytest.raises(OutputFolderUnusable):
            prepare_folder(tmp_path / name)

    def test_no_folder_for_the_files(self, tmp_path):
        """A folder that vanished is told as such."""
        with pytest.raises(OutputFolderUnusable, match="No such file"):
            ResultFiles(tmp_path / "none")

    @pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
    def test_a_folder_that_is_not_ours(self, tmp_path):
        """No permission is known before anything is sent."""
        tmp_path.chmod(0o500)

        with pytest.raises(OutputFolderUnusable, match="may not write"):
            prepare_folder(tmp_path)
        with pytest.raises(OutputFolderUnusable, match="Permission denied"):
            prepare_folder(tmp_path / "below")
