"""Tasks: what the decorator accepts and refuses, and how the engine is told to call a function."""

import asyncio
import functools
import inspect
import math
import os
import pickle
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextvars import copy_context
from dataclasses import FrozenInstanceError, dataclass, field
from datetime import timedelta
from typing import Any

import pytest

from sayiir import (
    Flow,
    NonRetryable,
    RetryAfter,
    RetryPolicy,
    TaskContext,
    TaskExecutionContext,
    TaskMetadata,
    get_task_context,
    task,
)
from sayiir._context import current
from sayiir._task import (
    MODE_ASYNC,
    MODE_INLINE,
    MODE_PROCESS,
    MODE_THREAD,
    TaskDef,
    define_task,
    task_metadata,
)


def define(fn: Any, name: str | None = None) -> TaskDef:
    return define_task(fn, where="flow 'f'", name=name)


@task(run_in="process")
def in_process(x: int) -> int:
    return x + 1


@task(run_in="process")
def in_process_without_input() -> str:
    return "made"


@task("renamed", timeout="1m", retries=2, tags=["b", "a"], priority=1)
def renamed(x: int) -> int:
    """Adds one."""
    return x + 1


def library_function(x: int) -> int:
    return x


class TestDecorator:
    def test_bare(self) -> None:
        @task
        def add(x: int) -> int:
            return x + 1

        assert add(1) == 2
        assert task_metadata(add) == TaskMetadata("add")

    def test_with_a_name(self) -> None:
        @task("add-one", timeout=3)
        def add(x: int) -> int:
            return x + 1

        assert add(1) == 2
        assert task_metadata(add) == TaskMetadata("add-one", timeout_secs=3.0)

    def test_with_keywords(self) -> None:
        @task(
            name="n",
            timeout=timedelta(seconds=2),
            retries=3,
            tags=("gpu", "eu", "gpu"),
            priority=5,
            description="d",
            version="1",
            run_in="inline",
        )
        def add(x: int) -> int:
            return x + 1

        assert task_metadata(add) == TaskMetadata(
            "n", 2.0, RetryPolicy(3, 1.0, 2.0), ("gpu", "eu"), 5, "d", "1", "inline"
        )
        assert task_metadata(add).display_name == "n"

    def test_empty_call(self) -> None:
        @task()
        def add(x: int) -> int:
            return x + 1

        assert task_metadata(add).name == "add"

    def test_called_on_a_function(self) -> None:
        quick = task(library_function, name="quick", timeout=1)
        assert quick(3) == 3
        assert task_metadata(quick).name == "quick"

    def test_async_def_stays_one(self) -> None:
        @task
        async def add(x: int) -> int:
            return x + 1

        assert inspect.iscoroutinefunction(add)
        assert asyncio.run(add(1)) == 2

    def test_it_stays_the_function_it_was(self) -> None:
        assert renamed.__name__ == "renamed"
        assert renamed.__doc__ == "Adds one."
        assert str(inspect.signature(renamed)) == "(x: int) -> int"
        assert pickle.loads(pickle.dumps(renamed)) is renamed

    def test_one_function_may_become_two_tasks(self) -> None:
        def original(x: int, *, by: int = 1) -> int:
            """Adds."""
            return x + by

        first = task(name="first")(original)
        second = task(name="second", timeout=5)(original)
        assert (task_metadata(first).name, task_metadata(second).name) == ("first", "second")
        assert first(1) == second(1) == 2
        assert second(1, by=4) == 5
        assert second.__doc__ == "Adds."
        assert not hasattr(second, "__wrapped__")

    def test_methods_may_be_decorated(self) -> None:
        class Service:
            factor = 3

            @task("times", timeout=1)
            def times(self, x: int) -> int:
                return x * self.factor

            @staticmethod
            @task
            def twice(x: int) -> int:
                return x * 2

        assert Service().times(2) == 6
        assert Service.twice(2) == 4
        defined = define(Service().times)
        assert (defined.name, defined.timeout, defined.fn(2)) == ("times", 1.0, 6)

    def test_partials_may_be_decorated(self) -> None:
        half = functools.partial(pow, exp=0.5)
        assert task_metadata(task(name="root")(half)).name == "root"

    @pytest.mark.parametrize("thing", [3, None.__class__, int, [], staticmethod(len)])
    def test_what_is_no_function_is_refused(self, thing: Any) -> None:
        with pytest.raises(TypeError, match="@task"):
            task(name="x")(thing)

    def test_what_cannot_be_marked_is_refused_with_a_way_out(self) -> None:
        with pytest.raises(TypeError, match="give it to the flow as it is"):
            task(name="x")(len)

    @pytest.mark.parametrize(
        ("options", "word"),
        [
            ({"timeout": 0}, "timeout"),
            ({"timeout": -1}, "timeout"),
            ({"timeout": "soon"}, "timeout"),
            ({"timeout": math.nan}, "timeout"),
            ({"timeout": math.inf}, "timeout"),
            ({"timeout": 1e300}, "timeout"),
            ({"timeout": 1e18}, "timeout"),
            ({"timeout_secs": 0}, "timeout"),
            ({"timeout": 1, "timeout_secs": 1}, "timeout"),
            ({"retries": -1}, "retries"),
            ({"retries": 10**30}, "retries"),
            ({"priority": 0}, "priority"),
            ({"priority": 6}, "priority"),
            ({"priority": 99}, "priority"),
            ({"tags": [""]}, "tag"),
            ({"tags": ["  "]}, "tag"),
            ({"tags": ["x" * 65]}, "tag"),
            ({"tags": [f"t{n}" for n in range(21)]}, "tags"),
            ({"run_in": "gpu"}, "run_in"),
            ({"name": ""}, "name"),
            ({"version": ""}, "version"),
            ({"description": "x" * 10_001}, "description"),
        ],
        ids=lambda value: str(value)[:40],
    )
    def test_values_out_of_range(self, options: dict[str, Any], word: str) -> None:
        with pytest.raises(ValueError, match=word):
            task(**options)

    @pytest.mark.parametrize(
        ("options", "word"),
        [
            ({"timeout": True}, "timeout"),
            ({"timeout": [1]}, "timeout"),
            ({"retries": True}, "retries"),
            ({"retries": 1.5}, "retries"),
            ({"retries": "3"}, "retries"),
            ({"retries": {"max_retries": 1}}, "retries"),
            ({"priority": True}, "priority"),
            ({"priority": 2.0}, "priority"),
            ({"priority": "1"}, "priority"),
            ({"tags": "gpu"}, "tags"),
            ({"tags": [1]}, "tags"),
            ({"tags": 3}, "tags"),
            ({"description": 1}, "description"),
            ({"version": 1}, "version"),
            ({"name": 1}, "name"),
        ],
        ids=lambda value: str(value)[:40],
    )
    def test_values_of_another_kind(self, options: dict[str, Any], word: str) -> None:
        with pytest.raises(TypeError, match=word):
            task(**options)

    def test_limits_from_the_inside(self) -> None:
        tags = [f"{n:064d}" for n in range(20)]
        options = task(tags=tags, priority=1, retries=0, name="n" * 256, description="x" * 10_000)
        said = task_metadata(options(lambda x: x))
        assert said.tags == tuple(tags)
        assert said.retries is not None
        assert said.retries.max_retries == 0

    def test_the_task_is_named_in_the_message(self) -> None:
        with pytest.raises(ValueError, match=r"^task 'charge': priority must be"):
            task("charge", priority=9)

    def test_two_names_are_refused(self) -> None:
        with pytest.raises(ValueError, match="two names"):
            task("a", name="b")


