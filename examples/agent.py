"""An agent: a model is asked, uses a tool, and is asked again, until it has an answer.

Every turn is committed, so after a crash the conversation goes on where it was and no call to the
model is paid twice. The model is scripted here; put a real one in its place. Run it:
`python examples/agent.py`.
"""

import asyncio
from collections.abc import Callable
from typing import Any

from sayiir import Flow, InMemoryBackend, LoopResult, Worker, WorkflowClient, task

Message = dict[str, Any]

SCRIPT: list[Message] = [
    {"role": "model", "tool": "weather", "argument": "Oslo"},
    {"role": "model", "tool": "add", "argument": [4, 38]},
    {"role": "model", "text": "Take a coat; and the sum is 42."},
]
TOOLS: dict[str, Callable[[Any], Any]] = {
    "weather": lambda place: f"snow in {place}",
    "add": lambda numbers: sum(numbers),
}


@task
def ask(question: str) -> list[Message]:
    """Open the conversation."""
    return [{"role": "user", "text": question}]


@task(retries=5, timeout="60s")
async def think(messages: list[Message]) -> list[Message]:
    """Ask the model for its next message."""
    turn = sum(message["role"] == "model" for message in messages)
    await asyncio.sleep(0)
    return [*messages, SCRIPT[turn]]


@task
def act(messages: list[Message]) -> LoopResult[list[Message]]:
    """Use the tool that the model asks for, or end the loop with its answer."""
    last = messages[-1]
    if "tool" not in last:
        return LoopResult.done(messages)
    outcome = TOOLS[last["tool"]](last["argument"])
    return LoopResult.again([*messages, {"role": "tool", "text": outcome}])


@task
def answer(messages: list[Message]) -> str:
    """What the user is told."""
    return str(messages[-1]["text"])


workflow = Flow("agent").then(ask).loop(think, act, max_iterations=20).then(answer).build()


async def main() -> str:
    """Hold one conversation."""
    backend = InMemoryBackend()
    async with Worker(backend, workflow), WorkflowClient(backend) as client:
        handle = await client.submit(workflow, "chat-1", "What to wear, and what is 4 + 38?")
        reply = await handle.result(timeout="30s")
        print(f"{len(await client.history('chat-1'))} steps were committed")
    return reply


if __name__ == "__main__":
    print(asyncio.run(main()))
