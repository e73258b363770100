"""Jobs: what a folder or a file says, what wins over what, and what is told of each mistake."""

import dataclasses
from pathlib import Path

import pytest

from orchestrator.core.settings import Settings
from orchestrator.emulator.durations import Fixed, Trace
from orchestrator.emulator.settings import Settings as EmulatorSettings
from orchestrator.errors import (
    JobUnusable,
    SettingUnusable,
    SourceMissing,
    SourceUnusable,
)
from orchestrator.jobfile import Overrides, emulator_settings, read_job
from orchestrator.jobfile.table import BatchTable, LimitsTable

LINE = '{"prompt": "Hi", "model": "m"}\n'


@pytest.fixture
def folder(tmp_path):
    """A job folder with an empty job.toml and one request."""
    path = tmp_path / "tickets"
    path.mkdir()
    (path / "job.toml").write_text("")
    (path / "requests.jsonl").write_text(LINE)
    return path


@pytest.fixture
def job(folder):
    """Reads the folder's job with this job.toml and these overrides."""

    def read(toml="", **overrides):
        (folder / "job.toml").write_text(toml)
        return read_job(folder, Overrides(**overrides))

    return read


@pytest.fixture
def problem(job):
    """What is said about this job.toml, without its path and the promise at the end."""

    def told(toml):
        with pytest.raises(JobUnusable) as caught:
            emulator_settings(job(toml))
        assert caught.value.path.name == "job.toml"
        return f"{caught.value.problem}. {caught.value.cure}"

    return told


class TestWhatAJobSays:
    def test_empty_job_file(self, folder, job):
        """An empty job.toml is a job: requests.jsonl with every default."""
        read = job("")
        assert read.name == "tickets"
        assert read.source == folder / "job.toml"
        assert read.requests == folder / "requests.jsonl"
        assert (read.tools, read.emulator) == (None, None)
        assert read.settings == Settings()
        assert dict(read.defaults.members) == {}

    def test_everything(self, folder, job):
        """Each table of job.toml arrives where it belongs."""
        (folder / "other.jsonl").write_text(LINE)
        (folder / "mine.py").write_text("")
        read = job(
            'name = "My tickets"\nrequests = "other.jsonl"\ntools = "mine.py"\n'
            '[defaults]\nurl = "responses"\nmodel = "gpt-5-mini"\n'
            '[defaults.body]\ninstructions = "Be brief."\nreasoning = { effort = "low" }\n'
            "[limits]\nrpm = 600\ntpm = 1e6\nchecks_rpm = 1200\nconnections = 8\n"
            "max_in_flight = 50\ntools_at_once = 4\ntool_timeout_seconds = 2.5\nturns_max = 3\n"
            "attempts_max = 5\ndeadline_seconds = 60\nseed = 7\n"
        )
        assert read.name == "My tickets"
        assert (read.requests.name, read.tools) == ("other.jsonl", folder / "mine.py")
        assert (read.defaults.url, read.defaults.model) == ("/v1/responses", "gpt-5-mini")
        assert read.defaults.body == {"instructions": "Be brief.", "reasoning": {"effort": "low"}}
        assert read.settings == Settings(
            rpm=600,
            tpm=1e6,
            checks_rpm=1200,
            connections=8,
            max_in_flight=50,
            tools_at_once=4,
            tool_timeout_seconds=2.5,
            turns_max=3,
            attempts_max=5,
            deadline_seconds=60,
            seed=7,
        )

    def test_bare_file(self, folder):
        """A bare request file is a job of its own; tools beside it are not meant."""
        (folder / "tools.py").write_text("")
        path = folder / "requests.jsonl"
        read = read_job(path, Overrides(model="m"))
        assert (read.name, read.source, read.requests) == ("requests", path, path)
        assert (read.tools, read.defaults.model) == (None, "m")
        assert emulator_settings(read) == EmulatorSettings()

    def test_other_name_for_json_lines(self, tmp_path):
        """A file that ends in .ndjson is the same thing under another name."""
        path = tmp_path / "all.NDJSON"
        path.write_text(LINE)
        assert read_job(path).requests == path

    def test_tools_found(self, folder, job):
        """A tools.py in the folder needs no mention."""
        (folder / "tools.py").write_text("")
        assert job("").tools == folder / "tools.py"

    def test_byte_order_mark(self, folder):
        """A job.toml from a Windows editor, with a byte order mark, is read."""
        (folder / "job.toml").write_bytes(b'\xef\xbb\xbfname = "x"\r\n')
        assert read_job(folder).name == "x"

    def test_folder_named_by_a_dot(self, folder, monkeypatch):
        """The job in the current folder has the folder's name."""
        monkeypatch.chdir(folder)
        assert read_job(Path()).name == "tickets"

    def test_command_line_wins(self, folder, job):
        """What the command line says wins over job.toml; what it doesn't say stays."""
        (folder / "tools.py").write_text("")
        read = job(
            '[defaults]\nurl = "/v1/responses"\nmodel = "a"\nbody = { model = "b", user = "c" }\n'
            "[limits]\nrpm = 1\ntpm = 2\nchecks_rpm = 3\nconnections = 4\nmax_in_flight = 5\n"
            "deadline_seconds = 6\nseed = 7",
            url="chat/completions",
            model="z",
            rpm=10,
            tpm=20,
            checks_rpm=30,
            connections=40,
            max_in_flight=50,
            deadline_seconds=60,
            tools=Path("elsewhere.py"),
        )
        assert read.defaults.url == "/v1/chat/completions"
        assert bytes(read.defaults.members["model"]) == b'"z"'
        assert read.defaults.body["user"] == "c"
        assert read.settings == Settings(
            rpm=10,
            tpm=20,
            checks_rpm=30,
            connections=40,
            max_in_flight=50,
            deadline_seconds=60,
            seed=7,
        )
        assert read.tools == Path("elsewhere.py")

    def test_limits_are_the_settings(self):
        """Every setting has one place in job.toml, but the one that belongs to a program."""
        settings = {field.name for field in dataclasses.fields(Settings)}
        places = [*LimitsTable.__struct_fields__, *BatchTable.__struct_fields__, "via"]
        places.append("webhook_gap_seconds")  # gap_seconds in [webhooks]
        assert sorted(places) == sorted(settings - {"cancel_on_exit"})


