"""`sayiir inspect`: what the bytes in a file are, if sayiir stored them.

Promises that nothing is opened but the file, that any bytes get an answer, and that no value and no
text of an error is shown unless that was asked for. What bytes mean, `sayiir.codec` knows.
"""

import click

from sayiir.cli.argument import read_bytes
from sayiir.cli.session import Refused, json_option, reporting
from sayiir.cli.terminal import say, say_json
from sayiir.codec import inspect

__all__ = ["command"]

_EXIT_CODES = """\b
Exit codes:
  0    the bytes were read
  1    they are not sayiir's, damaged, or of a newer version
  2    wrong arguments, or no such file
"""


@click.command("inspect", epilog=_EXIT_CODES)
@click.argument("file", metavar="FILE|-")
@click.option("--values", is_flag=True, help="Show values and texts of errors; they may be secret.")
@json_option
def command(file: str, values: bool, as_json: bool) -> None:
    """Tell what the bytes in FILE are: a payload, an error, a definition, a whole instance.

    Such bytes come from 'sayiir runs export' and from the columns of a database. Without --values
    only the types and sizes of values are told.
    """
    found = inspect(read_bytes(file, "FILE"), values=values)
    if found.problem is None:
        if as_json:
            say_json(found.as_dict())
        else:
            say(str(found), lines=True)
        return
    with reporting(as_json):
        if not as_json:
            say(str(found).partition("\n")[0])
        raise Refused(
            f"the bytes cannot be read: {found.problem}",
            "SnapshotFormatError",
            found=found.as_dict(),
        )
