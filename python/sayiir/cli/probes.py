"""What `sayiir worker --http` answers: `/healthz`, `/readyz` and `/metrics`.

Promises that `/healthz` fails only when a restart would help, that `/readyz` fails from the moment
a worker was told to stop, and that nothing secret is in any answer: of an error only its kind. For
several processes their parent asks each and answers for all. How answers reach whoever asks is in
`health`.
"""

import asyncio
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sayiir import Worker, _clock
from sayiir.cli.health import Address, Answer, HealthServer, Page, text_answer
from sayiir.cli.session import Refused

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry, Metric

__all__ = ["Pulse", "family_pages", "serving_pages", "worker_pages"]

BEAT_S = 0.5
"""How often the loop leaves its mark."""
STALLED_S = 30.0
"""A loop that has not turned for so long is given up: something holds it that does not end."""
ASK_S = 5.0
"""How often the backend is asked whether it answers, and how long it may take."""
SILENT_S = 15.0
"""A backend that has not answered for so long is out of reach."""
CHILD_S = 2.0
"""How long a child may take to answer its parent."""
NO_METRICS = (
    "there are no metrics: the package prometheus-client is not installed; "
    'pip install "sayiir[prometheus]"'
)
_log = logging.getLogger("sayiir.cli")


def serving_pages(pages: Mapping[str, Page], address: Address) -> HealthServer:
    """A server of these pages that has begun.

    Raises:
        Refused: It cannot listen there.
    """
    server = HealthServer(pages)
    try:
        where = server.start(address)
    except OSError as failure:
        raise Refused(
            f"--http: cannot listen on {address}: {failure.strerror or failure}", "OSError"
        ) from failure
    if address.path is None:
        _log.info("http: answering on %s", where)
    return server


class Pulse:
    """Signs of life of one worker: its loop leaves them, whatever thread asks reads them.

    Args:
        worker: Whose.
        draining: Whether it was told to stop.
    """

    def __init__(self, worker: Worker, draining: Callable[[], bool]) -> None:
        self._worker = worker
        self._draining = draining
        self._turned = _clock.monotonic()
        self._reached: float | None = None
        self._trouble = ""
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """Begin to leave signs, on the worker's loop."""
        loop = asyncio.get_running_loop()
        self._turned = _clock.monotonic()
        self._tasks = [loop.create_task(self._beat()), loop.create_task(self._ask())]

    def close(self) -> None:
        """Leave no more."""
        for task in self._tasks:
            task.cancel()

    async def _beat(self) -> None:
        while True:
            self._turned = _clock.monotonic()
            await asyncio.sleep(BEAT_S)

    async def _ask(self) -> None:
        while True:
            try:
                async with asyncio.timeout(ASK_S):
                    await self._worker.backend.next_wake()
                self._reached, self._trouble = _clock.monotonic(), ""
            except Exception as failure:
                self._trouble = f" ({type(failure).__name__})"
            await asyncio.sleep(ASK_S if self._reached is not None else BEAT_S)

    def illness(self) -> str | None:
        """Why a restart would help, if it would."""
        still = _clock.monotonic() - self._turned
        if still > STALLED_S:
            return (
                f"the event loop has not turned for {still:.0f} s; a task blocks it, "
                "and the log says which"
            )
        return None

    def unreadiness(self) -> str | None:
        """Why it does not take work, if it does not."""
        if self._draining():
            return "draining"
        if (ill := self.illness()) is not None:
            return ill
        if not self._worker.running:
            return "starting"
        if self._reached is None:
            return f"the backend has not answered yet{self._trouble}"
        silent = _clock.monotonic() - self._reached
        if silent > SILENT_S:
            return f"the backend has not answered for {silent:.0f} s{self._trouble}"
        return None

    @property
    def registry(self) -> "CollectorRegistry | None":
        """Where the worker's metrics are, if it has any."""
        return None if self._worker.metrics is None else self._worker.metrics.registry


