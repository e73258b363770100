"""The README is true: what it shows is executed, what it lists is complete, its numbers are so."""

import inspect
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from dataclasses import fields
from pathlib import Path

import pytest
import typer
from support.engine import play
from support.processes import EmulatorProcess, emulator_process

import orchestrator
from orchestrator.adapters.journal import JOURNAL_NAME
from orchestrator.adapters.request_file import RequestDefaults, RequestFile
from orchestrator.adapters.result_file import ERRORS_NAME, RESULTS_NAME, SUMMARY_NAME
from orchestrator.adapters.webhook.app import STATUS
from orchestrator.adapters.webhook.receiver import Verdict
from orchestrator.apis.refusals import QUOTA_CODES
from orchestrator.cli import exit_codes
from orchestrator.cli.app import app
from orchestrator.core import budget
from orchestrator.core.failures import (
    RETRYABLE_RUN_CODES,
    VERDICT_ON_CHECK,
    VERDICT_ON_CREATE,
    Cause,
)
from orchestrator.core.families import FACTS, URLS
from orchestrator.core.model import Family, Outcome
from orchestrator.core.overview import failures_table, families_table
from orchestrator.core.packing import BYTES_PER_TOKEN
from orchestrator.core.rules import Rules
from orchestrator.core.settings import Settings
from orchestrator.core.states import TABLE, Change, State, diagram
from orchestrator.core.tally import Tally, percentile
from orchestrator.core.totals import Totals
from orchestrator.emulator.deviations import PRESET_ALL, Deviation
from orchestrator.emulator.durations import Fixed
from orchestrator.emulator.faults import Fault
from orchestrator.emulator.rules import read_rules
from orchestrator.emulator.settings import Settings as EmulatorSettings
from orchestrator.execution import LOG_NAME
from orchestrator.jobfile import emulator_settings, read_job
from orchestrator.jobfile.table import TABLES
from orchestrator.ports import CallKind

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")

# Options of tools that are not ours: they stand in the quickstart only.
FOREIGN_OPTIONS = {"--quiet", "--upgrade", "--group", "--editable"}
OPTION = re.compile(r"(?<![\w-])--?[a-z](?:[a-z-]*[a-z])?(?![\w-])")


def blocks(language):
    """The fenced blocks of a language, in their order."""
    return re.findall(rf"^```{language}\n(.*?)^```$", README, re.DOTALL | re.MULTILINE)


def block(language, part):
    """The only block of a language that has this in it."""
    (found,) = [text for text in blocks(language) if part in text]
    return found


def section(heading):
    """What stands below a heading, until the next one of the same or a higher level."""
    level = heading.index(" ")
    ends = rf"(?=^#{{1,{level}}} |\Z)"
    found = re.search(rf"^{re.escape(heading)}\n(.*?){ends}", README, re.DOTALL | re.MULTILINE)
    assert found, f"there is no heading {heading!r}"
    return found[1]


def table(first_header):
    """The rows of the table whose first column is so named, each a list of its cells."""
    found = re.search(
        rf"^\| {re.escape(first_header)} \|.*\n\|[-|]+\n((?:\|.*\n)+)", README, re.MULTILINE
    )
    assert found, f"there is no table that begins with {first_header!r}"
    cell_ends = re.compile(r"(?<!\\)\|")
    return [[cell.strip() for cell in cell_ends.split(row)[1:-1]] for row in found[1].splitlines()]


def named(text):
    """What a text has in backquotes, its blocks apart."""
    prose = re.sub(r"^```.*?^```$", "", text, flags=re.DOTALL | re.MULTILINE)
    return set(re.findall(r"`([^`]+)`", prose))


def options_of(command):
    """Every option of a command but --help."""
    named_so = typer.main.get_command(app)
    for word in command.split():
        named_so = named_so.commands[word]
    found = named_so.params
    return {
        option
        for parameter in found
        for option in parameter.opts
        if option.startswith("-") and option not in {"-h", "--help"}
    }


WEBHOOK_COMMANDS = [f"webhooks {word}" for word in ("create", "list", "test", "rotate", "delete")]

# What is listed is complete, both ways.


@pytest.mark.parametrize(
    ("command", "heading"),
    [("run", "## `orchestrator run SOURCE`"), ("emulator", "## The emulator")],
)
def test_every_option_is_in_the_table_of_its_command(command, heading):
    """A reader finds each option that there is, and no option that there isn't."""
    rows = [line.split(" | ")[0] for line in section(heading).splitlines() if line[:4] == "| `-"]
    assert {option for row in rows for option in OPTION.findall(row)} == options_of(command)