class TestByBatch:
    def test_said_by_the_job(self, job):
        """`via` and [batch] arrive as settings, and lines that a batch can take are marked."""
        read = job(
            'via = "batch"\n[batch]\nenqueued_tokens = 9000\nbatch_lines = 30\n'
            "direct_below = 5\ndelete_files = true\n[limits]\nrpm = 60"
        )
        assert read.settings == Settings(
            via="batch",
            enqueued_tokens=9000,
            batch_lines=30,
            direct_below=5,
            delete_files=True,
            rpm=60,
        )
        assert read.defaults.via_batch

    def test_the_table_alone_is_a_mistake(self, job):
        """Whoever forgets the one word would pay twice as much."""
        with pytest.raises(JobUnusable, match='Write via = "batch" at the top'):
            job("[batch]\ndirect_below = 5")

    def test_said_on_the_command_line(self, folder, job):
        """The command line wins over [batch], and also sends a bare file by batch."""
        read = job(
            "[batch]\nenqueued_tokens = 1\nbatch_lines = 2\ndirect_below = 3\ndelete_files = false",
            via="batch",
            enqueued_tokens=10,
            direct_below=0,
            delete_files=True,
        )
        assert read.settings == Settings(
            via="batch", enqueued_tokens=10, batch_lines=2, direct_below=0, delete_files=True
        )
        assert read.defaults.via_batch
        bare = read_job(folder / "requests.jsonl", Overrides(via="batch"))
        assert bare.defaults.via_batch

    @pytest.mark.parametrize(
        ("toml", "told"),
        [
            ("via = 'bulk'", "via = 'bulk': there is no such way. Say \"batch\", or leave it out."),
            ("via = true", "via is true or false. Write text in quotes."),
            ("batch = true", "batch is true or false. Write a table."),
            ("[batch]\nenqueued_tokens = 0", "[batch] enqueued_tokens = 0: it must be a number"),
            ("[batch]\nenqueued_tokens = 1.5", "[batch] enqueued_tokens is a number with a point"),
            ("[batch]\nbatch_lines = -1", "[batch] batch_lines = -1: it must be a number greater"),
            ("[batch]\ndirect_below = -1", "[batch] direct_below = -1: it must be a whole number"),
            ("[batch]\ndelete_files = 1", "[batch] delete_files is a whole number. Write true or"),
            ("[batch]\nlines = 1", '[batch] has no setting "lines". Did you mean "batch_lines"?'),
            ("[batch]\nvia = 'batch'", "Write it at the top, above the first [table]."),
            ("[limits]\ndirect_below = 1", "Write it below [batch]."),
            ("direct_below = 1", "Write it below [batch]."),
        ],
    )
    def test_what_it_cannot_mean(self, problem, toml, told):
        """A mistake is told with its place and its cure."""
        assert told in problem(toml)


