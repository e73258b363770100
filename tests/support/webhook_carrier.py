"""Carries the emulator's webhooks in a test's own time, without sockets."""

from orchestrator.emulator.emulator import Emulator
from orchestrator.emulator.webhooks import Delivery

SECRET = "whsec_" + "c2VjcmV0" * 4
URL = "http://127.0.0.1:8089/hook"


def carry(emulator: Emulator, until: float, answer=lambda delivery: 200) -> list:
    """Deliver all that is due up to then, as soon as it is; gives (when, delivery) in order."""
    carried: list[tuple[float, Delivery]] = []
    now = 0.0
    while (at := emulator.next_delivery_at()) is not None and at <= until:
        now = max(now, at)
        for delivery in emulator.deliveries(now):
            carried.append((now, delivery))
            emulator.delivered(delivery, answer(delivery), now)
    return carried
