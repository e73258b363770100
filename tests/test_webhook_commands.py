"""`orchestrator webhooks` and `orchestrator doctor` as a person types them."""

import json
import socket
import stat
import sys

import pytest
from support.command import KEY, command_in
from support.emulator_client import emulator_client
from support.processes import emulator_process

from orchestrator.cli import doctor as doctor_command
from orchestrator.cli import webhooks as webhooks_command
from orchestrator.emulator.emulator import Emulator
from orchestrator.emulator.settings import Settings

pytestmark = pytest.mark.real_time

URL = "http://127.0.0.1:8089/"


@pytest.fixture
def command(monkeypatch, capsys, tmp_path):
    monkeypatch.delenv("OPENAI_WEBHOOK_SECRET", raising=False)
    return command_in(tmp_path, monkeypatch, capsys)


@pytest.fixture
def emulator(monkeypatch):
    """The server that the commands talk to, without sockets."""
    made = Emulator(Settings())
    for place in (webhooks_command, doctor_command):
        monkeypatch.setattr(place, "make_client", lambda _: emulator_client(made))
    return made


def test_an_endpoint_from_its_making_to_its_end(command, emulator):
    """Each command says what it did, and ends with 0."""
    made = command("webhooks", "create", URL, "--name", "nightly")
    listed = command("webhooks", "list")
    (endpoint,) = json.loads(command("webhooks", "list", "--json").out)["endpoints"]
    tested = command("webhooks", "test", endpoint["id"], "--event", "batch.expired")
    rotated = json.loads(command("webhooks", "rotate", endpoint["id"], "--json").out)
    deleted = command("webhooks", "delete", endpoint["id"], "--yes")

    first, _, secret = made.out.splitlines()
    assert first == f"made {endpoint['id']}, which sends to {URL}"
    assert secret.startswith("whsec_")
    heads, row = listed.out.splitlines()
    assert heads.split() == ["id", "name", "url", "events", "made", "secret"]
    for cell in (endpoint["id"], "nightly", URL, "11 of the 11 used here", secret[-4:]):
        assert cell in row
    assert secret not in listed.out
    assert tested.out == f"{endpoint['id']} answered 200 to a sample of batch.expired\n"
    assert rotated["signing_secret"] not in {"", secret}
    assert deleted.out == f"deleted {endpoint['id']}\n"
    assert command("webhooks", "list").out == "there are no webhook endpoints\n"
    assert [one.code for one in (made, listed, tested, deleted)] == [0, 0, 0, 0]
    assert made.err == ""


def test_the_secret_goes_into_a_file_for_the_user_alone(command, emulator, tmp_path):
    """It is nowhere else; a file that is there already is not touched, and nothing is made."""
    file = tmp_path / "secret"
    made = command("webhooks", "create", URL, "--secret-file", "secret", "--json")
    again = command("webhooks", "create", URL, "--secret-file", "secret")
    told = json.loads(made.out)
    rotated = command("webhooks", "rotate", told["id"], "--secret-file", "new", "--keep-old")

    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert file.read_text().startswith("whsec_")
    assert file.read_text().endswith("\n")
    assert file.read_text().strip() not in made.out
    assert "signing_secret" not in told
    assert (again.code, "there is such a file already" in again.err) == (2, True)
    assert rotated.out.splitlines()[0].endswith("the old one is good for 24 hours more")
    assert (tmp_path / "new").read_text() != file.read_text()
    assert len(json.loads(command("webhooks", "list", "--json").out)["endpoints"]) == 1


@pytest.mark.slow
def test_no_file_is_left_where_nothing_was_made(command, emulator, tmp_path):
    """A refusal of the server leaves no empty file behind."""
    ended = command("webhooks", "create", URL, "--events", "nonsense", "--secret-file", "secret")

    assert ended.code == 3
    assert "Invalid value: 'nonsense'" in ended.err
    assert not (tmp_path / "secret").exists()


def test_mistakes_and_refusals(command, emulator):
    """Each is a line that says what to do, with the exit code of its kind."""
    for words, code, told in (
        (["create", "http://example.org/"], 2, "begins with https://"),
        (["create", URL, "--secret-file", "no/such/folder"], 2, "No such file or directory"),
        (["test", "we_1"], 2, "There is no webhook endpoint 'we_1'"),
        (["rotate", "we_1"], 2, "orchestrator webhooks list"),
        (["delete", "we_1"], 2, "Add --yes"),
        (["delete", "we_1", "--yes"], 2, "There is no webhook endpoint"),
    ):
        ended = command("webhooks", *words)
        assert (ended.code, ended.out, ended.err.count("\n")) == (code, "", 1), words
        assert told in ended.err


@pytest.mark.slow
@pytest.mark.parametrize(("answer", "code", "left"), [("y\n", 0, 0), ("n\n", 1, 1), ("", 130, 1)])
def test_deleting_asks_first(command, emulator, monkeypatch, answer, code, left):
    """Yes deletes, no does not, and the end of the input is an interrupt."""

    class Terminal:
        said = iter([answer])

        def isatty(self):
            return True

        def readline(self, *_):
            return next(self.said, "")

    command("webhooks", "create", URL)
    (endpoint,) = json.loads(command("webhooks", "list", "--json").out)["endpoints"]
    monkeypatch.setattr(sys, "stdin", Terminal())
    ended = command("webhooks", "delete", endpoint["id"])

    assert ended.code == code
    assert len(json.loads(command("webhooks", "list", "--json").out)["endpoints"]) == left