class TestNames:
    @pytest.mark.parametrize(
        "name",
        [
            "x" * 256,
            "é" * 128,
            "'; DROP TABLE x; --",
            "😀",
            "\u200fabc",
            "%_..",
            "a b",
            "<b>",
            "a/b",
        ],
    )
    def test_accepted_unchanged(self, name: str) -> None:
        assert define(library_function, name).name == name

    @pytest.mark.parametrize(
        "name",
        [
            "",
            " ",
            "\u2003",
            "\t",
            "a\0b",
            "a\x7f",
            "a\x85b",
            "x" * 257,
            "é" * 129,
            "x" * 1_000_000,
            "\ud800",
        ],
        ids=lambda name: ascii(name)[:20],
    )
    def test_refused(self, name: str) -> None:
        with pytest.raises(ValueError, match="task name") as caught:
            define(library_function, name)
        assert len(str(caught.value)) < 300

    @pytest.mark.parametrize("name", [1, b"x", ["x"]])
    def test_of_another_kind(self, name: Any) -> None:
        with pytest.raises(TypeError, match="task name must be a str"):
            define(library_function, name)


class TestRetryPolicy:
    def test_defaults(self) -> None:
        policy = RetryPolicy()
        assert policy == RetryPolicy(2, 1.0, 2.0, None, 0.0, (Exception,), ())
        with pytest.raises(FrozenInstanceError):
            policy.max_retries = 3  # type: ignore[misc]

    def test_numbers_are_normalised(self) -> None:
        policy = RetryPolicy(0, 0, 1, max_delay_secs=5, jitter=1)
        assert [type(n) for n in (policy.initial_delay_secs, policy.max_delay_secs)] == [float] * 2
        assert RetryPolicy(retry_on=OSError).retry_on == (OSError,)  # type: ignore[arg-type]
        assert pickle.loads(pickle.dumps(policy)) == policy

    @pytest.mark.parametrize(
        ("name", "value"),
        [
            ("max_retries", -1),
            ("max_retries", 10**12),
            ("initial_delay_secs", -1),
            ("initial_delay_secs", math.nan),
            ("initial_delay_secs", math.inf),
            ("initial_delay_secs", 1e18),
            ("backoff_multiplier", -0.5),
            ("backoff_multiplier", math.nan),
            ("backoff_multiplier", math.inf),
            ("backoff_multiplier", 10**400),
            ("max_delay_secs", -1),
            ("max_delay_secs", math.nan),
            ("jitter", -0.1),
            ("jitter", 1.1),
            ("jitter", math.nan),
        ],
    )
    def test_out_of_range(self, name: str, value: Any) -> None:
        with pytest.raises(ValueError, match=name):
            RetryPolicy(**{name: value})

    @pytest.mark.parametrize(
        ("name", "value"),
        [
            ("max_retries", 1.5),
            ("max_retries", True),
            ("initial_delay_secs", None),
            ("backoff_multiplier", "2"),
            ("backoff_multiplier", True),
            ("jitter", "0.5"),
            ("retry_on", "OSError"),
            ("retry_on", (OSError, "x")),
            ("retry_on", OSError()),
            ("give_up_on", int),
        ],
    )
    def test_of_another_kind(self, name: str, value: Any) -> None:
        with pytest.raises(TypeError, match=name):
            RetryPolicy(**{name: value})


