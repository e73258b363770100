"""Tries whether a server's webhooks arrive: receives, asks for a sample, says what came of it."""

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import anyio

from orchestrator.adapters.log import silent_log
from orchestrator.adapters.webhook import Receiver, Verdict, serve_webhooks, webhook_app
from orchestrator.apis.webhook_endpoints import EVENTS_USED, WebhookEndpoints
from orchestrator.apis.webhook_signature import verifier
from orchestrator.errors import (
    OrchestratorError,
    ServerRefused,
    ServerUnclear,
    ServerUnreachable,
)
from orchestrator.jobfile.address import Address
from orchestrator.ports import SignatureFlaw, SignatureRefused, Verify

SAMPLE = "response.completed"
NAME = "orchestrator doctor"
CLEAN_UP_SECONDS_MAX = 10.0

# The sample may be about a run that nobody knows, and may have come before.
GENUINE = (Verdict.ACCEPTED, Verdict.REPEATED, Verdict.UNKNOWN_TYPE)


@dataclass(frozen=True, slots=True)
class Trial:
    """What is to be tried: a new endpoint for `url`, or one by its id with its secrets.

    `wait_seconds` are those from when the server says that it has sent a sample.
    """

    place: Address
    url: str
    endpoint_id: str
    secrets: tuple[str, ...] = field(repr=False)
    wait_seconds: float


@dataclass(frozen=True, slots=True)
class Finding:
    """Whether webhooks work, and what a person should know."""

    works: bool
    told: str


class _Sign:
    """Verifies with a secret that is known only when the endpoint was made."""

    def __init__(self) -> None:
        self.verify: Verify | None = None

    def __call__(
        self, body: bytes, headers: Mapping[str, str], arrived_at: float | None = None
    ) -> None:
        if self.verify is None:
            raise SignatureRefused(SignatureFlaw.FORGED)
        self.verify(body, headers, arrived_at)


class _Listening(Receiver):
    """A receiver that says when something has come."""

    def __init__(self, verify: Verify) -> None:
        super().__init__(verify=verify, on_event=lambda _: None, log=silent_log())
        self.news = anyio.Event()

    def note(self, verdict: Verdict) -> Verdict:
        noted = super().note(verdict)
        if verdict in GENUINE:
            self.news.set()
        return noted


async def try_webhooks(
    endpoints: WebhookEndpoints, trial: Trial, tell: Callable[[str], None]
) -> Finding:
    """Ask for a sample and wait for it.

    Raises:
        WebhookAddressUnusable: Nothing can be received there.
        WebhookSecretUnusable: The secret is none.
        OrchestratorError: What the server refuses, as `WebhookEndpoints` has it.
    """
    sign = _Sign()
    receiver = _Listening(sign)
    place = trial.place
    async with (
        serve_webhooks(webhook_app(receiver), place.host, place.port) as here,
        _endpoint(endpoints, trial, sign, tell) as endpoint_id,
    ):
        tell(f"waits: at {here} for the sample that {endpoint_id} is to be sent")
        problem, status = "", 0
        try:
            status = await endpoints.test(endpoint_id, SAMPLE)
        except (ServerRefused, ServerUnclear, ServerUnreachable) as error:
            # It may have arrived although the server thinks otherwise.
            problem = str(error)
        else:
            with anyio.move_on_after(trial.wait_seconds):
                await receiver.news.wait()
        return _finding(receiver, trial, problem, status)


@asynccontextmanager
async def _endpoint(
    endpoints: WebhookEndpoints, trial: Trial, sign: _Sign, tell: Callable[[str], None]
) -> AsyncIterator[str]:
    """The endpoint to try; one that is made for it is removed again, whatever happens."""
    if trial.endpoint_id:
        sign.verify = verifier(trial.secrets)
        known = next((one for one in await endpoints.list() if one.id == trial.endpoint_id), None)
        if known is not None and (lacks := [e for e in EVENTS_USED if e not in known.event_types]):
            tell(f"lacks: {', '.join(lacks)}; ends that these tell of are found late or by polling")
        yield trial.endpoint_id
        return
    try:
        made = await endpoints.create(trial.url, name=NAME, event_types=EVENTS_USED)
    except (anyio.get_cancelled_exc_class(), ServerUnclear, ServerUnreachable):
        tell(f"perhaps left behind: one for {trial.url}; orchestrator webhooks list shows it")
        raise
    try:
        sign.verify = verifier([made.secret])
        yield made.id
    finally:
        with anyio.move_on_after(CLEAN_UP_SECONDS_MAX, shield=True) as cleaning:
            try:
                await endpoints.delete(made.id)
            except OrchestratorError as error:
                tell(f"left behind: {made.id}; orchestrator webhooks delete {made.id} ({error})")
        if cleaning.cancelled_caught:
            tell(f"left behind: {made.id}; orchestrator webhooks delete {made.id}")


def _finding(receiver: Receiver, trial: Trial, problem: str, status: int) -> Finding:
    """The likeliest cause, by what arrived and what the server says of it."""
    counts = receiver.counts
    if any(counts[verdict] for verdict in GENUINE):
        return Finding(works=True, told="a sample arrived, rightly signed")
    if counts[Verdict.STALE]:
        told = (
            "a sample arrived, rightly signed, but its time is more than five minutes from this "
            "machine's. Set the clock: every event is refused until then"
        )
    elif counts[Verdict.FORGED]:
        mine = "is the secret that of this endpoint? Or does" if trial.endpoint_id else "does"
        told = (
            f"a sample arrived, and its signature is not by the secret: {mine} something on the "
            "way change the body, or is it another server that sends?"
        )
    elif counts[Verdict.MALFORMED]:
        told = (
            "something arrived without the three webhook headers. Does something on the way drop "
            "them?"
        )
    elif counts[Verdict.WRONG_METHOD]:
        told = (
            "something arrived that is no POST. Is there a redirect on the way? Events don't "
            "survive one"
        )
    elif refused := [verdict for verdict in counts if counts[verdict]]:
        told = f"something arrived that is no event: {', '.join(refused)}"
    else:
        told = _nothing_arrived(trial, problem, status)
    return Finding(works=False, told=told)


def _nothing_arrived(trial: Trial, problem: str, status: int) -> str:
    there = trial.url or "the endpoint's address"
    if status:
        return (
            f"nothing arrived here, and yet {there} answered {status}: something else answers "
            f"there, or what stands there does not lead to {trial.place.host}:{trial.place.port}"
        )
    if problem:
        return (
            f"nothing arrived. {problem} Can {there} be reached from where the server is? Look at "
            "its name, the firewall, and the tunnel or the proxy that leads here"
        )
    return (
        f"nothing arrived within {trial.wait_seconds:g} s. Can {there} be reached from where the "
        "server is? Look at its name, the firewall, and the tunnel or the proxy that leads here; "
        "--wait is how long to wait"
    )
