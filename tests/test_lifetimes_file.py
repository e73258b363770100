"""What an execution has learned is there for the next one, and never in its way."""

import json

import pytest

from orchestrator.adapters.journal import Facts, JournalFile
from orchestrator.core.learned import Kind, Learned
from orchestrator.execution.lifetimes_file import LIFETIMES_NAME, keep_learned, learned_before


class Log:
    """Remembers the names of what was logged."""

    def __init__(self):
        self.events = []

    def info(self, event, **fields):
        pass

    def warning(self, event, **fields):
        self.events.append(event)


LOG = Log()
KIND = Kind("responses", "gpt-5-nano", "/v1/responses")
FACTS = Facts(
    name="run-1",
    source="/jobs/a/job.toml",
    server="https://api.example/v1/",
    version="0",
    started_at_unix=0.0,
    requests=1,
    by_model={},
    file_digest=b"",
    defaults_digest=b"",
)


def execution_in(folder, facts=FACTS):
    folder.mkdir()
    with JournalFile(folder) as journal:
        journal.set_facts(facts)
    return folder


def learn(seconds=5.0):
    learned = Learned(1.0)
    for _ in range(30):
        learned.still_running(KIND, 0.0, seconds - 0.1)
        learned.ended(KIND, seconds - 0.1, seconds)
    return learned


def knows(learned):
    return learned.gap_seconds(KIND, 0.0, 1, 0.5) is not None


def test_the_next_execution_of_the_source_knows_it(tmp_path):
    """It lies in the folder, for the user alone, and is read from beside."""
    before = execution_in(tmp_path / "a-1")
    keep_learned(before, learn(), LOG)

    assert (before / LIFETIMES_NAME).stat().st_mode & 0o777 == 0o600
    assert knows(learned_before(execution_in(tmp_path / "a-2"), FACTS, 1.0, LOG))
    assert knows(learned_before(before, FACTS, 1.0, LOG))


@pytest.mark.parametrize("field", ["source", "server"])
def test_what_another_source_or_server_taught_is_left_alone(tmp_path, field):
    """The emulator's runs say nothing of the real ones."""
    other = {"source": FACTS.source, "server": FACTS.server} | {field: "another"}
    facts = Facts(
        name="run-2",
        version="0",
        started_at_unix=0.0,
        requests=1,
        by_model={},
        file_digest=b"",
        defaults_digest=b"",
        **other,
    )
    keep_learned(execution_in(tmp_path / "b-1", facts), learn(), LOG)

    assert not knows(learned_before(execution_in(tmp_path / "a-1"), FACTS, 1.0, LOG))


GOOD = {
    "family": "responses",
    "model": "gpt-5-nano",
    "url": "/v1/responses",
    "after_outputs": False,
    "ended": [1.0],
    "entered": [1.0],
}


@pytest.mark.parametrize(
    "content",
    [
        "",
        "[]",
        "{",
        json.dumps({"version": 2, "kinds": []}),
        json.dumps({"version": 1, "kinds": [GOOD | {"ended": [-1.0]}]}),
        json.dumps({"version": 1, "kinds": [GOOD | {"ended": [1.0] * 9_999}]}),
        json.dumps({"version": 1, "kinds": [GOOD | {"entered": [1e300]}]}),
        json.dumps({"version": 1, "kinds": [GOOD | {"ended": ["x"]}]}),
        "\udcff",
    ],
)
def test_a_file_that_makes_no_sense_is_a_warning(tmp_path, content):
    """Learning begins anew, and the log says why."""
    folder = execution_in(tmp_path / "a-1")
    (folder / LIFETIMES_NAME).write_bytes(content.encode(errors="surrogateescape"))

    log = Log()
    learned = learned_before(folder, FACTS, 1.0, log)

    assert log.events == ["lifetimes.unreadable"]
    assert not knows(learned)


def test_a_folder_that_can_not_be_written_is_a_warning(tmp_path):
    """Results are what counts; the next execution learns anew."""
    log = Log()
    keep_learned(tmp_path / "gone", learn(), log)

    assert log.events == ["lifetimes.not_kept"]


def test_nothing_learned_leaves_no_file(tmp_path):
    """A job of direct requests has nothing to look at."""
    keep_learned(tmp_path, Learned(1.0), LOG)

    assert list(tmp_path.iterdir()) == []
