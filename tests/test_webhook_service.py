"""Webhooks in a program of one's own, in a job, and on the command line."""

import json
import socket

import anyio
import pytest
from support.command import KEY, command_in, write_job
from support.emulator_client import emulator_client
from support.engine import MODEL
from support.webhooks import OTHER_SECRET, SECRET, Log, body_of, call, headers_of

from orchestrator import Orchestrator
from orchestrator.adapters.journal import JournalFile
from orchestrator.core.model import Outcome
from orchestrator.core.settings import WEBHOOK_GAP_SECONDS
from orchestrator.emulator.durations import Fixed
from orchestrator.emulator.emulator import Emulator
from orchestrator.emulator.settings import Settings
from orchestrator.errors import JobUnusable, SettingUnusable, WebhookSecretUnusable, WebhooksOff
from orchestrator.jobfile import Address, Overrides, read_job
from orchestrator.jobfile.address import address_of

SECRET_NAME = "OPENAI_WEBHOOK_SECRET"


@pytest.fixture
def command(monkeypatch, capsys, tmp_path):
    monkeypatch.delenv(SECRET_NAME, raising=False)
    return command_in(tmp_path, monkeypatch, capsys)


@pytest.fixture
def port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def orchestrator_on(emulator, **options):
    client = emulator_client(emulator, latency_seconds=0.01)
    return Orchestrator(client, model=MODEL, seed=1, **options)


async def post(app, run_id, webhook_id):
    body = body_of(run_id)
    return await call(app, body, headers_of(body, webhook_id).items())


class TestInAProgram:
    async def test_an_event_ends_the_wait(self):
        """The application that is mounted wakes the run: no check goes out before."""
        emulator = Emulator(Settings(queue_seconds=Fixed(0.0), run_seconds=Fixed(4.0)))
        orchestrator = orchestrator_on(emulator, webhook_secrets=[OTHER_SECRET, SECRET])
        app = orchestrator.webhook_app  # mounted before the block is entered
        assert app is orchestrator.webhook_app
        before = await post(app, "resp_0", "wh_0")
        results = []
        async with orchestrator, anyio.create_task_group() as tasks:

            async def run():
                results.append(await orchestrator.run({"prompt": "Name a river."}))

            tasks.start_soon(run)
            await anyio.sleep(5.0)
            [run_id] = orchestrator._driver.scheduler.roster.hearing._number_of
            assert not results
            answered = [await post(app, run_id, "wh_1") for _ in range(2)]
            await anyio.sleep(0.1)
            assert [result.outcome for result in results] == [Outcome.COMPLETED]
        after = await post(app, run_id, "wh_2")

        assert [status for status, *_ in (before, *answered, after)] == [200] * 4
        assert results[0].checks == 1
        assert orchestrator.webhooks.counts == {"accepted": 3, "repeated": 1}

    async def test_without_secrets_there_is_nothing_to_mount(self):
        """Whoever asks for it is told what is missing."""
        orchestrator = orchestrator_on(Emulator(Settings()))

        with pytest.raises(WebhooksOff, match="webhook_secrets="):
            _ = orchestrator.webhook_app
        with pytest.raises(WebhooksOff):
            _ = orchestrator.webhooks

    def test_a_secret_that_is_none(self):
        """It is told when the orchestrator is made, and not shown."""
        with pytest.raises(WebhookSecretUnusable) as caught:
            Orchestrator(webhook_secrets=[SECRET, "whsec_%canary%"])

        assert "2 of 2" in str(caught.value)
        assert "canary" not in str(caught.value)

    async def test_silence_is_a_warning_in_the_log(self):
        """With why, and once."""
        log = Log()
        emulator = Emulator(Settings(queue_seconds=Fixed(0.0), run_seconds=Fixed(0.5)))
        orchestrator = orchestrator_on(emulator, webhook_secrets=[SECRET], log=log)
        async with orchestrator:
            requests = [{"prompt": str(n)} for n in range(6)]
            async for _ in orchestrator.run_many(requests):
                pass
            await anyio.sleep(10.0)

        told = [line for line in log.lines if line[1].startswith("webhooks.")]
        assert [(level, event) for level, event, _ in told] == [("warning", "webhooks.silent")]
        assert told[0][2]["family"] == "responses"