class TestTheEmulatorsTable:
    def test_defaults(self, job):
        """Without a table, or with an empty one, the emulator is as it is by itself."""
        assert emulator_settings(job("")) == EmulatorSettings()
        assert emulator_settings(job("[emulator]")) == EmulatorSettings()

    def test_numbers_and_files(self, folder, job):
        """Numbers arrive as they are, files are looked for in the job's folder."""
        (folder / "rules.toml").write_text('[[rules]]\nanswer = "Hello"')
        (folder / "answers.jsonl").write_text('{"prompt": "Hi", "answer": "Ho"}')
        (folder / "times.csv").write_text("model,seconds\nm,0.5\nm,2\n")
        settings = emulator_settings(
            job(
                '[emulator]\nseed = 3\nrpm = 60\ntpm = 900\nfaults = "slow=0.5, hang"\n'
                'queue_seconds = 0\nrun_seconds = "times.csv:seconds"\nrules = "rules.toml"\n'
                'answers = "answers.jsonl"\nretention_seconds = 30\npoll_after_ms = 250'
            )
        )
        assert (settings.seed, settings.rpm, settings.tpm) == (3, 60, 900)
        assert settings.faults == {"slow": 0.5, "hang": 0.1}
        assert settings.queue_seconds == Fixed(0)
        assert isinstance(settings.run_seconds, Trace)
        assert list(settings.run_seconds.values_seconds) == [0.5, 2]
        assert [rule.answer for rule in settings.rules] == ["Hello"]
        assert settings.answers == {"Hi": "Ho"}
        assert (settings.retention_seconds, settings.poll_after_ms) == (30, 250)

    @pytest.mark.parametrize("said", ["{ slow = 0.25, hang = 1 }", '"faults.toml"'])
    def test_faults(self, folder, job, said):
        """Faults can be a table in the job.toml or a file in its folder."""
        (folder / "faults.toml").write_text("slow = 0.25\nhang = 1")
        assert emulator_settings(job(f"[emulator]\nfaults = {said}")).faults == {
            "slow": 0.25,
            "hang": 1,
        }

    def test_read_only_when_asked_for(self, job):
        """A mistake in the emulator's files is no reason not to run on the real API."""
        assert job('[emulator]\nrules = "gone.toml"').name == "tickets"

    @pytest.mark.parametrize(
        ("line", "told"),
        [
            ("rpm = 0", "[emulator] rpm must be 1 or more, got 0"),
            ("run_seconds = -1", "a duration must be 0 or more seconds, got -1"),
            ("faults = { slwo = 1 }", "unknown fault 'slwo'; known are error_500"),
            ("faults = { slow = 2 }", "a number from 0 to 1 is needed"),
            ('rules = "gone.toml"', "gone.toml: can't be read (No such file"),
            ('answers = "gone.jsonl"', "gone.jsonl: can't be read (No such file"),
            ('run_seconds = "gone.csv"', "gone.csv' is neither a number of seconds nor a file"),
            ('rules = "requests.jsonl"', "requests.jsonl: not valid TOML"),
        ],
    )
    def test_what_it_cannot_mean(self, problem, line, told):
        """A setting that the emulator can't use is named, with the job.toml that says it."""
        assert told in problem(f"[emulator]\n{line}")


