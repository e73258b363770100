"""What the model may look up and do for customers of Harrow & Pine, a shop that doesn't exist.

Each public function is a tool. Its name, its docstring and the types of its arguments are what the
model is told, so they are written for the model. What a tool raises is told to the model too, and
the run goes on.

Copy this file, and put your own database or your own services behind the functions. Keep them
asynchronous where they wait for something: thousands may wait at once.
"""

import asyncio
import json
from pathlib import Path
from typing import Any

# Beside this file, wherever the job is started from.
_FOLDER = Path(__file__).parent


def _read(name: str, key: str) -> dict[str, dict[str, Any]]:
    records = json.loads((_FOLDER / name).read_text(encoding="utf-8"))
    return {record[key]: record for record in records}


_ORDERS = _read("orders.json", "order_id")
_CUSTOMERS = _read("customers.json", "customer_id")
_ORDER_OF_PARCEL = {order["tracking_number"]: order for order in _ORDERS.values()}

# Replacements by the call that opened them; a real shop has a table with a unique column for this.
_REPLACEMENTS: dict[str, dict[str, str]] = {}


class LedgerClosedError(Exception):
    """The books of that year are closed, so nothing of it can be booked any more."""


async def lookup_order(order_id: str) -> dict[str, Any]:
    """Look up an order: when it was placed, by whom, what was in it and what it cost.

    Args:
        order_id: The number of the order, such as O-1024.
    """
    order = _order(order_id)
    shown = ("order_id", "customer_id", "ordered_on", "items", "postage_cents", "tracking_number")
    return {name: order[name] for name in shown}


async def lookup_customer(customer_id: str) -> dict[str, Any]:
    """Look up a customer: name, e-mail address, town, points, and the numbers of all orders.

    Args:
        customer_id: The number of the customer, such as C-207.
    """
    if customer_id not in _CUSTOMERS:
        message = f"There is no customer {customer_id}."
        raise LookupError(message)
    return _CUSTOMERS[customer_id]


async def delivery_status(tracking_number: str) -> dict[str, Any]:
    """Ask the carrier where a parcel is and when it is expected. This takes a few seconds.

    Args:
        tracking_number: The number of the parcel, such as TR-51024. It is part of the order.
    """
    # Carriers are slow: here 1 to 3 seconds, the same for a parcel each time. Meanwhile all other
    # runs go on.
    await asyncio.sleep(1 + sum(tracking_number.encode()) % 3)
    if tracking_number not in _ORDER_OF_PARCEL:
        message = f"The carrier knows no parcel {tracking_number}."
        raise LookupError(message)
    delivery = _ORDER_OF_PARCEL[tracking_number]["delivery"]
    return {"tracking_number": tracking_number, **delivery}


async def open_replacement(order_id: str, reason: str, call_id: str) -> dict[str, str]:
    """Have something that arrived damaged, wrong or incomplete sent again, free of charge.

    Args:
        order_id: The number of the order, such as O-1024.
        reason: What is wrong, in a few words, for the people in the packing room.
        call_id: Filled in by the engine, not by the model: the same call has the same id.
    """
    # A call may come a second time, for example when the program was killed before the answer was
    # sent. Its id is how we know, and nobody gets two parcels.
    if call_id not in _REPLACEMENTS:
        order = _order(order_id)
        _REPLACEMENTS[call_id] = {
            "replacement_id": f"R-{len(_REPLACEMENTS) + 1:03}",
            "order_id": order["order_id"],
            "reason": reason,
        }
    return _REPLACEMENTS[call_id]


async def refund_amount(order_id: str) -> dict[str, Any]:
    """Tell how much can be paid back for an order, by the books. This pays nothing.

    Args:
        order_id: The number of the order, such as O-1024.
    """
    order = _order(order_id)
    if order["books"] == "closed":
        message = f"ledger is closed for {order['ordered_on'][:4]}"
        raise LedgerClosedError(message)
    cents = sum(item["quantity"] * item["price_cents"] for item in order["items"])
    return {"order_id": order_id, "refund_cents": cents, "currency": "EUR"}


def _order(order_id: str) -> dict[str, Any]:
    if order_id not in _ORDERS:
        message = f"There is no order {order_id}."
        raise LookupError(message)
    return _ORDERS[order_id]