def test_every_option_about_webhooks_is_told():
    """Each command of `webhooks` has a row; their options and the doctor's are explained."""
    text = section("## Webhook endpoints, and the doctor")
    rows = [row[0].strip("`").split() for row in table("command")]
    assert [" ".join(words[1:3]) for words in rows] == WEBHOOK_COMMANDS
    options = set().union(*map(options_of, ["doctor", *WEBHOOK_COMMANDS]))
    told = set(OPTION.findall(text))
    assert {option for option in options if option.startswith("--")} == {
        option for option in told if option.startswith("--")
    }


def test_no_option_is_spoken_of_that_does_not_exist():
    """Every option anywhere on the page is one of ours, or of the quickstart's pip."""
    commands = ("run", "emulator", "status", "story", "doctor", *WEBHOOK_COMMANDS)
    known = set().union(*map(options_of, commands), {"--version", "--help"})
    quickstart = "".join(blocks("sh")[:2])
    rest = README.replace(blocks("sh")[0], "").replace(blocks("sh")[1], "")
    spoken_of = {option for option in OPTION.findall(rest) if option.startswith("--")}
    assert spoken_of <= known
    foreign = {option for option in OPTION.findall(quickstart) if option.startswith("--")}
    assert foreign <= FOREIGN_OPTIONS | {"--emulator"}


def test_every_outcome_is_explained():
    """The table of outcomes has all of them and no other."""
    assert [row[0] for row in table("outcome")] != []
    assert {row[0].strip("`") for row in table("outcome")} == {str(each) for each in Outcome}


def test_every_verdict_on_a_webhook_is_explained():
    """The table of answers to events has all of them, with the status that is sent."""
    said = {
        verdict: status
        for status, text in table("answer")
        for verdict in named(text) & set(Verdict)
    }
    assert set(said) == set(Verdict)
    assert all(str(STATUS[Verdict(verdict)]) in status for verdict, status in said.items())


def test_every_exit_code_is_explained():
    """The table of exit codes has all of them and no other."""
    codes = {value for name, value in vars(exit_codes).items() if name.isupper()}
    assert {int(row[0]) for row in table("exit code")} == codes


def test_every_output_file_is_explained():
    """The table of files has all that an execution writes."""
    names = {RESULTS_NAME, ERRORS_NAME, SUMMARY_NAME, LOG_NAME, JOURNAL_NAME}
    assert {row[0].strip("`") for row in table("file")} == names


def test_every_key_of_the_summary_is_explained():
    """The table of the summary has the keys that summary.json has."""
    summary = Tally(lambda _model, _usage: None).summary(
        source="",
        started_at="",
        version="",
        requests=0,
        totals=Totals(),
        calls={},
        tasks_max=0,
        wall_seconds=0.0,
    )
    explained = [name for row in table("in `summary.json`") for name in sorted(named(row[0]))]
    assert sorted(explained) == sorted(summary)
    assert set(summary["batches"]) <= named(section("## Batches"))
    (calls,) = [row[1] for row in table("in `summary.json`") if "`calls`" in row[0]]
    assert set(CallKind) <= set(re.findall(r"\w+", calls))


def test_every_url_is_explained():
    """The table of urls has all that a line may name."""
    on_thread = "/v1/threads/{id}/runs"
    assert set().union(*(named(row[0]) for row in table("url"))) == {*URLS, on_thread}


def test_every_failure_does_what_the_table_says():
    """The table of failures is the engine's own; to update it, paste what this test shows."""
    assert failures_table() in README, failures_table()
    told = {cause: (row[2], row[3]) for row in table("cause") for cause in named(row[0])}
    assert told == {
        cause.value: (VERDICT_ON_CREATE[cause].value, VERDICT_ON_CHECK[cause].value)
        for cause in Cause
    }
    (quota,) = [row[1] for row in table("cause") if "quota" in named(row[0])]
    assert named(quota) <= QUOTA_CODES


def test_every_code_worth_another_run_is_named():
    """A reader can look up whether a failed run is created again."""
    told = section("## Limits, failures, and what polling costs")
    (sentence,) = re.findall(r"created\s+again when its code is (.*?);", told, re.DOTALL)
    assert named(sentence) == RETRYABLE_RUN_CODES


