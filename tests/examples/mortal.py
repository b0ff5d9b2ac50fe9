"""Runs an example whose process is killed at a chosen moment: after a deed, before its checkpoint.

    python tests/examples/mortal.py EXAMPLE FUNCTION CALL [ARGUMENT …]

The example runs as always, but when its FUNCTION has done its work for the CALL-th time the process
dies with SIGKILL, before anybody has heard of it. The moment is a place in the program and not one
in time, so it is the same on every machine. It knows of an example no more than that it has a
`main` and that FUNCTION is looked up in the module when it is called.
"""

import importlib
import inspect
import itertools
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

EXAMPLES = Path(__file__).resolve().parent.parent.parent / "examples"


def mortal(function: Callable[..., Any], last: int) -> Callable[..., Any]:
    """The function, whose `last` call is the last thing that the process does."""
    calls = itertools.count(1)

    def die_in_time() -> None:
        if next(calls) == last:
            sys.stdout.flush()
            os.kill(os.getpid(), signal.SIGKILL)

    async def awaited(*arguments: Any) -> Any:
        result = await function(*arguments)
        die_in_time()
        return result

    def called(*arguments: Any) -> Any:
        result = function(*arguments)
        die_in_time()
        return result

    return awaited if inspect.iscoroutinefunction(function) else called


def main() -> int:
    """Run the example that the command line names."""
    name, function, call, *arguments = sys.argv[1:]
    sys.path.insert(0, str(EXAMPLES))
    sys.argv = [f"{name}.py", *arguments]
    example = importlib.import_module(name)
    setattr(example, function, mortal(getattr(example, function), int(call)))
    code: int = example.main()
    return code


if __name__ == "__main__":
    sys.exit(main())
