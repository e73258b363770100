"""Webhook events: received over HTTP or taken from a queue, verified, and handed on once each."""

from orchestrator.adapters.webhook.app import webhook_app
from orchestrator.adapters.webhook.queue import WebhookQueue
from orchestrator.adapters.webhook.receiver import Receiver, Verdict, WebhookEvent
from orchestrator.adapters.webhook.serving import refuse_address, serve_webhooks

__all__ = [
    "Receiver",
    "Verdict",
    "WebhookEvent",
    "WebhookQueue",
    "refuse_address",
    "serve_webhooks",
    "webhook_app",
]