def test_every_fault_is_explained():
    """The emulator's option names each fault that can be played."""
    (row,) = [line for line in section("## The emulator").splitlines() if "`--faults" in line]
    assert {str(fault) for fault in Fault} <= named(row)


def test_every_deviation_is_named():
    """The table of deviations has all that the emulator knows and no other, each at its API."""
    rows = [named(row[1]) for row in table("deviations of")]
    assert set().union(*rows) == {str(each) for each in Deviation}
    assert all(len({name.partition("_")[0] for name in names}) == 1 for names in rows)
    (row,) = [line for line in section("## The emulator").splitlines() if "`--deviations" in line]
    assert named(row) >= {str(each) for each in set(Deviation) - set(PRESET_ALL)}


def test_every_argument_of_the_class_is_named():
    """What `Orchestrator` takes is a key of job.toml or named beside the example."""
    arguments = set(inspect.signature(orchestrator.Orchestrator).parameters)
    tables = ("limits", "batch", "defaults")
    keys = {key for name in tables for key in TABLES[name].__struct_fields__}
    text = section("## In your own program")
    assert {f"[{name}]" for name in tables} <= named(text)
    assert keys <= arguments
    assert arguments - keys <= {name.partition("=")[0] for name in named(text)}


def test_the_classes_spoken_of_are_public():
    """Every class that the page tells a program to use can be imported from the package."""
    spoken_of = {"Orchestrator", "Outcome", "UserMistake", "ExecutionStopped", "OrchestratorError"}
    text = section("## In your own program")
    assert spoken_of <= set(re.findall(r"\w+", text))
    assert spoken_of <= set(orchestrator.__all__)


# job.toml, lines, rules.


@pytest.fixture
def reference_job(tmp_path):
    """A job folder with the README's job.toml and the files that it speaks of."""
    (tmp_path / "job.toml").write_text(block("toml", "[limits]"))
    (tmp_path / "requests.jsonl").write_text('{"prompt": "hello"}\n')
    (tmp_path / "tools.py").write_text('def look(name: str) -> str:\n    """Look."""\n')
    (tmp_path / "durations.csv").write_text("seconds\n1.5\n")
    (tmp_path / "emulator.toml").write_text(block("toml", "[[rules]]"))
    (tmp_path / "answers.jsonl").write_text('{"prompt": "hello", "answer": "hi"}\n')
    return tmp_path


def test_the_job_file_has_every_key_and_can_be_used(reference_job):
    """The block under `job.toml` is a job as it stands, and lacks no key."""
    given = tomllib.loads(block("toml", "[limits]"))
    for name, struct in TABLES.items():
        content = given[name] if name else given
        assert set(content) == set(struct.__struct_fields__), f"[{name}]"
    job = read_job(reference_job)
    assert emulator_settings(job).poll_after_ms == 1000


def test_the_limits_shown_are_the_defaults(reference_job):
    """A value that is not marked otherwise is what you get without it."""
    shown, defaults = read_job(reference_job).settings, Settings()
    lines = block("toml", "[limits]").split("[emulator]")[0].splitlines()
    by_batch = {
        line.split()[0]: int(line.split()[-1])
        for line in lines
        if re.search(r"; by batch \d+$", line)
    }
    marked = {line.split()[0] for line in lines if "default:" in line}
    names = {field.name for field in fields(Settings)}
    assert marked & names == {
        *("via", "rpm", "tpm", "checks_rpm", "seed", "enqueued_tokens"),
        *("run_deadline_seconds", "execution_deadline_seconds", "max_cost_usd", "max_tokens"),
    }
    for name in names - marked - set(by_batch):
        assert getattr(shown, name) == getattr(defaults, name), name

    assert (shown.max_in_flight, shown.deadline_seconds) == (
        defaults.places,
        defaults.rules().deadline_seconds,
    )
    batched = Settings(via="batch")
    assert by_batch == {
        "max_in_flight": batched.places,
        "deadline_seconds": batched.rules().batch_deadline_seconds,
    }