class TestDefinition:
    @pytest.mark.parametrize(
        ("run_in", "mode"), [(None, MODE_THREAD), ("thread", MODE_THREAD), ("inline", MODE_INLINE)]
    )
    def test_where_a_def_runs(self, run_in: Any, mode: int) -> None:
        assert define(task(run_in=run_in)(lambda x: x), "n").mode == mode

    def test_where_the_others_run(self) -> None:
        async def work(x: int) -> int:
            return x

        class Awaited:
            async def __call__(self, x: int) -> int:
                return x

        class Plain:
            def __call__(self, x: int) -> int:
                return x

        for fn in (work, functools.partial(work), functools.partial(functools.partial(work))):
            assert define(fn).mode == MODE_ASYNC
        assert define(Awaited()).mode == MODE_ASYNC
        assert define(Awaited().__call__).mode == MODE_ASYNC
        assert define(functools.partial(Awaited())).mode == MODE_ASYNC
        assert define(Plain()).mode == MODE_THREAD
        assert define(Plain()).name == "Plain"
        assert define(in_process).mode == MODE_PROCESS

    @pytest.mark.parametrize("run_in", ["thread", "inline", "process"])
    def test_run_in_is_not_for_async_def(self, run_in: Any) -> None:
        async def work(x: int) -> int:
            return x

        with pytest.raises(ValueError, match=r"task 'work': run_in=.* is for def"):
            task(run_in=run_in)(work)

    def test_a_process_needs_a_function_it_can_import(self) -> None:
        def nested(x: int) -> int:
            return x

        with pytest.raises(ValueError, match="top level of a module"):
            task(run_in="process")(lambda x: x)
        with pytest.raises(ValueError, match="top level of a module"):
            task(run_in="process")(nested)
        with pytest.raises(ValueError, match="top level of a module"):
            task(run_in="process")(functools.partial(library_function))
        hidden = task(renamed, name="hidden", run_in="process")
        with pytest.raises(ValueError, match="under its own name"):
            define(hidden)

    def test_what_goes_to_a_process_can_be_pickled(self) -> None:
        assert pickle.loads(pickle.dumps(define(in_process).fn))(1) == 2
        assert pickle.loads(pickle.dumps(define(in_process_without_input).fn))("input") == "made"

    def test_one_argument_or_none(self) -> None:
        calls: list[tuple[Callable[..., Any], Any]] = [
            (lambda x: ("got", x), ("got", 7)),
            (lambda: "none", "none"),
            (lambda *, key=1: key, 1),
            (lambda **named: named, {}),
            (lambda x=1: x, 7),
            (lambda x, y=2: (x, y), (7, 2)),
            (lambda *args: args, (7,)),
            (lambda *args, **named: (args, named), ((7,), {})),
            (functools.partial(lambda a, b: (a, b), 1), (1, 7)),
            (functools.partial(lambda a, b: (a, b), b=1), (7, 1)),
            (functools.partial(lambda a: a, 1), 1),
            (str, "7"),
            (int.__neg__, -7),
            (float, 7.0),
            ([].append, None),
        ]
        for fn, output in calls:
            assert define(fn, "n").fn(7) == output
            assert define(fn, "n").original is fn

    def test_async_def_without_a_parameter(self) -> None:
        async def made() -> str:
            return "made"

        defined = define(made)
        assert defined.mode == MODE_ASYNC
        assert asyncio.run(defined.fn("input")) == "made"

    @pytest.mark.parametrize(
        "fn",
        [
            lambda a, b: None,
            lambda a, /, b: None,
            lambda a, *, key: None,
            lambda *, key: None,
            lambda a, b, *rest: None,
            functools.partial(lambda a, b, c: None, 1),
        ],
    )
    def test_more_arguments_are_refused(self, fn: Any) -> None:
        with pytest.raises(TypeError, match=r"flow 'f', task 'n': .* one argument.* requires"):
            define(fn, "n")

    def test_a_wrapper_that_supplies_an_argument_is_judged_by_itself(self) -> None:
        def with_session(fn: Callable[[str, int], Any]) -> Callable[[int], Any]:
            @functools.wraps(fn)
            def wrapper(x: int) -> Any:
                return fn("session", x)

            return wrapper

        @with_session
        def work(session: str, x: int) -> tuple[str, int]:
            return session, x

        assert define(work).fn(3) == ("session", 3)

    @pytest.mark.parametrize("thing", [3, None, "text", [], Flow("x")])
    def test_what_cannot_be_called_is_refused(self, thing: Any) -> None:
        with pytest.raises(TypeError, match="must be callable"):
            define(thing)

    def test_generators_are_refused(self) -> None:
        def numbers(n: int) -> Iterator[int]:
            yield n

        async def later(n: int) -> Any:
            yield n

        for fn in (numbers, later):
            with pytest.raises(TypeError, match="generator"):
                define(fn)

    def test_numbers_for_the_engine(self) -> None:
        defined = define(renamed)
        assert (defined.name, defined.timeout, defined.priority) == ("renamed", 60.0, 1)
        assert (defined.max_retries, defined.initial_delay, defined.multiplier) == (2, 1.0, 2.0)
        assert (defined.max_delay, defined.jitter, defined.tags) == (None, 0.0, ("b", "a"))
        plain = define(library_function)
        assert (plain.timeout, plain.max_retries, plain.tags, plain.priority) == (None, 0, (), 3)

    def test_another_name_changes_neither_task_nor_function(self) -> None:
        defined = define(renamed, "here")
        assert (defined.name, defined.metadata.name, defined.metadata.priority) == (
            "here",
            "here",
            1,
        )
        assert task_metadata(renamed).name == "renamed"

    def test_what_is_worth_another_attempt(self) -> None:
        policy = RetryPolicy(retry_on=(OSError,), give_up_on=(FileNotFoundError,))
        defined = define(task(retries=policy)(lambda x: x), "n")
        assert defined.is_retryable(ConnectionError())
        assert not defined.is_retryable(FileNotFoundError())
        assert not defined.is_retryable(ValueError())
        assert defined.is_retryable(RetryAfter(1))
        assert not defined.is_retryable(NonRetryable("no"))
        plain = define(library_function)
        assert plain.is_retryable(ValueError())
        assert not plain.is_retryable(KeyboardInterrupt())


