"""An order: a person who has to approve it, and a payment that is tried again.

    python examples/order.py [ORDER]

It asks you whether the order may go out. Kill it (Ctrl-C, or `kill -9`) at the question, or while
it tries the bank, and run it again: it goes on where it was, asks only what was not answered, and
nobody pays twice. Every ORDER is an instance of its own; without a name it is `order-42`. They
live in `sayiir.db`, or where `SAYIIR_DATABASE_URL` says. The bank keeps its book in `bank.txt`,
because a bank outlives our crashes.
"""

import sys
from pathlib import Path
from typing import Any, TypedDict

from sayiir import (
    Flow,
    RetryPolicy,
    SyncWorkflowClient,
    TaskContext,
    Worker,
    WorkflowFailed,
    task,
)

TRIES = RetryPolicy(max_retries=5, initial_delay_secs=0.1, retry_on=(ConnectionError,))


class Order(TypedDict):
    """What a customer wants, and who let it through."""

    item: str
    amount: int
    approved_by: str | None


def bank(key: str, amount: int) -> str:
    """Take the money, once for each key, as payment services do; the receipt."""
    book = Path("bank.txt")
    entry = f"{key} {amount}"
    known = book.read_text(encoding="utf-8").splitlines() if book.exists() else []
    if entry not in known:
        with book.open("a", encoding="utf-8") as pen:
            pen.write(f"{entry}\n")
        known.append(entry)
    return f"receipt {known.index(entry) + 1}"


@task(description="The order as it is: a wait passes on its event, so a branch beside it keeps it.")
def keep(order: Order) -> Order:
    """Pass the order on to the join."""
    return order


@task
def sign(both: dict[str, Any]) -> Order:
    """Put the order and the answer together."""
    order: Order = both["order"]
    answer: dict[str, Any] = both["approval"]
    return {**order, "approved_by": answer["by"] if answer["yes"] else None}


def verdict(order: Order) -> str:
    """Which way the order goes."""
    return "declined" if order["approved_by"] is None else "approved"


@task(retries=TRIES, timeout="10s")
def charge(order: Order) -> str:
    """Take the money. This bank is always out for the first two attempts."""
    context = TaskContext.current()
    print(f"charging {order['amount']}, attempt {context.attempt}", flush=True)
    if context.attempt < 3:
        raise ConnectionError("the bank does not answer")
    # We may die after the bank has booked and before that is checkpointed; then this runs again,
    # with the same key.
    return bank(context.idempotency_key, order["amount"])


@task
def ship(receipt: str) -> str:
    """Send the parcel."""
    return f"shipped, {receipt}"


@task
def decline(order: Order) -> str:
    """Tell the customer."""
    return f"no {order['item']} today"


# The wait costs nothing: no thread, no process, no connection, for up to a week.
approval = Flow("approval").wait_for_event("approved", timeout="7d").build()
workflow = (
    Flow("order")
    .fork()
    .branch(keep, name="order")
    .branch(approval, name="approval")
    .join(sign)
    .route(verdict, keys=["approved", "declined"])
    .branch("approved", charge, ship)
    .branch("declined", decline)
    .done()
    .build()
)


def main() -> int:
    """Submit the order or find it, ask for the approval if that is open, and wait for the end."""
    order_id = sys.argv[1] if len(sys.argv) > 1 else "order-42"
    lamp: Order = {"item": "lamp", "amount": 30, "approved_by": None}
    with SyncWorkflowClient.from_url(conflict_policy="use_existing") as client:
        # After a kill its work goes to the next worker when the lease is over, which is 30 s unless
        # one says otherwise. Short here, so that you need not wait.
        worker = Worker(client.backend, workflow, lease_ttl="1s").start()
        try:
            handle = client.submit(workflow, order_id, lamp)
            if client.get_task_result(order_id, "approved") is None:
                print(
                    f"{order_id}: a {lamp['item']} for {lamp['amount']}. Approve? [y/n] ",
                    flush=True,
                )
                answer = sys.stdin.readline().strip()
                if not answer:
                    print(f"{order_id} goes on waiting; run this again")
                    return 0
                # Sent twice, it counts once.
                approved = {"by": "you", "yes": answer.startswith("y")}
                handle.send_event("approved", approved, idempotency_key="answer")
            outcome = handle.result(timeout="60s")
        except WorkflowFailed as failure:
            print(f"{order_id} failed: {failure}")
            return 1
        finally:
            worker.stop()
    print(f"{order_id}: {outcome['branch']}, {outcome['result']}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
