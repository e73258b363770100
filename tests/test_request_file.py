"""Request files: what a line may be, what is refused and how it is told, and how bodies go out."""

import json
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.adapters.request_file import RequestDefaults, RequestFile
from orchestrator.adapters.request_file.duplicates import BUCKETS, Duplicates, Repeat
from orchestrator.adapters.request_file.file import LINE_BYTES_MAX
from orchestrator.core.families import (
    CHAT_URL,
    RESPONSES_URL,
)
from orchestrator.errors import (
    InputChanged,
    LineUnusable,
    SourceMissing,
    SourceUnusable,
    UserMistake,
)

REAL_FILES = Path(__file__).parents[2] / "shared" / "data" / "requests"

WITH_MODEL = RequestDefaults(model="gpt-5-nano")


def batch_line(custom_id="a", url=RESPONSES_URL, **body):
    body = {"model": "gpt-5-nano", "input": "Hi"} | body
    return {"custom_id": custom_id, "method": "POST", "url": url, "body": body}


def text_of(*lines):
    return b"".join(
        (line if isinstance(line, bytes) else json.dumps(line).encode()) + b"\n" for line in lines
    )


@pytest.fixture
def write(tmp_path):
    """Writes a file of lines (objects, or bytes as they are) and gives its path."""

    def write(*lines, name="requests.jsonl", whole=None):
        path = tmp_path / name
        path.write_bytes(text_of(*lines) if whole is None else whole)
        return path

    return write


@pytest.fixture
def read(write):
    """Checks and reads a file of lines; gives its requests and their bodies, parsed."""

    def read(*lines, defaults=None, whole=None):
        with RequestFile(write(*lines, whole=whole), defaults) as file:
            summary = file.check()
            requests = list(file)
            assert summary.requests == len(requests)
            return [(request, json.loads(request.body.read())) for request in requests]

    return read


@pytest.fixture
def complaint(write):
    """The message about a file that can't be used."""

    def complaint(*lines, defaults=None, whole=None):
        path = write(*lines, whole=whole)
        with pytest.raises(UserMistake) as caught, RequestFile(path, defaults) as file:
            file.check()
        return str(caught.value).replace(str(path), "FILE")

    return complaint


class TestBadLines:
    def test_the_whole_text_of_a_message(self, complaint):
        """It names the file, the line, the request, the problem and the cure."""
        line = {"custom_id": "ticket-7", "url": "/v1/chat/completions", "body": {"messages": []}}

        assert complaint(batch_line(), b"", line) == (
            'FILE, line 3 (custom_id "ticket-7"): "model" is missing. Add it to the body, or name '
            "one for all lines with --model. Nothing was sent."
        )

    def test_other_bad_lines_are_counted_and_the_next_ones_named(self, complaint):
        """The first is told in full, so that one reading is enough to see how bad it is."""
        assert complaint(b"{", batch_line(), b"{", b"{").endswith(
            " of its own. 2 more bad lines: 3, 4. Nothing was sent."
        )
        assert complaint(b"{", b"{").endswith(" of its own. 1 more bad line: 2. Nothing was sent.")
        assert complaint(*[b"{"] * 10).endswith(
            " of its own. 9 more bad lines: 2, 3, 4, 5, 6, .... Nothing was sent."
        )

    def test_a_custom_id_used_twice_names_both_lines(self, complaint):
        """The later line is the bad one."""
        lines = [batch_line("a"), batch_line("b"), batch_line("a"), batch_line("a")]

        assert complaint(*lines) == (
            'FILE, line 3 (custom_id "a"): line 1 has the same custom_id. Give every request a '
            "custom_id of its own. 1 more bad line: 4. Nothing was sent."
        )

    def test_a_given_name_may_not_be_one_that_we_give(self, complaint):
        """line-2 is taken by the second line, which has no name of its own."""
        message = complaint(batch_line("line-2"), {"model": "m", "input": "Hi"})

        assert message.startswith('FILE, line 2 (custom_id "line-2"): line 1 has the same')

    def test_repeats_and_other_mistakes_come_in_the_order_of_lines(self, complaint):
        """A repeat is known only at the end, but told first when it stands first."""
        message = complaint(batch_line("a"), batch_line("a"), b"{")

        assert message.startswith('FILE, line 2 (custom_id "a")')
        assert "1 more bad line: 3." in message

    @pytest.mark.slow
    def test_a_line_too_long_is_refused_and_the_next_one_looked_at(self, write):
        """Lines are in memory one at a time, so one must fit."""
        path = write(b'"' + b"x" * (LINE_BYTES_MAX + 300_000), b"{")

        with RequestFile(path) as file, pytest.raises(LineUnusable) as caught:
            file.check()

        assert (caught.value.line, caught.value.more) == (1, " 1 more bad line: 2.")
        assert caught.value.problem == "it is longer than 64 MiB"