@pytest.mark.slow
def test_the_doctor_says_whether_the_key_is_taken(command, monkeypatch):
    """A server that takes it, one that does not, and one that has no list of models."""
    for settings, code, told in (
        (Settings(), 0, "took the key within"),
        (Settings(api_key="another"), 3, "refuses the API key: HTTP 401"),
    ):
        emulator = Emulator(settings)
        monkeypatch.setattr(doctor_command, "make_client", lambda _, e=emulator: emulator_client(e))
        ended = command("doctor")
        assert ended.code == code
        assert told in ended.out + ended.err
    elsewhere = emulator_client(Emulator(), base_url="http://emulator.test/elsewhere")
    monkeypatch.setattr(doctor_command, "make_client", lambda _: elsewhere)
    unclear = command("doctor")

    assert unclear.code == 1
    assert unclear.out.startswith("unclear: http://emulator.test/elsewhere/ has no list of models")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--url", "https://example.org/"], "Add --webhooks"),
        (["--endpoint", "we_1"], "Add --webhooks"),
        (["--webhooks", "127.0.0.1:0"], "Give either --url"),
        (["--webhooks", "127.0.0.1:0", "--url", URL, "--endpoint", "x"], "Give either --url"),
        (["--webhooks", "8089", "--url", URL], "HOST:PORT"),
        (["--webhooks", "127.0.0.1:70000", "--url", URL], "HOST:PORT"),
        (["--webhooks", "127.0.0.1:0", "--url", "http://example.org"], "https://"),
        (["--webhooks", "127.0.0.1:0", "--url", URL, "--wait", "0"], "--wait"),
        (["--webhooks", "127.0.0.1:0", "--endpoint", "we_1"], "OPENAI_WEBHOOK_SECRET is"),
        (["--webhooks", "192.0.2.1:80", "--url", URL], "can't be received at 192.0.2.1:80"),
    ],
)
def test_mistakes_of_the_doctors_patients(command, emulator, words, told):
    """What can't be meant is told before anything is made on the server."""
    ended = command("doctor", *words)

    assert ended.code == 2
    assert told in ended.err
    assert json.loads(command("webhooks", "list", "--json").out)["endpoints"] == []


@pytest.fixture(scope="module")
def server():
    """An emulator in a process of its own, which sends over real sockets."""
    with emulator_process() as running:
        yield running


@pytest.fixture
def patient(command, server, monkeypatch):
    """The doctor, asked about this server and a free port."""
    monkeypatch.setenv("OPENAI_BASE_URL", server.base_url)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        place = f"127.0.0.1:{taken.getsockname()[1]}"

    def ask(*words, there=f"http://{place}/"):
        return command("doctor", "--webhooks", place, *(words or ("--url", there)), "--wait", "1")

    return ask


def endpoints_left(command):
    return json.loads(command("webhooks", "list", "--json").out)["endpoints"]


@pytest.mark.slow
def test_webhooks_that_arrive(patient, command):
    """An endpoint is made, a sample arrives over a real socket, and nothing is left behind."""
    ended = patient()

    assert (ended.code, ended.err) == (0, "")
    assert ended.out.splitlines()[-1] == "works: a sample arrived, rightly signed"
    assert endpoints_left(command) == []
    assert KEY not in ended.out


@pytest.mark.slow
def test_webhooks_that_go_elsewhere(patient, command, server):
    """Nobody there, or somebody else there: told apart, and nothing is left behind."""
    nobody = patient(there="http://127.0.0.1:1/")
    somebody = patient(there=f"{server.root_url}/emulator/health")

    assert (nobody.code, somebody.code) == (1, 1)
    assert "could not be delivered" in nobody.out
    assert "nothing arrived here, and yet" in somebody.out
    assert "answered 405: something else answers there" in somebody.out
    assert endpoints_left(command) == []


@pytest.mark.slow
def test_an_endpoint_of_ones_own(patient, command, monkeypatch, tmp_path):
    """With its secret the sample is let in, with another one not; the endpoint stays."""
    place = patient("--endpoint", "we_none")
    assert (place.code, "WEBHOOK_SECRET is" in place.err) == (2, True)
    monkeypatch.setenv("OPENAI_WEBHOOK_SECRET", "whsec_b3RoZXI=")
    unknown = patient("--endpoint", "we_none")
    address = unknown.out.splitlines()[1].split()[2]
    subscribed = ("--events", "response.completed")
    command("webhooks", "create", address, "--secret-file", "secret", *subscribed)
    (endpoint,) = endpoints_left(command)
    forged = patient("--endpoint", endpoint["id"])
    monkeypatch.setenv("OPENAI_WEBHOOK_SECRET", (tmp_path / "secret").read_text())
    works = patient("--endpoint", endpoint["id"])
    command("webhooks", "delete", endpoint["id"], "--yes")

    assert (unknown.code, "There is no webhook endpoint 'we_none'" in unknown.err) == (2, True)
    assert (forged.code, "its signature is not by the secret" in forged.out) == (1, True)
    assert works.code == 0
    assert "lacks: response.failed, " in works.out