class TestSourcesThatAreNone:
    def test_nothing_there(self, tmp_path):
        """A source that does not exist is told with what a source is."""
        with pytest.raises(SourceMissing) as caught:
            read_job(tmp_path / "jobs" / "helo")
        assert str(caught.value) == (
            f"{tmp_path}/jobs/helo does not exist. Give a job folder (with a job.toml) or a "
            ".jsonl file. Nothing was sent."
        )

    def test_folder_with_one_file(self, folder):
        """A folder without job.toml that holds one request file: that file is named."""
        (folder / "job.toml").unlink()
        with pytest.raises(SourceUnusable) as caught:
            read_job(folder)
        assert str(caught.value) == (
            f"{folder} can't be used as a source: the folder has no job.toml. Give the file "
            f"itself ({folder}/requests.jsonl), or write a job.toml beside it. Nothing was sent."
        )

    def test_folder_with_several_files(self, folder):
        """A folder without job.toml that holds several request files: one is an example."""
        (folder / "job.toml").unlink()
        (folder / "a.jsonl").write_text(LINE)
        with pytest.raises(SourceUnusable, match=r"Give one of its files, for example .*/a\.jsonl"):
            read_job(folder)

    def test_folder_with_nothing(self, tmp_path):
        """A folder with nothing in it is not a job."""
        with pytest.raises(SourceUnusable, match=r"no job\.toml\. Give a folder that has one, or"):
            read_job(tmp_path)

    @pytest.mark.parametrize(
        ("name", "cure"),
        [
            ("my data.json", "jq -c '.[]' '{0}/my data.json' > '{0}/my data.jsonl'"),
            ("data.csv", "csv.DictReader(sys.stdin)]' < {0}/data.csv > {0}/data.jsonl"),
            ("data.TXT", "jq -cR '{{prompt: .}}' {0}/data.TXT > {0}/data.jsonl"),
            ("data.jsonl.gz", "gunzip -k {0}/data.jsonl.gz"),
            ("data.parquet", 'one JSON object a line, for example {{"prompt": "..."}}, in {0}/'),
            ("data", "in {0}/data.jsonl."),
            ("job.toml", "these are the settings of a job. Give its folder, {0}."),
        ],
    )
    def test_other_endings(self, tmp_path, name, cure):
        """A file of another kind is refused with the command that makes JSON lines of it."""
        (tmp_path / name).write_text(LINE)
        with pytest.raises(SourceUnusable) as caught:
            read_job(tmp_path / name)
        assert cure.format(tmp_path) in str(caught.value)

    def test_path_that_no_system_has(self):
        """A path that the system refuses is an ordinary mistake."""
        with pytest.raises(SourceUnusable):
            read_job(Path("a\0.jsonl"))
        with pytest.raises(SourceUnusable, match="File name too long"):
            read_job(Path("a" * 5000))

    def test_ending_of_the_jobs_own_file(self, folder, job):
        """A job that names a file of another kind is refused as that file would be."""
        (folder / "data.csv").write_text("prompt\nHi\n")
        with pytest.raises(SourceUnusable, match=r"data\.csv can't be used as a source"):
            job('requests = "data.csv"')


