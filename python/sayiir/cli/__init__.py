"""The `sayiir` command: a group that loads only the subcommand that was asked for.

Promises that `sayiir --help` and `--version` are quick, that an unknown command is answered with
the list of known ones, and that Ctrl-C ends any command with one line and exit code 130. Refuses
to know what a subcommand does.
"""

from importlib import import_module
from typing import Any

import click

__all__ = ["main"]

# Command name → the module that holds it, as an attribute named `command`.
_COMMANDS = {
    "demo": "sayiir.cli.demo",
    "doctor": "sayiir.cli.doctor",
    "inspect": "sayiir.cli.inspect",
    "migrate": "sayiir.cli.migrate",
    "run": "sayiir.cli.run",
    "runs": "sayiir.cli.runs",
    "worker": "sayiir.cli.worker",
}

# 128 + SIGINT, what a shell expects of a program that was interrupted.
_INTERRUPTED = 130


class _LazyGroup(click.Group):
    """A group whose commands are imported when they are needed, not when the group is."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        module = _COMMANDS.get(cmd_name)
        if module is None:
            return None
        command: click.Command = import_module(module).command
        return command

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            click.echo("Interrupted.", err=True)
            ctx.exit(_INTERRUPTED)


@click.group(cls=_LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="sayiir", prog_name="sayiir")
def main() -> None:
    """Durable workflows: every finished task is checkpointed and never runs again.

    Every command that needs a database takes --url; without it the environment variable
    SAYIIR_DATABASE_URL says where it is, else it is sqlite:///sayiir.db.
    """
