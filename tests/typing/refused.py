"""Programs a type checker must refuse: every line that ends in `# refused`, and no other."""

from typing import Any

from sayiir import Flow, LoopResult, RetryPolicy, Workflow, task


@task
def length(text: str) -> int:
    return len(text)


@task
async def halve(number: int) -> float:
    return number / 2


@task
def words(text: str) -> list[str]:
    return text.split()


@task
def merge(results: dict[str, Any]) -> bool:
    return bool(results)


@task
def two(a: int, b: int) -> int:
    return a + b


@task
def refine(draft: str) -> LoopResult[str]:
    return LoopResult.done(draft)


built = Flow("built").then(length).build()

# A step that does not take what the one before gives.
Flow("x").then(length).then(length)  # refused
Flow("x").then(halve).then(halve)  # refused
Flow("x").then(length).then_flow(built)  # refused
Flow("x").then(length).then(built)  # refused
Flow("x").then(length).delay("d", 1).then(words)  # refused
Flow("x").loop(refine).then(halve)  # refused

# A branch, an arm, a loop body or a map body that does not.
Flow("x").then(length).fork().branch(words)  # refused
Flow("x").then(length).fork().branch(built)  # refused
Flow("x").then(length).route(str, keys=["a"]).branch("a", words)  # refused
Flow("x").then(length).route(words, keys=["a"])  # refused
Flow("x").then(length).loop(refine)  # refused
Flow("x").then(words).map(halve)  # refused
Flow("x").then(words).map(Flow("y").then(halve).build())  # refused

# What a node needs of its steps.
Flow("x").then(length).map(halve)  # refused
Flow("x").loop(length)  # refused
Flow("x").then(words).loop(words)  # refused
Flow("x").fork().branch(length).join(halve)  # refused
Flow("x").route(length, keys=["a"])  # refused
Flow("x").fork().branch(merge).then(length)  # refused

# Things that are no steps, and words that are no choices.
Flow("x").then(3)  # refused
Flow("x").then(two)  # refused
Flow("x").then_flow(length)  # refused
Flow("x").map(length, on_error="ignore")  # refused
Flow("x").map(length, concurrency="4")  # refused
Flow("x").loop(refine, on_max="stop")  # refused
Flow("x").wait_for_event("e", on_timeout="ignore")  # refused
Flow("x").delay("d", None)  # refused
Flow(3)  # refused
task(run_in="gpu")  # refused
task(retries="3")  # refused
RetryPolicy(max_retries="3")  # refused

# Calling a decorated function wrongly, or taking one workflow for another.
length(3)  # refused
wrong: Workflow[int, int] = built  # refused
