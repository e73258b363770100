"""What a job's `[emulator]` table says of deviations and batches."""

import pytest

from orchestrator.emulator.deviations import PRESET_ALL
from orchestrator.emulator.durations import Fixed, Trace
from orchestrator.errors import JobUnusable
from orchestrator.jobfile import Overrides, emulator_settings, read_job


@pytest.fixture
def settings_of(tmp_path):
    """The settings of a job with this `[emulator]` table."""
    (tmp_path / "requests.jsonl").write_text('{"prompt": "Hi", "model": "m"}\n')

    def read(table):
        (tmp_path / "job.toml").write_text(f"[emulator]\n{table}")
        return emulator_settings(read_job(tmp_path, Overrides()))

    return read


@pytest.mark.parametrize(
    ("said", "meant"),
    [
        ('"all"', PRESET_ALL),
        ('["all"]', PRESET_ALL),
        ('"sessions_plain, any_plain_errors"', ("any_plain_errors", "sessions_plain")),
        ('["any_plain_errors", "sessions_plain"]', ("any_plain_errors", "sessions_plain")),
        ("[]", ()),
    ],
)
def test_deviations(settings_of, said, meant):
    """A list of names, or a text as on the command line."""
    assert settings_of(f"deviations = {said}").deviations == meant


def test_batches(settings_of, tmp_path):
    """How long batches take, and when they end early."""
    settings = settings_of(
        "batch_seconds = 0.5\nbatch_expire_after_lines = 600\nbatch_enqueued_tokens = 9000\n"
        "batch_expires_seconds = 12.5"
    )
    (tmp_path / "times.csv").write_text("seconds\n60\n90\n")
    traced = settings_of('batch_seconds = "times.csv"').batch_seconds

    assert settings.batch_seconds == Fixed(0.5)
    assert (settings.batch_expire_after_lines, settings.batch_enqueued_tokens) == (600, 9000)
    assert settings.batch_expires_seconds == 12.5
    assert isinstance(traced, Trace)


def test_webhooks(settings_of):
    """How late they are, when they come again, and when none comes."""
    settings = settings_of(
        "webhook_retry_seconds = 0.5\nwebhook_late_seconds = 3\n"
        "webhook_outage_from_seconds = 60\nwebhook_outage_until_seconds = 90.5"
    )

    assert (settings.webhook_retry_seconds, settings.webhook_late_seconds) == (0.5, 3)
    assert settings.webhook_outage_from_seconds == 60
    assert settings.webhook_outage_until_seconds == 90.5


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ('deviations = "rude"', "unknown deviation 'rude'"),
        ("batch_enqueued_tokens = 0", "batch_enqueued_tokens must be 1 or more"),
        ("batch_seconds = -1", "a duration must be 0 or more seconds"),
        ("deviations = 3", "Write text in quotes or a list"),
    ],
)
def test_mistakes(settings_of, line, told):
    """What can't be meant is a mistake in the job's file."""
    with pytest.raises(JobUnusable) as caught:
        settings_of(line)
    assert told in f"{caught.value.problem} {caught.value.cure}"