def worker_pages(pulse: Pulse) -> dict[str, Page]:
    """The pages of one worker."""

    async def healthz(_headers: Mapping[str, str]) -> Answer:
        return _verdict(pulse.illness())

    async def readyz(_headers: Mapping[str, str]) -> Answer:
        return _verdict(pulse.unreadiness())

    async def metrics(headers: Mapping[str, str]) -> Answer:
        if pulse.registry is None:
            return text_answer(404, NO_METRICS)
        # Collectors of the user's program are asked too, and may take their time.
        return await asyncio.to_thread(_exposed, pulse.registry, headers.get("accept", ""))

    return {"/healthz": healthz, "/readyz": readyz, "/metrics": metrics}


def family_pages(children: Sequence[Path], draining: Callable[[], bool]) -> dict[str, Page]:
    """The pages of several processes, each of which answers on a socket of its own.

    It is healthy if no child that answers is ill: one that is not there is started again anyway.
    It is ready if one of them is. Its metrics are those of all, with a label `process`.
    """

    async def asked(target: str) -> list[Answer | None]:
        return await asyncio.gather(*(_child_says(child, target) for child in children))

    async def healthz(_headers: Mapping[str, str]) -> Answer:
        answers = await asked("/healthz")
        ill = any(answer is not None and answer.status != 200 for answer in answers)
        return text_answer(503 if ill else 200, _lines(answers))

    async def readyz(_headers: Mapping[str, str]) -> Answer:
        if draining():
            return text_answer(503, "draining")
        answers = await asked("/readyz")
        ready = any(answer is not None and answer.status == 200 for answer in answers)
        return text_answer(200 if ready else 503, _lines(answers))

    async def metrics(headers: Mapping[str, str]) -> Answer:
        answers = await asked("/metrics")
        said = {
            str(number): answer.body.decode()
            for number, answer in enumerate(answers, 1)
            if answer is not None and answer.status == 200
        }
        if not said and any(answer is not None and answer.status == 404 for answer in answers):
            return text_answer(404, NO_METRICS)
        return await asyncio.to_thread(_merged, said, headers.get("accept", ""))

    return {"/healthz": healthz, "/readyz": readyz, "/metrics": metrics}


def _verdict(trouble: str | None) -> Answer:
    return text_answer(200, "ok") if trouble is None else text_answer(503, trouble)


def _lines(answers: Sequence[Answer | None]) -> str:
    said = [
        "is not there (yet)" if answer is None else answer.body.decode().strip()
        for answer in answers
    ]
    return "\n".join(f"process {number}: {words}" for number, words in enumerate(said, 1))


async def _child_says(path: Path, target: str) -> Answer | None:
    """What a child answers; `None` if there is no child."""
    try:
        async with asyncio.timeout(CHILD_S):
            reader, writer = await asyncio.open_unix_connection(str(path))
            try:
                writer.write(f"GET {target} HTTP/1.1\r\nHost: child\r\n\r\n".encode())
                said = await reader.read()
            finally:
                writer.transport.abort()
    except TimeoutError:
        return text_answer(503, f"does not answer within {CHILD_S:g} s")
    except OSError:
        return None
    head, _, body = said.partition(b"\r\n\r\n")
    with suppress(ValueError, IndexError):
        return Answer(int(head.split(b" ", 2)[1]), body)
    # It ended while it answered.
    return None


def _exposed(registry: "CollectorRegistry", accept: str) -> Answer:
    from prometheus_client.exposition import choose_encoder

    encode, kind = choose_encoder(accept)
    return Answer(200, encode(registry), kind)


class _Family:
    """A collector of what several processes said."""

    def __init__(self, said: Mapping[str, str]) -> None:
        self._said = said

    def collect(self) -> "Iterator[Metric]":
        from prometheus_client.parser import text_string_to_metric_families

        merged: dict[str, Any] = {}
        for process, text in self._said.items():
            for family in text_string_to_metric_families(text):
                samples = [
                    sample._replace(labels={**sample.labels, "process": process})
                    for sample in family.samples
                ]
                known = merged.setdefault(family.name, family)
                known.samples = samples if known is family else [*known.samples, *samples]
        yield from merged.values()


def _merged(said: Mapping[str, str], accept: str) -> Answer:
    from prometheus_client import CollectorRegistry

    registry = CollectorRegistry()
    registry.register(_Family(said))
    return _exposed(registry, accept)