class TestInAJob:
    def job(self, folder, toml="", **said):
        write_job(folder / "job", ["hello"], toml)
        return read_job(folder / "job", Overrides(**said))

    def test_said_by_the_job(self, tmp_path):
        """Where to listen, and how far apart checks are."""
        job = self.job(tmp_path, '[webhooks]\nlisten = "127.0.0.1:8700"\ngap_seconds = 120')

        assert job.listen == Address("127.0.0.1", 8700)
        assert job.settings.webhook_gap_seconds == 120

    def test_said_on_the_command_line(self, tmp_path):
        """It wins, as everywhere."""
        job = self.job(tmp_path, '[webhooks]\nlisten = "127.0.0.1:8700"', webhooks="[::1]:0")

        assert job.listen == Address("::1", 0)

    def test_not_said(self, tmp_path):
        """Then there are none."""
        job = self.job(tmp_path)

        assert job.listen is None
        assert job.settings.webhook_gap_seconds == WEBHOOK_GAP_SECONDS

    @pytest.mark.parametrize(
        "toml",
        [
            'listen = "8700"',
            'listen = ""',
            "listen = 8700",
            "gap_seconds = 0",
            "gap_seconds = nan",
            'secret = "whsec_x"',
        ],
    )
    def test_mistakes_name_the_file(self, tmp_path, toml):
        """Each with table and key."""
        with pytest.raises(JobUnusable, match=r"job\.toml: \[webhooks\]"):
            self.job(tmp_path, f"[webhooks]\n{toml}")

    @pytest.mark.parametrize(
        "said",
        [
            "x",
            ":1",
            "h:",
            "h:-1",
            "h:65536",
            "h:1e3",
            "h:" + "9" * 5000,
            "::1:80",
            "[x]:80",
            "a b:1",
            "http://h:1",
            "u@h:1",
            "h:\N{SUPERSCRIPT TWO}",
            "\n:1",
        ],
    )
    def test_no_address(self, said):
        """It is refused before anything is made, with an example."""
        with pytest.raises(SettingUnusable, match=r"127\.0\.0\.1:8700"):
            address_of("webhooks", said)

    @pytest.mark.parametrize(
        ("said", "url"),
        [
            ("127.0.0.1:8700", "http://127.0.0.1:8700/"),
            ("0.0.0.0:80", "http://127.0.0.1:80/"),
            ("[::]:80", "http://[::1]:80/"),
            ("[::1]:80", "http://[::1]:80/"),
            ("localhost:80", "http://localhost:80/"),
        ],
    )
    def test_the_url_on_this_machine(self, said, url):
        """Where an emulator of ours finds it."""
        assert address_of("webhooks", said).here == url