@dataclass
class Step:
    """What the engine shows of a running step."""

    instance_id: str = "order-1"
    workflow_id: str = "order"
    path: str = "fork/left/renamed"
    attempt: int = 2
    deadline: float | None = 1_900_000_000.0
    task: TaskDef = field(default_factory=lambda: define(renamed))
    workflow_metadata: dict[str, Any] | None = field(default_factory=lambda: {"team": "a"})
    cancelled: bool = False


class TestContext:
    def test_outside_of_a_task_there_is_none(self) -> None:
        assert get_task_context() is None

    def test_what_it_shows(self) -> None:
        def inside() -> TaskContext | None:
            current.set(Step())
            return get_task_context()

        context = copy_context().run(inside)
        assert context is not None
        assert TaskExecutionContext is TaskContext
        assert (context.workflow_id, context.instance_id) == ("order", "order-1")
        assert (context.task_id, context.path) == ("renamed", "fork/left/renamed")
        assert (context.attempt, context.deadline) == (2, 1_900_000_000.0)
        assert context.metadata == task_metadata(renamed)
        assert context.workflow_metadata == {"team": "a"}
        assert context.cancelled is False
        assert get_task_context() is None

    def test_cancelled_is_looked_up_each_time(self) -> None:
        step = Step()
        context = TaskContext.of(step)
        step.cancelled = True
        assert context.cancelled is True

    def test_the_rest_stays_as_it_was(self) -> None:
        step = Step()
        context = TaskContext.of(step)
        step.path, step.attempt = "elsewhere", 9
        assert (context.path, context.attempt) == ("fork/left/renamed", 2)
        with pytest.raises(FrozenInstanceError):
            context.attempt = 3  # type: ignore[misc]

    def test_the_idempotency_key_is_the_same_for_every_attempt(self) -> None:
        keys = {TaskContext.of(Step(attempt=n)).idempotency_key for n in (1, 2, 3)}
        assert keys == {"order-1:fork/left/renamed"}
        assert TaskContext.of(Step(path="other")).idempotency_key not in keys

    def test_it_is_seen_in_threads_and_asyncio_tasks_started_inside(self) -> None:
        def path() -> str | None:
            context = get_task_context()
            return context.path if context else None

        async def inside() -> tuple[str | None, str | None]:
            current.set(Step())

            async def child() -> str | None:
                return path()

            return await asyncio.to_thread(path), await asyncio.create_task(child())

        assert asyncio.run(inside()) == ("fork/left/renamed", "fork/left/renamed")


def test_a_process_task_of_the_main_script_can_be_defined() -> None:
    code = (
        "from sayiir import Flow, task\n"
        "@task(run_in='process')\n"
        "def work(x): return x\n"
        "print(Flow('f').then(work).build().workflow_id)\n"
    )
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    run = subprocess.run(
        [sys.executable, "-c", code], env=env, capture_output=True, text=True, check=False
    )
    assert (run.stdout, run.returncode) == ("f\n", 0), run.stderr
