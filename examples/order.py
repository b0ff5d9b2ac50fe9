"""An order: a payment that is tried again, and a person who must approve it.

The workflow stops at `wait_for_event` for as long as it takes, without a thread, a process or a
connection. Run it: `python examples/order.py`.
"""

import asyncio
from typing import TypedDict

from sayiir import (
    Flow,
    InMemoryBackend,
    RetryPolicy,
    Worker,
    WorkflowClient,
    get_task_context,
    task,
)


class Order(TypedDict):
    """What a customer wants."""

    item: str
    amount: int


class Receipt(TypedDict):
    """What was paid, and by which attempt."""

    item: str
    paid: int
    attempt: int


@task(retries=RetryPolicy(max_retries=3, initial_delay_secs=0.05), timeout="10s")
async def charge(order: Order) -> Receipt:
    """Take the money; the bank is out for the first two attempts."""
    context = get_task_context()
    assert context is not None
    if context.attempt < 3:
        raise ConnectionError("the bank does not answer")
    # With this key the bank takes the money once, however often it is asked.
    print(f"charged {order['amount']} under the key {context.idempotency_key}")
    return {"item": order["item"], "paid": order["amount"], "attempt": context.attempt}


@task
def ship(approval: dict[str, str]) -> str:
    """Send the parcel."""
    return f"shipped, approved by {approval['by']}"


workflow = Flow("order").then(charge).wait_for_event("approved", timeout="7d").then(ship).build()


async def main() -> str:
    """Submit an order, approve it, and wait for its end."""
    backend = InMemoryBackend()
    async with Worker(backend, workflow), WorkflowClient(backend) as client:
        lamp: Order = {"item": "a lamp", "amount": 30}
        handle = await client.submit(workflow, "order-42", lamp)
        # An event is kept until the workflow asks for it, so it may well come early.
        await client.send_event("order-42", "approved", {"by": "Ann"})
        outcome = await handle.result(timeout="30s")
        for step in await client.history("order-42"):
            print(f"{step.path}, attempt {step.attempt}: {step.outcome}")
    return outcome


if __name__ == "__main__":
    print(asyncio.run(main()))
