"""Every error of the program; the docstring of each is its message and its cure.

Facts in braces are filled in when the error is raised and stay on it as attributes, so that a
program can read what a person reads. `exit_code` is what the command line ends with.
"""

from typing import Any, ClassVar


class OrchestratorError(Exception):
    """Something went wrong in the orchestrator."""

    exit_code: ClassVar[int] = 3

    def __init__(self, **facts: Any) -> None:
        self.facts = facts
        message = " ".join((type(self).__doc__ or "").split()).format(**facts)
        # A fact may be empty, and leaves two spaces then.
        super().__init__(message.replace(".  ", ". "))

    def __getattr__(self, name: str) -> Any:
        try:
            return self.__dict__["facts"][name]
        except KeyError:
            raise AttributeError(name) from None

    def __reduce__(self) -> tuple[Any, ...]:
        return (_rebuilt, (type(self), self.facts))


def _rebuilt(kind: type[OrchestratorError], facts: dict[str, Any]) -> OrchestratorError:
    return kind(**facts)


class UserMistake(OrchestratorError):
    """Something that you gave us can't be used. Nothing was sent."""

    exit_code = 2


class KeyMissing(UserMistake):
    """There is no API key: OPENAI_API_KEY is missing or blank. Set it, or add --emulator to try
    the program without a key and without cost."""


class KeyUnusable(UserMistake):
    """The API key in OPENAI_API_KEY can't be sent: it has characters that no key has. Copy it
    again, without quotes and line breaks. Nothing was sent."""


class ClientUnusable(UserMistake):
    """The server can't be reached as it is set: {problem}. Look at --base-url, OPENAI_BASE_URL and
    the proxies in the environment. Nothing was sent."""


class SourceMissing(UserMistake):
    """{path} does not exist. Give a job folder (with a job.toml) or a .jsonl file. Nothing was
    sent."""


class SourceUnusable(UserMistake):
    """{path} can't be used as a source: {problem}. {cure} Nothing was sent."""


class RequestFileEmpty(UserMistake):
    """{path} has no requests: the file is empty. Nothing was sent."""


class LineUnusable(UserMistake):
    """{path}, line {line}{custom_id}: {problem}. {cure}{more} Nothing was sent."""


class RequestUnusable(UserMistake):
    """This request can't be used{custom_id}: {problem}. {cure} It was not sent."""


class ModelUnpriced(UserMistake):
    """There is a limit of the cost, and no price is known for {models}. Leave the limit out, limit
    the tokens instead (--max-tokens), or name models that have a price. Nothing was sent."""


class WebhookSecretUnusable(UserMistake):
    """Webhook secret {position} of {count} can't be used: {problem}. Copy it again from where the
    webhook was made; it begins with whsec_. Nothing was sent."""


class WebhookSecretMissing(UserMistake):
    """Webhooks are to be received, and there is no secret to know them by: OPENAI_WEBHOOK_SECRET is
    missing or blank. Set it to the secret that was shown when the endpoint was made (several with
    spaces between them while they are changed). Nothing was sent."""


class WebhooksOff(UserMistake):
    """This orchestrator takes no webhooks. Make it with webhook_secrets=[...], the secrets of your
    endpoint."""


class WebhookAddressUnusable(UserMistake):
    """Webhooks can't be received at {host}:{port}: {problem}. Give an address of this machine, or
    0.0.0.0 for all of them, and a port that is free and that the endpoint's URL leads to. Nothing
    was sent."""


class WebhookUrlUnusable(UserMistake):
    """Webhooks can't be sent to {url!r}: {problem}. Give an address that begins with https://; one
    with http:// is good on this machine only. Nothing was sent."""


class WebhookEndpointUnknown(UserMistake):
    """There is no webhook endpoint {endpoint_id!r} on {server}. `orchestrator webhooks list` shows
    those that there are."""


class WebhookEndpointsMissing(OrchestratorError):
    """{server} has no webhook endpoints that could be managed ({problem}). Make one where its
    maker says, or do without: runs are checked all the same."""


class SecretFileUnusable(UserMistake):
    """The secret can't be written to {path}: {problem}. {cure}"""


class NotConfirmed(UserMistake):
    """Nobody is there to be asked whether {what}. Add --yes to do it unasked."""


class ExtraMissing(UserMistake):
    """{what} needs {package}, which is not installed: pip install 'run-orchestrator[{extra}]'."""


class QueueUnusable(UserMistake):
    """The queue {url} can't be used: {problem}. Look at its address, the region (AWS_REGION) and
    the credentials in the environment."""


class KeyRefused(OrchestratorError):
    """{server} refuses the API key: {problem}. Look at OPENAI_API_KEY, what the key may do, and
    the base url."""


class ServerRefused(OrchestratorError):
    """{server} refused to {what}: {problem}."""


class ServerUnreachable(OrchestratorError):
    """{server} gave no answer: {problem}. Look at --base-url, OPENAI_BASE_URL, the proxies in the
    environment and the network."""