class TestMistakesInAJobFile:
    def test_syntax(self, folder, job):
        """What is no TOML is told with its line."""
        with pytest.raises(JobUnusable) as caught:
            job("[limits]\nrpm = fast\n")
        assert str(caught.value) == (
            f"{folder}/job.toml: line 2 is no valid TOML (Invalid value). Each setting is a line "
            "like rpm = 600, and texts stand in quotes. Nothing was sent."
        )

    def test_syntax_at_the_end(self, problem):
        """A text without its end is told with the last line."""
        assert problem('name = "a"\ntools = """\n').startswith("line 3 is no valid TOML")

    def test_unknown_key(self, problem):
        """A key that nobody knows is told with the one that is likely meant, and all others."""
        assert problem("[limits]\nrmp = 600") == (
            '[limits] has no setting "rmp". Did you mean "rpm"? Known here are rpm, tpm, '
            "checks_rpm, connections, max_in_flight, tools_at_once, tool_timeout_seconds, "
            "turns_max, attempts_max, deadline_seconds, run_deadline_seconds, "
            "execution_deadline_seconds, max_cost_usd, max_tokens, same_failures_max, "
            "lost_creates, seed."
        )
        assert problem("x = 1").startswith('there is no setting "x". Known here are name, ')
        assert '[emulator] has no setting "zzz"' in problem("[emulator]\nzzz = 1")

    def test_key_in_the_wrong_place(self, problem):
        """A key that belongs elsewhere is told with its place."""
        assert problem('model = "m"') == 'there is no setting "model". Write it below [defaults].'
        assert problem("rpm = 1").endswith("Write it below [limits] or below [emulator].")
        assert problem('[limits]\ntools = "t.py"').endswith(
            "Write it at the top, above the first [table]."
        )

    @pytest.mark.parametrize(
        ("toml", "told"),
        [
            ("[limits]\nrpm = '600'", "[limits] rpm is text in quotes. Write a number, without"),
            ("[limits]\nturns_max = 1.5", "a number with a point. Write a whole number."),
            ("[limits]\nrpm = true", "[limits] rpm is true or false. Write a number."),
            ("limits = 600", "limits is a whole number. Write a table."),
            ("name = 1", "name is a whole number. Write text in quotes."),
            ("[defaults]\nbody = [1]", "[defaults] body is a list. Write a table."),
            ("[emulator]\nfaults = 1", "faults is a whole number. Write text in quotes or a table"),
            ("[emulator]\nfaults = { slow = 'x' }", "[emulator] faults is text in quotes."),
            ("[emulator]\nseed = 2026-01-01", "[emulator] seed is a date. Write a whole number."),
        ],
    )
    def test_wrong_kind(self, problem, toml, told):
        """A value of the wrong kind is told with what it is and what is wanted."""
        assert told in problem(toml)

    @pytest.mark.parametrize(
        ("toml", "told"),
        [
            ("[limits]\nrpm = -1", "[limits] rpm = -1.0: it must be a number greater than 0"),
            ("[limits]\nmax_in_flight = 0", "[limits] max_in_flight = 0: it must be"),
            ("[limits]\ntpm = nan", "[limits] tpm = nan: it must be"),
            ("[defaults]\nurl = '/v1/dogs'", 'the url "/v1/dogs" is unknown. Known are /v1/resp'),
            ("name = ' '", "the name ' ' can't be read by people. Write a few words"),
            ("name = 'a\tb'", "can't be read by people"),
        ],
    )
    def test_value_out_of_range(self, problem, toml, told):
        """A value that can't be meant is told with the file, not as if it had been typed."""
        assert told in problem(toml)

    def test_not_hidden_by_the_command_line(self, job):
        """A mistake in job.toml is told even where the command line says something else."""
        with pytest.raises(JobUnusable, match=r"\[limits\] rpm"):
            job("[limits]\nrpm = 0", rpm=5)

    def test_mistake_on_the_command_line(self, job):
        """A mistake on the command line is told as such."""
        with pytest.raises(SettingUnusable, match="rpm = -5"):
            job("[limits]\nrpm = 600", rpm=-5)
        with pytest.raises(SettingUnusable, match="the url"):
            job("", url="https://api.example.com/v1/responses")

    def test_missing_requests(self, folder, problem):
        """A job without its request file names what it looked for and what is there instead."""
        assert problem('requests = "gone.jsonl"') == (
            'there is no file for requests = "gone.jsonl". Write requests = "requests.jsonl", or '
            f"put them into {folder}/gone.jsonl."
        )
        (folder / "requests.jsonl").unlink()
        assert problem("") == (
            f"there is no requests.jsonl beside it. Put the requests into {folder}/requests.jsonl."
        )

    def test_missing_tools(self, folder, problem):
        """A job without the tools that it names says where they were looked for."""
        told = problem('tools = "gone.py"')
        assert told.startswith('there is no file for tools = "gone.py". It is looked for at ')
        assert f"{folder}/gone.py" in told

    def test_no_text(self, folder):
        """A job.toml that is no text, or no file, is refused in words."""
        (folder / "job.toml").write_bytes(b"name = '\xff'")
        with pytest.raises(JobUnusable, match=r"no UTF-8 text \(byte 8\)\. Save it as UTF-8"):
            read_job(folder)
        (folder / "job.toml").unlink()
        (folder / "job.toml").mkdir()
        with pytest.raises(JobUnusable, match="Is a directory"):
            read_job(folder)