def test_what_is_said_of_batches_is_so():
    """The numbers of the section on batches are those that the engine goes by."""
    text, rules = " ".join(section("## Batches").split()), Settings(via="batch").rules()
    for told in (
        f"up to {rules.batch_lines_max:,} (`batch_lines`)",
        f"{rules.batch_inputs_max:,} inputs of embeddings",
        f"and {rules.batch_bytes_max // 10**6} MB of the 200",
        f"taken for {BYTES_PER_TOKEN} bytes",
        f"up to {FACTS[Family.BATCH].runs_per_check} batches",
        f"{rules.batch_deadline_seconds / 3_600:g} hours from its first batch",
        f"not over {rules.batch_cancel_grace_seconds / 60:g} minutes after",
    ):
        assert told in text, told
    words = {2.0: "two seconds", 60.0: "a minute", 3_600.0: "an hour late", 3: "three times"}
    for number in (
        rules.batch_idle_seconds,
        rules.batch_open_seconds_max,
        rules.batch_late_seconds,
        rules.malformed_max,
    ):
        assert words[number] in text
    assert rules.batch_polling.first_seconds == 2
    assert rules.batch_polling.gap_seconds_max == 60
    assert "ten minutes of `jobs/support_tickets`" in text
    assert read_job(ROOT / "jobs/support_tickets").settings.deadline_seconds == 600


async def test_what_an_expired_batch_costs_is_so():
    """1,000 requests whose batch expires after 600 are as many lines, sent and paid, as is told."""
    (told,) = re.findall(
        r"[\d,]+ requests whose batch expires .*?\.", section("## Batches"), re.DOTALL
    )
    assert " ".join(re.sub(r"[\d,]*\d", "N", told).split()) == (
        "N requests whose batch expires after N are N lines sent, N answered and paid, N undone."
    )
    numbers = [int(number.replace(",", "")) for number in re.findall(r"[\d,]*\d", told)]
    requests, after, sent, paid, undone = numbers
    lines = ({"prompt": f"say {n}", "url": "/v1/chat/completions"} for n in range(requests))
    played = await play(lines, EmulatorSettings(batch_expire_after_lines=after), via="batch")
    totals = played.orchestrator.totals
    assert (totals.lines_sent, totals.lines_answered, totals.lines_undone) == (sent, paid, undone)
    assert played.books["batches"]["lines"]["billed"] == paid


def test_what_is_said_of_limits_is_so():
    """The numbers of the sections on limits are those that the engine goes by."""
    cost = " ".join(section("### Limits of cost").split())
    time = " ".join(section("### Limits of time").split())
    assert f"a token for {budget.BYTES_PER_TOKEN} bytes of its body" in cost
    assert f"or {budget.OUTPUT_TOKENS_ASSUMED:,} tokens where it says nothing" in cost
    assert budget.BATCH_PRICE_PART == 0.5
    assert f"ended {Rules.cancel_grace_seconds:g} s after its cancel" in time
    alike = f"When {Rules.same_failures_max} requests in a row (`--same-failures`)"
    assert alike in section("## Limits, failures, and what polling costs")


def test_the_lines_shown_can_be_sent(tmp_path):
    """Each form of a line is accepted as it stands, beside the others."""
    path = tmp_path / "lines.jsonl"
    path.write_text(block("json", "custom_id"))
    with RequestFile(path, RequestDefaults(model="gpt-5-mini")) as file:
        assert file.check().requests == 4


def test_the_rules_shown_can_be_read(tmp_path):
    """The emulator understands the rules on the page."""
    path = tmp_path / "rules.toml"
    path.write_text(block("toml", "[[rules]]"))
    assert len(read_rules(path)) == 1


# States, the map, and what was measured.


def test_the_states_are_those_of_the_table():
    """The diagrams are printed from the table; to update one, paste what this test shows."""
    shown = blocks("mermaid")
    families = [Family.RESPONSES, Family.ASSISTANTS, Family.DIRECT]
    assert len(shown) == len(families)
    for family, text in zip(families, shown, strict=True):
        wanted = diagram(family) + "\n"
        assert text == wanted, f"the diagram of {family} in README.md should be:\n{wanted}"


def test_the_families_are_as_the_code_has_them():
    """The table of families is made from the facts; to update it, paste what this test shows."""
    assert families_table() in README, families_table()


def test_families_of_one_diagram_have_one_table():
    """Assistants runs and agent sessions share their states, and batches have some of them."""
    assert diagram(Family.ASSISTANTS) == diagram(Family.AGENT_SESSIONS)
    assert TABLE[Family.BATCH].items() < TABLE[Family.ASSISTANTS].items()
    about_tools = {State.TOOLS, State.ANSWERED, State.SUBMITTING}
    left_out = TABLE[Family.ASSISTANTS].items() - TABLE[Family.BATCH].items()
    assert all(
        about_tools & {state, following} or change is Change.RUN_AGAIN
        for (state, change), following in left_out
    )


