"""`sayiir runs export` and `import`: an instance as a file, from one database to another.

Promises that a file that is there is not overwritten unasked, that only its owner can read what is
written, and that it is there whole or not at all. What is in it, the client knows.
"""

import os
import sys
import tempfile
from pathlib import Path

import click

from sayiir import WorkflowClient
from sayiir.cli.argument import read_bytes
from sayiir.cli.session import Refused, ask, json_option, reporting, url_option
from sayiir.cli.terminal import note, say, say_json

__all__ = ["export_command", "import_command"]


@click.command("export")
@click.argument("instance_id", metavar="ID")
@click.argument("file", metavar="FILE|-")
@click.option("--force", is_flag=True, help="Overwrite FILE if it is there.")
@url_option
@json_option
def export_command(
    instance_id: str, file: str, force: bool, url: str | None, as_json: bool
) -> None:
    """Write everything about an instance to FILE; it stays as it is and goes on.

    To move it, import the file elsewhere and cancel it here. The file holds its input, its results
    and its events as they are, so it is as secret as the database.
    """
    data = ask(url, as_json, lambda client: client.export(instance_id))
    if file == "-":
        if as_json:
            raise click.UsageError("--json and the bytes cannot both go to stdout; name a file")
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
        return
    with reporting(as_json):
        _write(Path(file), data, force)
    if as_json:
        say_json({"instance_id": instance_id, "file": file, "bytes": len(data)})
    else:
        say(f"{instance_id} is in {file} ({len(data):,} bytes)")


def _write(path: Path, data: bytes, force: bool) -> None:
    """The whole file, or none."""
    if path.exists() and not force:
        raise Refused(f"{path} is there already; use --force to overwrite it", "FileExistsError")
    try:
        # Of its kind, this file can be read by its owner alone.
        number, made = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            with os.fdopen(number, "wb") as out:
                out.write(data)
            Path(made).replace(path)
        except BaseException:
            Path(made).unlink(missing_ok=True)
            raise
    except OSError as failure:
        reason = failure.strerror or str(failure)
        raise Refused(f"{path} cannot be written: {reason}", "OSError") from None


@click.command("import")
@click.argument("file", metavar="FILE|-")
@click.option("--id", "new_id", metavar="ID", help="Its id here.  [default: the one that it had]")
@url_option
@json_option
def import_command(file: str, new_id: str | None, url: str | None, as_json: bool) -> None:
    """Create an instance from FILE, which 'runs export' wrote; it goes on where that one stood.

    Its finished steps do not run again. A database file that is not there is made.
    """
    data = read_bytes(file, "FILE")

    async def take_in(client: WorkflowClient) -> tuple[str, str]:
        instance_id = await client.import_(data, new_id)
        return instance_id, str((await client.status(instance_id)).status)

    instance_id, status = ask(url, as_json, take_in, make=True)
    if as_json:
        say_json({"instance_id": instance_id, "status": status})
        return
    say(f"{instance_id} was imported and is {status}")
    note("if it is to go on here alone, cancel it where it came from")
