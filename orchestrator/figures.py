"""What a program may ask of an orchestrator: how things stand, and where webhooks go."""

from collections import Counter
from functools import cached_property

from starlette.types import ASGIApp

from orchestrator.adapters.limiter.limiter import Limiter
from orchestrator.adapters.webhook import Receiver, webhook_app
from orchestrator.apis.transport import Transport
from orchestrator.core.budget import Budget
from orchestrator.core.model import RunError
from orchestrator.core.totals import Totals
from orchestrator.driver import Driver
from orchestrator.errors import OrchestratorClosed, WebhooksOff
from orchestrator.ports import CallKind


class Figures:
    """The questions that an orchestrator answers, while its block is open and afterwards.

    Before that, they raise OrchestratorClosed; but webhooks may come at any time.
    """

    _driver: Driver | None = None
    _receiver: Receiver | None = None
    _limiter: Limiter
    _transport: Transport

    @property
    def totals(self) -> Totals:
        """What was counted since the block was entered."""
        return self._wired().scheduler.totals

    @property
    def calls(self) -> Counter[tuple[CallKind, str]]:
        """HTTP calls by kind and by status code, or the cause where there was no answer."""
        self._wired()
        return self._transport.counts

    @property
    def tasks_max(self) -> int:
        """The highest number of tasks seen alive in this event loop."""
        return self._wired().tasks_max

    @property
    def budget(self) -> Budget:
        """What may be spent, and what was; nothing is counted there without a limit."""
        return self._wired().scheduler.budget

    @property
    def stopped(self) -> RunError | None:
        """Why nothing new is created any more, or None."""
        return self._wired().scheduler.creates_stopped

    def rpm_of(self, model: str) -> float | None:
        """The requests per minute in force for a model: set, or told by the server."""
        self._wired()
        return self._limiter.rpm_of(model)

    @property
    def webhooks(self) -> Receiver:
        """What takes webhook events; its `counts` tell what came of them.

        Raises:
            WebhooksOff: The orchestrator has no `webhook_secrets`.
        """
        if self._receiver is None:
            raise WebhooksOff
        return self._receiver

    @cached_property
    def webhook_app(self) -> ASGIApp:
        """An ASGI application that takes webhooks, to be mounted in a service of your own.

        It may be mounted before the block is entered. It has to be served by the same event loop.

        Raises:
            WebhooksOff: The orchestrator has no `webhook_secrets`.
        """
        return webhook_app(self.webhooks)

    def _wired(self) -> Driver:
        if self._driver is None:
            raise OrchestratorClosed
        return self._driver