class ServerUnclear(OrchestratorError):
    """{server} gave an answer that can't be read: {problem}. Is the base url right?"""


class InputChanged(OrchestratorError):
    """{path}, line {line}: the file was changed while it was being read. Don't write to a request
    file during an execution; start again with the new file."""


class JobUnusable(UserMistake):
    """{path}: {problem}. {cure} Nothing was sent."""


class SettingUnusable(UserMistake):
    """{name} = {value!r} can't be used: {problem}. {cure} Nothing was sent."""


class ToolUnusable(UserMistake):
    """The tool {tool!r} in {where} can't be used: {problem}. {cure} Nothing was sent."""


class ToolsUnreadable(UserMistake):
    """{path} can't be loaded as a file of tools: {problem}. {cure} Nothing was sent."""


class OutputFolderTaken(UserMistake):
    """{path} already holds the results of another execution. Give another folder with --out;
    results are never overwritten. Nothing was sent."""


class OutputFolderUnusable(UserMistake):
    """{path} can't be used as an output folder: {problem}. Give another one with --out. Nothing
    was sent."""


class OutputDamaged(UserMistake):
    """{path} is not as this execution left it: {problem}. Put it back as it was, or add --fresh to
    start anew. Nothing was sent."""


class LinesChanged(UserMistake):
    """{path} is not what it was when this execution began. Lines that were changed or taken out
    after their requests had been sent: {count}, namely {named}. Put them back; or add
    --accept-changes to go on with what is there now (what was sent stays as it was sent), or
    --fresh to start anew. Nothing was sent."""


class RunsElsewhere(UserMistake):
    """{path}: these lines ask for another API now than their runs, which are in flight, are on:
    {named}. Put them back until those have ended, or add --fresh to start anew. Nothing was
    sent."""


class DefaultsChanged(UserMistake):
    """The lines of {path} are completed otherwise than when this execution began: by another
    --model or --url, or other [defaults] in job.toml. Say the same again; or add --accept-changes
    to go on so (what was sent stays as it was sent), or --fresh to start anew. Nothing was sent."""


class ExecutionMissing(UserMistake):
    """There is no execution in {path}: it holds no journal. Give a folder that `orchestrator run`
    has made, such as one of those under executions/."""


class TraceUnusable(UserMistake):
    """{path} can't be used as a trace: {problem}. {cure}"""


class PlotMissing(UserMistake):
    """A plot takes matplotlib, which is not installed. Install it with
    pip install "run-orchestrator[plot]", or leave out --plot."""


class PlotUnusable(UserMistake):
    """No plot can be drawn at {path}: {problem}. Give another file, a .png or a .svg."""


class RequestUnknown(UserMistake):
    """{path} knows no request with the custom_id {custom_id!r}: it was not begun yet, or the name
    is another one."""


class NothingToRetry(UserMistake):
    """There is no execution of {source} that could be gone on with{where}. Leave out --retry-failed
    to start one. Nothing was sent."""


class OutputFailed(OrchestratorError):
    """{path} can't be written any more: {problem}. The execution was stopped; what is in the file
    is whole. Make room or mend the folder, then run the same command again: it goes on."""


class JournalFailed(OrchestratorError):
    """{path} can't be written any more: {problem}. The execution was stopped; make room or mend the
    folder, then run the same command again: it goes on where this one ended."""


class JournalUnusable(UserMistake):
    """{path} can't be gone on with: {problem}. {cure} Nothing was sent."""


class FolderInUse(UserMistake):
    """{path} is in use by another process (pid {pid}). Wait for its end, or stop it; `orchestrator
    status {path}` says how far it is, --fresh starts another one beside it. Nothing was sent."""


class ExecutionStopped(OrchestratorError):
    """The execution was stopped early: {reason}. {cure}"""


class OrchestratorClosed(OrchestratorError):
    """This orchestrator is not open. Use it inside `async with Orchestrator(...) as orchestrator:`
    and await its runs before the block ends."""


class DriverBroken(OrchestratorError):
    """The engine stopped because of an error of its own: {problem}. This is a bug; please report it
    with the story that follows: {story}"""


class TransitionImpossible(OrchestratorError):
    """Run {number} ({family}) can't go from {state!r} by {change!r}. This is a bug; please report
    it with the story of the run: {story}"""


class InvariantBroken(OrchestratorError):
    """{what}. This is a bug; please report it with the story of the run: {story}"""


CURE = "Mend that, then run what is left."
CURES = {
    "invalid_api_key": "Look at OPENAI_API_KEY and the base url, then run what is left.",
    "authentication": "Look at OPENAI_API_KEY and the base url, then run what is left.",
    "budget_spent": "Look at the budget in the summary, then run what is left with a higher limit.",
    "same_failure": "Mend the requests, or say --same-failures 0, then run what is left.",
    "execution_deadline": "Run what is left.",
    "insufficient_quota": "Look at the account's plan and billing, then run what is left.",
}


def cure_for(code: str) -> str:
    """What to do when no request works, by the code of the refusal."""
    return CURES.get(code, CURE)
