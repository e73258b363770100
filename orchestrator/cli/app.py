"""The command `orchestrator` and its parts."""

import typer

from orchestrator.cli.compare_policies import compare_policies
from orchestrator.cli.doctor import doctor
from orchestrator.cli.emulator import emulator
from orchestrator.cli.run import run
from orchestrator.cli.status import status
from orchestrator.cli.story import story
from orchestrator.cli.version import show_version
from orchestrator.cli.webhooks import app as webhooks

app = typer.Typer(
    name="orchestrator",
    help="Run thousands of OpenAI-style requests from one event loop.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.callback()(show_version)
app.command()(run)
app.command()(status)
app.command()(story)
app.command()(compare_policies)
app.command()(emulator)
app.add_typer(webhooks)
app.command()(doctor)