def test_the_map_names_what_is_there():
    """Each place on the map exists, and no module of the package's top level is missing."""
    folder, places = Path(), []
    for line in block("text", "orchestrator/\n").splitlines():
        name = line.split()[0]
        if not line.startswith(" "):
            folder = Path(name)
        places.append(folder / name if line.startswith(" ") else Path(name))
    assert [str(place) for place in places if not (ROOT / place).exists()] == []
    package = {
        path.name
        for path in (ROOT / "orchestrator").iterdir()
        if path.suffix == ".py" or (path / "__init__.py").is_file()
    }
    assert {place.name for place in places} >= package - {"__init__.py"}


def test_every_path_in_the_text_exists():
    """A file or folder of ours that the page names is there."""
    walk = section("## A map of the house").split("```")[2]
    tops = ("jobs/", "orchestrator/", "tests/", ".github/", ".ci/")
    inside = ("adapters/", "apis/", "core/", "driver.py")
    paths = {ROOT / name for name in named(README) if name.startswith(tops)}
    paths |= {ROOT / "orchestrator" / name for name in named(walk) if name.startswith(inside)}
    paths |= {ROOT / link for link in re.findall(r"\]\((?!https?:|#)([^)]+)\)", README)}
    assert len(paths) > 12
    assert [str(path) for path in paths if not path.exists()] == []


def test_every_place_in_the_guide_for_contributors_exists():
    """Whoever adds a family finds each file that is to be touched."""
    guide = named((ROOT / ".github/CONTRIBUTING.md").read_text(encoding="utf-8"))
    places = {name for name in guide if re.fullmatch(r"[\w/.]+/[\w.]*|[a-z_]+\.py", name)}
    assert {"apis/every.py", "core/families.py", "emulator/"} <= places
    tops = (ROOT, ROOT / "orchestrator")
    assert [name for name in places if not any((top / name).exists() for top in tops)] == []


@pytest.mark.slow
async def test_what_polling_costs_is_what_was_measured():
    """The table of checks and delays is what the engine does on the emulator, within a tenth."""
    for row in table("a run that takes"):
        seconds = float(row[0].removesuffix(" s"))
        emulator = EmulatorSettings(queue_seconds=Fixed(0.0), run_seconds=Fixed(seconds))
        played = await play(({"prompt": f"say {n}"} for n in range(50)), emulator)
        totals = played.orchestrator.totals
        delays = sorted(totals.detection_delays_seconds)
        measured = [totals.checks / 50, percentile(delays, 50), delays[-1]]
        told = [float(row[1]), *map(float, re.findall(r"([\d.]+) s", row[2]))]
        assert told == pytest.approx(measured, rel=0.1, abs=0.05), f"{seconds} s: {measured}"
        assert float(row[3]) == seconds


# What is shown is executed.


def test_the_quickstart_is_two_lines():
    """Two commands to paste, one line each, and nothing else to do; CI runs the same tests."""
    first, second = blocks("sh")[:2]
    for command in (first, second):
        assert command.count("\n") == 1
        assert "pip install" in command
    assert "python3 -m venv .venv" in first
    job = re.search(r"orchestrator run (\S+) --emulator$", first.strip())
    assert job
    assert (ROOT / job[1] / "job.toml").is_file()
    tests = second.rpartition(".venv/bin/")[2].strip()
    assert tests == "python -m pytest"
    assert tests in (ROOT / ".ci/run").read_text()


@pytest.fixture
def folder(tmp_path):
    """A folder with the jobs, like a clone of the repository."""
    shutil.copytree(ROOT / "jobs", tmp_path / "jobs")
    return tmp_path


