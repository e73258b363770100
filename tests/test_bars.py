"""Figures that must not get worse, measured by the benchmarks."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


@pytest.mark.slow
@pytest.mark.real_time
def test_a_million_finished_requests_are_gone_on_with():
    """From the start of the process to its first call: under 20 s and 1 GB."""
    command = [sys.executable, str(BENCHMARKS / "resume.py"), "--finished", "1000000"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=300)
    found = json.loads(done.stdout)["same_file"]
    assert 0 < found["first_call_seconds"] < 20
    assert found["memory_mib"] * 2**20 < 10**9
