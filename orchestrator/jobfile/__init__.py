"""A job: a folder with a job.toml, or a bare .jsonl file, for which everything is default.

Rules:

- What the command line says wins over job.toml, which wins over the defaults.
- Paths in a job.toml are relative to its folder.
- The request file is only found here, not read. What `[emulator]` points to is read by
  `emulator_settings`, so that a mistake in it disturbs nobody who doesn't use the emulator.
"""

from orchestrator.jobfile.address import Address
from orchestrator.jobfile.emulation import emulator_settings
from orchestrator.jobfile.job import Job, Overrides, read_job

__all__ = ["Address", "Job", "Overrides", "emulator_settings", "read_job"]
