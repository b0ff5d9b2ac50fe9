"""An agent: a model is asked, uses a tool, and is asked again, until it has an answer.

    python examples/agent.py [CHAT]

Every turn is committed before the next one begins. Kill the program in the middle and run it again:
the conversation goes on at the turn it was in, and the turns before are not paid for twice. Every
CHAT is an instance of its own; without a name it is `chat-1`. They live in `sayiir.db`, or where
`SAYIIR_DATABASE_URL` says. The model is scripted, so that this needs no network and no key; put
a real one in the place of `model`.
"""

import asyncio
import os
import sys
from collections.abc import Callable
from typing import Any, NotRequired, TypedDict

from sayiir import Flow, LoopResult, RetryPolicy, Worker, WorkflowClient, WorkflowFailed, task

PACE = float(
    os.environ.get("PACE", "0.5")
)  # Seconds for a turn of the model: time to kill the program.
PATIENCE = RetryPolicy(max_retries=4, initial_delay_secs=0.5, max_delay_secs=60, jitter=0.2)


class Message(TypedDict):
    """One message of the conversation."""

    role: str
    text: str
    tool: NotRequired[str]
    argument: NotRequired[Any]


SCRIPT: list[Message] = [
    {"role": "model", "text": "I look at the weather.", "tool": "weather", "argument": "Oslo"},
    {"role": "model", "text": "Now I count.", "tool": "add", "argument": [4, 38]},
    {"role": "model", "text": "I try a tool that I made up.", "tool": "guess", "argument": 1},
    {"role": "model", "text": "Take a coat; and the sum is 42."},
]
TOOLS: dict[str, Callable[[Any], object]] = {
    "weather": lambda place: f"snow in {place}",
    "add": lambda numbers: sum(numbers),
}


async def model(messages: list[Message]) -> Message:
    """The next message: of the script here, of a provider in a program of yours."""
    turn = sum(message["role"] == "model" for message in messages)
    print(f"paying for turn {turn + 1}", flush=True)
    await asyncio.sleep(PACE)
    return SCRIPT[turn]


@task
def begin(question: str) -> list[Message]:
    """Open the conversation."""
    return [{"role": "user", "text": question}]


@task(retries=PATIENCE, timeout="60s")
async def think(messages: list[Message]) -> list[Message]:
    """Ask the model; a provider that is busy or silent is asked again."""
    return [*messages, await model(messages)]


@task(timeout="30s")
def act(messages: list[Message]) -> LoopResult[list[Message]]:
    """Use the tool that the model asks for, or end the loop with its answer."""
    last = messages[-1]
    if "tool" not in last:
        return LoopResult.done(messages)
    tool = TOOLS.get(last["tool"])
    # What the model got wrong is for the model to know; what is our fault would be raised.
    text = f"there is no tool {last['tool']!r}" if tool is None else str(tool(last["argument"]))
    return LoopResult.again([*messages, {"role": "tool", "text": text}])


# Whatever the model wants, twenty turns are the most that it gets.
workflow = Flow("agent").then(begin).loop(think, act, max_iterations=20, name="turn").build()


async def converse(chat: str, question: str) -> list[Message]:
    """Begin the conversation, or go on with it, until the model has an answer."""
    async with (
        WorkflowClient.from_url(conflict_policy="use_existing") as client,
        # Short, so that whoever goes on after a kill need not wait the usual 30 s.
        Worker(client.backend, workflow, lease_ttl="1s"),
    ):
        handle = await client.submit(workflow, chat, question)
        messages: list[Message] = await handle.result(timeout="10m")
        return messages


def main() -> int:
    """Hold one conversation and print it."""
    chat = sys.argv[1] if len(sys.argv) > 1 else "chat-1"
    try:
        messages = asyncio.run(converse(chat, "What shall I wear in Oslo, and what is 4 + 38?"))
    except WorkflowFailed as failure:
        print(f"{chat} failed: {failure}")
        return 1
    for message in messages:
        print(f"{message['role']:>5}: {message['text']}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