@pytest.mark.real_time
class TestOnTheCommandLine:
    @pytest.mark.parametrize("secret", [None, "", " , "])
    def test_without_a_secret_nothing_is_made(self, command, tmp_path, monkeypatch, secret):
        """The message names the variable."""
        if secret is not None:
            monkeypatch.setenv(SECRET_NAME, secret)
        write_job(tmp_path / "job", ["hello"])
        ended = command("run", "job", "--webhooks", "127.0.0.1:0", "--base-url", "http://x.test")

        assert ended.code == 2
        assert SECRET_NAME in ended.err
        assert [path.name for path in tmp_path.iterdir()] == ["job"]

    def test_a_secret_that_is_none(self, command, tmp_path, monkeypatch):
        """It is told by its place, and not shown."""
        monkeypatch.setenv(SECRET_NAME, f"{SECRET},whsec_%canary%")
        write_job(tmp_path / "job", ["hello"])
        ended = command("run", "job", "--webhooks", "127.0.0.1:0", "--base-url", "http://x.test")

        assert ended.code == 2
        assert "2 of 2" in ended.err
        assert "canary" not in ended.err
        assert [path.name for path in tmp_path.iterdir()] == ["job"]

    @pytest.mark.slow
    def test_the_emulator_tells_of_every_end(self, command, tmp_path, port):
        """No secret is needed: the two make one up. The summary and the log tell of it."""
        toml = '[defaults]\nmodel = "m"\n[emulator]\nqueue_seconds = 0\nrun_seconds = 1.0\n'
        toml += 'faults = "webhook_doubled=0.5, webhook_forged=0.5"\n'
        write_job(tmp_path / "job", [f"hello {n}" for n in range(20)], toml)
        at = f"127.0.0.1:{port}"
        ended = command("run", "job", "--emulator", "--webhooks", at, "--out", "out")

        assert ended.code == 0, ended.err
        assert f"webhooks are taken at http://{at}/" in ended.out + ended.err
        summary = json.loads((tmp_path / "out/summary.json").read_text())
        assert summary["checks_per_run"] == 1.0
        assert summary["webhooks"]["heard"] == summary["webhooks"]["received"]["accepted"] == 20
        assert summary["webhooks"]["received"]["forged"] > 0
        assert summary["webhooks"]["changes"] == []
        assert "webhooks.served" in (tmp_path / "out/log.jsonl").read_text()
        with JournalFile(tmp_path / "out") as journal:
            assert len(set(journal.webhook_ids())) == 20
        assert "webhooks: 20 heard" in command("status", "out").out

    @pytest.mark.slow
    def test_silence_is_told(self, command, tmp_path, port):
        """In the last lines, in the log and in the summary."""
        toml = '[defaults]\nmodel = "m"\n[emulator]\nqueue_seconds = 0\nrun_seconds = 1.0\n'
        toml += "webhook_outage_from_seconds = 0\n[limits]\nmax_in_flight = 2\n"
        write_job(tmp_path / "job", [f"hello {n}" for n in range(4)], toml)
        at = f"127.0.0.1:{port}"
        ended = command("run", "job", "--emulator", "--webhooks", at, "--out", "out")

        assert ended.code == 0, ended.err
        assert "webhooks (responses): after" in ended.out + ended.err
        [change] = json.loads((tmp_path / "out/summary.json").read_text())["webhooks"]["changes"]
        assert not change["are_heard"]
        assert "webhooks.silent" in (tmp_path / "out/log.jsonl").read_text()

    @pytest.mark.slow
    def test_a_place_that_is_taken(self, command, tmp_path):
        """It is told before anything is sent, and the same command goes on with another."""
        write_job(tmp_path / "job", ["hello"])
        with socket.socket() as other:
            other.bind(("127.0.0.1", 0))
            other.listen()
            at = f"127.0.0.1:{other.getsockname()[1]}"
            ended = command("run", "job", "--emulator", "--webhooks", at, "--out", "out")
        assert ended.code == 2
        assert "can't be received at" in ended.err

        ended = command("run", "job", "--emulator", "--webhooks", at, "--out", "out")
        assert ended.code == 0, ended.err

    @pytest.mark.slow
    def test_secrets_reach_no_file(self, command, tmp_path, monkeypatch):
        """Neither the log nor the journal nor what is said has one."""
        monkeypatch.setenv(SECRET_NAME, SECRET)
        write_job(tmp_path / "job", ["hello"])
        address = ("--webhooks", "127.0.0.1:0", "--base-url", "http://127.0.0.1:1/v1")
        ended = command("run", "job", *address, "--out", "out", "--log-level", "debug")

        written = b"".join(path.read_bytes() for path in (tmp_path / "out").iterdir())
        for secret in (SECRET, SECRET.removeprefix("whsec_"), KEY):
            assert secret.encode() not in written
            assert secret not in ended.out + ended.err