class TestFilesAsTheyComeAlong:
    LINES = (batch_line("a"), batch_line("b", input="ü"))

    @pytest.mark.parametrize(
        "whole",
        [
            text_of(*LINES),
            text_of(*LINES).rstrip(b"\n"),
            text_of(*LINES).replace(b"\n", b"\r\n"),
            b"\xef\xbb\xbf" + text_of(*LINES),
            b"\xef\xbb\xbf\r\n\n" + text_of(*LINES) + b"\n  \n",
        ],
        ids=["plain", "no final newline", "CRLF", "BOM", "BOM and blank lines"],
    )
    def test_dialects(self, read, whole):
        """Editors and systems write text files in several ways; all of them are read."""
        assert [(request.custom_id, body) for request, body in read(whole=whole)] == [
            (line["custom_id"], line["body"]) for line in self.LINES
        ]

    @pytest.mark.parametrize("whole", [b"", b"\n \n\r\n", b"\xef\xbb\xbf", b"\xef\xbb\xbf\n"])
    def test_an_empty_file(self, complaint, whole):
        """It is a mistake, not an execution with no requests."""
        assert complaint(whole=whole) == (
            "FILE has no requests: the file is empty. Nothing was sent."
        )

    @pytest.mark.parametrize(
        ("whole", "says"),
        [
            (
                b'\n [{"prompt": "x"}]',
                "this is a JSON array, not JSON lines. Write one object a line",
            ),
            ('{"prompt": "x"}'.encode("utf-16"), "it is UTF-16 text. Save it as UTF-8."),
            ("\ufeff{}".encode("utf-16-be"), "it is UTF-16 text. Save it as UTF-8."),
            (b"\x1f\x8b\x08\x00", "it is packed by gzip. Unpack it first: gunzip -k FILE"),
            (b"PK\x03\x04", "it is a zip archive. Unpack it first: unzip FILE"),
            (b"\x28\xb5\x2f\xfd", "it is packed by zstd. Unpack it first: unzstd FILE"),
        ],
    )
    def test_files_of_another_kind(self, complaint, whole, says):
        """The message says what the file is and how to make a request file of it."""
        assert complaint(whole=whole).startswith(f"FILE can't be used as a source: {says}")

    def test_no_such_file(self, tmp_path):
        """A name that doesn't exist is told as such."""
        with pytest.raises(SourceMissing):
            RequestFile(tmp_path / "none.jsonl")

    @pytest.mark.parametrize("name", ["", "requests.jsonl/below", "a\0b", "x" * 5_000])
    def test_no_file_at_all(self, write, name):
        """A folder, a path through a file and impossible names are the user's mistake."""
        path = write(batch_line())

        with pytest.raises(SourceUnusable):
            RequestFile(path.parent / name)

    def test_a_pipe(self, tmp_path):
        """What can be read only once can't be checked first."""
        os.mkfifo(tmp_path / "pipe")

        with pytest.raises(SourceUnusable, match="not a regular file"):
            RequestFile(tmp_path / "pipe")

    @pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
    def test_a_file_that_is_not_ours_to_read(self, write):
        """No permission is told as such."""
        path = write(batch_line())
        path.chmod(0)

        with pytest.raises(SourceUnusable, match="Permission denied"):
            RequestFile(path)

    def test_a_closed_file_is_not_read(self, write):
        """Closing twice is fine; a body that comes too late is an error that we know."""
        with RequestFile(write(batch_line())) as file:
            [request] = file
        file.close()

        with pytest.raises(SourceUnusable):
            request.body.read()


class TestNumbers:
    def test_lines_without_a_name_are_named_by_their_number(self, read):
        """The number counts blank lines too, so that an editor shows the same one."""
        whole = b'\n{"prompt": "1"}\n \t\n{"prompt": "2", "custom_id": null}'

        assert [
            (request.custom_id, request.line)
            for request, _ in read(whole=whole, defaults=WITH_MODEL)
        ] == [("line-2", 2), ("line-4", 4)]


class TestSummary:
    def test_it_counts_what_the_file_asks_for(self, write):
        """By url and by model, with the tokens and the size."""
        path = write(
            batch_line("a"), batch_line("b", CHAT_URL, messages=[]), batch_line("c", model="m")
        )

        with RequestFile(path) as file:
            summary = file.check()
            assert summary.tokens == sum(request.tokens for request in file)
            assert summary.digest == file.digest()

        assert summary.requests == 3
        assert summary.by_url == {RESPONSES_URL: 2, CHAT_URL: 1}
        assert summary.by_model == {"gpt-5-nano": 2, "m": 1}


