"""A process that forks children: each does one deed with a store, and may die of it.

Started once, it has everything loaded and no file open, so that a child is there within a few
milliseconds. Orders come as lines of JSON on standard input; for each, one line with the child's
wait status goes to standard output. What a child wants to say of a failure stands in a file.

Orders: `{"deed": …, "path": …, "log": …, "fail_at": …, "kill_after": …}`; the last two, if given,
are the fail point to die at, and the seconds after which the child is killed wherever it is. A deed
is one of those below, of files, or `module:function` of another store, whose module was named on
the command line and which is called with the path as it stands and the log.
"""

from __future__ import annotations

import asyncio
import importlib
import json
import os
import resource
import signal
import sys
import time
import traceback
from pathlib import Path
from typing import Any

from . import labour, picture, recovery, walk

PATIENCE_S = 30
"""A child that takes longer hangs, and dies by SIGALRM."""


def do(order: dict[str, Any]) -> None:
    """In the child: one deed."""
    path, log = Path(order["path"]), Path(order["log"])
    module, colon, function = order["deed"].partition(":")
    if colon:
        getattr(sys.modules[module], function)(order["path"], log)
        return
    match order["deed"]:
        case "prepare":
            asyncio.run(walk.prepare(path))
        case "walk":
            asyncio.run(walk.walk(path, log))
        case "look":
            asyncio.run(walk.walk(path, log, lambda n: _keep(path, log.parent / str(n))))
        case "take_over":
            asyncio.run(walk.take_over(path))
        case "labour":
            asyncio.run(labour.labour(path, log))
        case "recover":
            asyncio.run(recovery.recover(path, log))
        case other:
            raise ValueError(other)


def _keep(path: Path, to: Path) -> None:
    picture.copy_store(path, to)


def main() -> None:
    """Take orders until there are no more."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    for module in sys.argv[1:]:
        importlib.import_module(module)
    for line in sys.stdin:
        order = json.loads(line)
        child = os.fork()
        if child == 0:
            signal.alarm(PATIENCE_S)
            os.environ.pop("SAYIIR_FAIL_AT", None)
            if order.get("fail_at"):
                os.environ["SAYIIR_FAIL_AT"] = order["fail_at"]
            try:
                do(order)
            except BaseException:
                Path(f"{order['log']}.err").write_text(traceback.format_exc())
                os._exit(1)
            os._exit(0)
        if (kill_after := order.get("kill_after")) is not None:
            time.sleep(kill_after)  # A random moment is what is asked for.
            os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        sys.stdout.write(f"{status}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
