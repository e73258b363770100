"""`orchestrator emulator` as a person types it."""

import signal
import subprocess
import sys
import urllib.request

import pytest
import typer
from typer.testing import CliRunner

from orchestrator.cli.emulator import emulator

APP = typer.Typer()
APP.command()(emulator)


@pytest.fixture(autouse=True)
def no_secret(monkeypatch):
    """No secret from the environment that the tests run in."""
    monkeypatch.delenv("OPENAI_WEBHOOK_SECRET", raising=False)


def run(*arguments):
    return CliRunner().invoke(APP, list(arguments))


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--faults", "sloow"], "unknown fault 'sloow'; known are"),
        (["--faults", "no-such.toml"], "no-such.toml: can't be read"),
        (["--durations", "no-such.csv"], "'no-such.csv' is neither a number of seconds nor a file"),
        (["--durations", "-1"], "0 or more seconds"),
        (["--answers", "no-such.jsonl"], "no-such.jsonl: can't be read (No such file"),
        (["--rules", "no-such.toml"], "no-such.toml: can't be read (No such file"),
        (["--rpm", "0"], "rpm must be 1 or more"),
        (["--tpm", "-1"], "tpm must be 1 or more"),
        (["--retention", "-1"], "retention_seconds must be 0 or more"),
        (["--deviations", "any_plain_errors,rude"], "unknown deviation 'rude'; known are any_"),
        (["--deviations", "all, sessions_plain", "--rpm", "0"], "rpm must be 1 or more"),
        (["--batch-seconds", "-1"], "a duration must be 0 or more seconds"),
        (["--batch-expire-after", "0"], "batch_expire_after_lines must be 1 or more"),
        (["--batch-expires", "-1"], "batch_expires_seconds must be 0 or more"),
        (["--enqueued-tokens", "0"], "batch_enqueued_tokens must be 1 or more"),
        (["--webhook-url", "http://127.0.0.1:1"], "no secret: give one with --webhook-secret-file"),
        (["--webhook-secret-file", "no-such-file"], "no-such-file: can't be read"),
        (["--port", "70000"], "port must be from 0 to 65535"),
    ],
)
def test_a_mistake_is_told_in_two_lines_at_most(arguments, complaint):
    """Exit code 2, what is wrong on stderr, no traceback."""
    result = run(*arguments)

    assert result.exit_code == 2
    assert complaint in result.stderr
    assert result.stderr.count("\n") <= 2
    assert result.stdout == ""


def test_help_names_every_option():
    """Each option is explained."""
    shown = run("--help").stdout

    options = ["port", "seed", "rpm", "tpm", "faults", "deviations", "durations", "answers"]
    options += ["rules", "retention", "batch-seconds", "batch-expire-after", "batch-expires"]
    options += ["enqueued-tokens", "webhook-url", "webhook-secret-file"]
    for option in options:
        assert f"--{option}" in shown


def test_the_secret_of_webhooks_is_in_a_file_or_in_the_environment(tmp_path, monkeypatch):
    """The file goes first; what is wrong with either is told without showing it."""
    file = tmp_path / "secret"
    file.write_text("whsec_!not-base64!\n")
    monkeypatch.setenv("OPENAI_WEBHOOK_SECRET", "whsec_c2VjcmV0")
    url = ["--webhook-url", "http://127.0.0.1:1/"]
    in_file = run(*url, "--webhook-secret-file", str(file))
    elsewhere = run("--webhook-url", "http://example.org/")
    monkeypatch.setenv("OPENAI_WEBHOOK_SECRET", "whsec_?")

    for result in (in_file, run(*url)):
        assert result.exit_code == 2
        assert "webhook_secret can't be used: what follows whsec_ is no base64" in result.stderr
        assert "not-base64" not in result.stderr
    assert "to this machine only, not to 'example.org'" in elsewhere.stderr


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_serves_until_it_is_told_to_stop(number):
    """One line with the base url, calls are answered, and a signal ends it with code 0."""
    program = "import typer; from orchestrator.cli.emulator import emulator; typer.run(emulator)"
    with subprocess.Popen(
        [sys.executable, "-c", program, "--port", "0", "--durations", "0"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        line = process.stdout.readline()
        base_url = line.split()[1]
        request = urllib.request.Request(  # noqa: S310 - loopback
            f"{base_url}/models", headers={"Authorization": "Bearer any"}
        )
        with urllib.request.urlopen(request) as answer:  # noqa: S310 - loopback
            assert answer.status == 200
        process.send_signal(number)
        out, err = process.communicate(timeout=10)

    assert f"OPENAI_BASE_URL={base_url}" in line
    assert out == "stopped; 1 calls served\n"
    assert err == ""
    assert process.returncode == 0
