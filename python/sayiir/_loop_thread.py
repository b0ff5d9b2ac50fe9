"""An event loop on a thread of its own, for callers that have none.

It runs coroutines for any number of threads and lets an interrupted caller take its call back. What
the coroutines do is not known here.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import weakref
from collections.abc import Callable, Coroutine
from concurrent.futures import CancelledError
from typing import Any, ParamSpec, TypeVar

__all__ = ["LoopThread"]

P = ParamSpec("P")
T = TypeVar("T")

_LONGEST_FAREWELL_S = 5.0


class LoopThread:
    """A daemon thread with a loop. It ends with `close`, or when nobody holds this object any more.

    >>> thread = LoopThread("example")
    >>> thread.run(asyncio.sleep, 0, "done")
    'done'
    >>> thread.close()
    """

    __slots__ = ("__weakref__", "_close", "_loop")

    def __init__(self, name: str) -> None:
        self._loop = asyncio.new_event_loop()
        # The thread knows the loop alone, so that it does not keep this object alive.
        thread = threading.Thread(target=_serve, args=(self._loop,), name=name, daemon=True)
        thread.start()
        self._close = weakref.finalize(self, _end, self._loop, thread)

    @property
    def closed(self) -> bool:
        """Whether it was ended."""
        return not self._close.alive

    def run(
        self, call: Callable[P, Coroutine[Any, Any, T]], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Call an async function on the loop and wait for what it returns or raises.

        When the wait is interrupted (`KeyboardInterrupt`), the call is cancelled.

        Raises:
            RuntimeError: It is closed, or was closed while the call was under way.
        """
        if self.closed:
            raise RuntimeError("this client is closed; make a new one")
        future = None
        task: asyncio.Task[Any] | None = None
        taken_back = False

        async def called() -> T:
            nonlocal task
            task = asyncio.current_task()
            if taken_back:
                raise asyncio.CancelledError
            return await call(*args, **kwargs)

        def take_back() -> None:
            nonlocal taken_back
            taken_back = True
            if task is not None:
                task.cancel()

        try:
            future = asyncio.run_coroutine_threadsafe(called(), self._loop)
            return future.result()
        except CancelledError:
            raise RuntimeError("the client was closed while the call was under way") from None
        finally:
            if future is not None:
                # Of no effect on a call that has ended; an interrupted one ends with this.
                future.cancel()
            else:
                # Interrupted while it was handed over, and maybe after that: this comes behind it.
                with contextlib.suppress(RuntimeError):
                    self._loop.call_soon_threadsafe(take_back)

    def close(self) -> None:
        """End the thread; calls under way are cancelled. Closing twice is fine."""
        self._close()


def _serve(loop: asyncio.AbstractEventLoop) -> None:
    """The thread's life."""
    asyncio.set_event_loop(loop)
    try:
        loop.run_forever()
        tasks = asyncio.all_tasks(loop)
        for task in tasks:
            task.cancel()
        loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
        loop.run_until_complete(loop.shutdown_asyncgens())
    finally:
        asyncio.set_event_loop(None)
        loop.close()


def _end(loop: asyncio.AbstractEventLoop, thread: threading.Thread) -> None:
    """Stop the loop and see the thread off."""
    loop.call_soon_threadsafe(loop.stop)
    # The last reference may be dropped on the thread itself, which cannot wait for its own end.
    if thread is not threading.current_thread():
        thread.join(_LONGEST_FAREWELL_S)