class TestReading:
    def test_from_a_line_on(self, write):
        """Resuming starts where the numbers say."""
        with RequestFile(write(*(batch_line(name) for name in "abcd"))) as file:
            later = file.requests(lambda line: line >= 3)
            assert [request.custom_id for request in later] == ["c", "d"]

    def test_several_readers_at_once(self, write):
        """Iterations and bodies share a descriptor and don't disturb one another."""
        with RequestFile(write(*(batch_line(name) for name in "abcd"))) as file:
            first, second = iter(file), iter(file)
            next(first)
            assert [next(first).custom_id, next(second).custom_id] == ["b", "a"]
            assert [request.body.read() is not None for request in second] == [True] * 3
            assert [request.custom_id for request in first] == ["c", "d"]

    def test_a_bad_line_in_a_file_that_was_not_checked(self, write):
        """Without a check, the line is told when it is reached."""
        with RequestFile(write(batch_line(), b"{")) as file:
            requests = iter(file)
            next(requests)
            with pytest.raises(LineUnusable, match="line 2"):
                next(requests)


class TestChangesWhileReading:
    @pytest.fixture
    def file(self, write):
        with RequestFile(write(batch_line("a"), batch_line("b"))) as file:
            file.check()
            yield file

    def test_a_line_changed_before_its_body_was_read(self, file):
        """Even where the line is as long as before and has the same name."""
        requests = list(file)
        file.path.write_bytes(file.path.read_bytes().replace(b"Hi", b"Ho"))

        with pytest.raises(InputChanged, match="line 2"):
            requests[1].body.read()

    def test_a_file_cut_short(self, file):
        """Requests that were counted can't silently be missing."""
        os.truncate(file.path, len(text_of(batch_line("a"))))

        with pytest.raises(InputChanged, match="line 2"):
            list(file)

    def test_a_file_cut_before_the_body_was_read(self, file):
        """What is not there any more is not sent."""
        requests = list(file)
        os.truncate(file.path, 10)

        with pytest.raises(InputChanged, match="line 1"):
            requests[0].body.read()

    def test_lines_added_after_the_check(self, file):
        """They were not checked, so they are not sent."""
        with file.path.open("ab") as appended:
            appended.write(text_of(batch_line("c")))
        requests = iter(file)

        assert [next(requests).custom_id, next(requests).custom_id] == ["a", "b"]
        with pytest.raises(InputChanged, match="line 3"):
            next(requests)

    def test_a_line_broken_after_the_check(self, file):
        """It was good, so it is not the user's bad line; and requests may have been sent."""
        file.path.write_bytes(file.path.read_bytes().replace(b'"b"', b'"b '))

        with pytest.raises(InputChanged, match="line 2"):
            list(file)

    def test_a_file_that_is_replaced(self, file, tmp_path):
        """Editors write a new file and rename it; ours is still the old one."""
        (tmp_path / "new").write_bytes(b"{")
        (tmp_path / "new").rename(file.path)

        assert [json.loads(request.body.read())["input"] for request in file] == ["Hi", "Hi"]


class TestDuplicates:
    def test_equal_fingerprints_of_different_ids_are_no_mistake(self):
        """Chance makes a suspicion, never an error."""
        ids = ["a", "b", "c", "b"]
        duplicates = Duplicates(fingerprint=lambda _: 7)
        for custom_id in ids:
            duplicates.add(custom_id)

        assert list(duplicates.confirmed(duplicates.suspects(), enumerate(ids, 1))) == [
            Repeat(line=4, custom_id="b", first_line=2)
        ]

    def test_repeats_are_found_with_others_between_them(self):
        """However the ids of a bucket are mixed."""
        duplicates = Duplicates(fingerprint=lambda custom_id: int(custom_id) * BUCKETS)
        for custom_id in ("3", "1", "2", "1"):
            duplicates.add(custom_id)

        assert duplicates.suspects() == {1 * BUCKETS}

    @given(st.lists(st.text(max_size=2)))
    def test_suspects_are_the_ids_that_are_there_twice(self, ids):
        """No repeat escapes, and nothing else is looked at a second time."""
        duplicates = Duplicates()
        for custom_id in ids:
            duplicates.add(custom_id)

        repeats = list(duplicates.confirmed(duplicates.suspects(), enumerate(ids, 1)))

        assert [repeat.line for repeat in repeats] == [
            line for line, custom_id in enumerate(ids, 1) if custom_id in ids[: line - 1]
        ]