def environment(base_url):
    """That of a new user whose shell finds this environment's commands first."""
    bare = {key: value for key, value in os.environ.items() if not key.startswith("OPENAI_")}
    bare["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), bare["PATH"]])
    return {**bare, "OPENAI_BASE_URL": base_url} if base_url else bare


def shell(commands, cwd, base_url=None):
    """Run shell commands to their end; what they said on standard output."""
    done = subprocess.run(
        ["/bin/sh", "-e", "-c", commands],
        cwd=cwd,
        env=environment(base_url),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_every_shell_block_is_executed_below():
    """A block that is added to the page needs a test that runs it."""
    assert len(blocks("sh")) == 9
    assert len(blocks("python")) == 1


@pytest.mark.slow
@pytest.mark.real_time
def test_the_quickstart_job_ends_as_promised(folder):
    """All 120 letters are answered, and the page quotes what the command says."""
    command = blocks("sh")[0].rpartition("&& .venv/bin/")[2]
    said = shell(command, folder)
    (promised,) = [text for text in named(README) if "requests: " in text]
    assert promised in said
    (summary,) = folder.glob(f"executions/*/{SUMMARY_NAME}")
    assert json.loads(summary.read_text())["outcomes"]["completed"] == 120


@pytest.mark.slow
@pytest.mark.real_time
def test_the_same_job_on_a_server(folder):
    """The commands for the real API work, tried on an emulator in another process."""
    rules = folder / "jobs/support_tickets/emulator.toml"
    with emulator_process("--rules", str(rules), "--durations", "0.3") as emulator:
        said = shell(block("sh", "--rpm 3000"), folder, emulator.base_url)
        assert emulator.books()["calls_served"] > 240
    assert "120 requests: 120 completed" in said


@pytest.mark.slow
@pytest.mark.real_time
def test_a_plain_file_of_prompts(folder):
    """Two lines and no folder are a job too."""
    assert "2 requests: 2 completed" in shell(block("sh", "prompts.jsonl"), folder)
    lines = (folder / "waters" / RESULTS_NAME).read_text().splitlines()
    assert {json.loads(line)["custom_id"] for line in lines} == {"line-1", "line-2"}

    stands, *story = shell(block("sh", "status waters"), folder).splitlines()
    assert json.loads(stands)["outcomes"] == {"completed": 2}
    assert "create sent" in story[1]
    assert story[-1].endswith("ended as completed")


@pytest.mark.slow
@pytest.mark.real_time
def test_the_same_by_batch(folder):
    """The command of the section on batches sends nothing by itself, and completes."""
    said = shell(block("sh", "--via batch"), folder)
    assert "12 requests: 12 completed" in said
    (summary,) = folder.glob(f"executions/*/{SUMMARY_NAME}")
    batches = json.loads(summary.read_text())["batches"]
    assert batches["lines_sent"] == batches["lines_answered"] == 12
    assert batches["by_end"] == {"completed": batches["created"]}


@pytest.mark.slow
@pytest.mark.real_time
def test_the_same_with_webhooks(folder, unused_tcp_port):
    """The emulator tells of each end, so that each run is checked once."""
    command = block("sh", "--webhooks").replace("8700", str(unused_tcp_port))
    assert "12 requests: 12 completed" in shell(command, folder)
    (path,) = folder.glob(f"executions/*/{SUMMARY_NAME}")
    summary = json.loads(path.read_text())
    webhooks = summary["webhooks"]
    assert webhooks["heard"] == webhooks["received"]["accepted"] > 0
    assert webhooks["missed"] == 0
    assert summary["checks_per_run"] == 1.0


@pytest.mark.slow
@pytest.mark.real_time
def test_the_emulator_in_one_terminal_and_a_job_in_another(folder):
    """The emulator starts with the options shown, and the job runs on it as shown."""
    options = block("sh", "orchestrator emulator").split()[2:]
    commands = block("sh", "OPENAI_BASE_URL=")
    assert "http://127.0.0.1:8088/v1" in commands
    with emulator_process(*options, "--port", "0") as emulator:
        said = shell(commands.replace("http://127.0.0.1:8088", emulator.root_url), folder)
        assert emulator.books()["calls_served"] > 12
    assert "12 requests: 12 completed" in said


@pytest.mark.slow
@pytest.mark.real_time
def test_the_program_shown_runs(tmp_path):
    """The example for your own program answers a tool call and yields every result."""
    rules = tmp_path / "rules.toml"
    rules.write_text(block("toml", "[[rules]]"))
    program = tmp_path / "program.py"
    program.write_text(blocks("python")[0])
    with emulator_process("--rules", str(rules), "--durations", "0.1") as emulator:
        said = _run_program(program, emulator)
    first, *others = said.splitlines()
    assert re.fullmatch(r"completed 1 [1-9]\d*", first)
    assert {line.split()[0] for line in others} == {f"q{n}" for n in range(50)}
    assert all("'type': 'message'" in line for line in others)


def _run_program(program: Path, emulator: EmulatorProcess) -> str:
    done = subprocess.run(
        [sys.executable, str(program)],
        env={**environment(emulator.base_url), "OPENAI_API_KEY": "any"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout
