"""The command line: thin commands over the functions the plugin calls. The file name is the command."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any

import click

from modelkit.errors import COULD_NOT_RUN, INTERRUPTED, ModelkitError


class Commands(click.Group):
    """Imports a command's module when it is called, so that `modelkit --help` stays quick."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        """Every file beside this one."""
        return sorted(path.stem for path in Path(__file__).parent.glob("[a-z]*.py"))

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command of that file, or None."""
        if cmd_name not in self.list_commands(ctx):
            return None
        command: click.Command = importlib.import_module(f"modelkit.cli.{cmd_name}").command
        return command

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command. Ctrl-C is no verdict, so it does not end as "not conforming" does."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            click.echo("interrupted", err=True)
            ctx.exit(INTERRUPTED)


@click.group(cls=Commands)
@click.version_option(package_name="pytest-modelkit")
def modelkit() -> None:
    """Write a manifest, run pytest, ship a model you can trust."""


def main() -> None:
    """Run a command; what a user can act on is one line and an exit code, never a traceback."""
    try:
        modelkit()
    except ModelkitError as error:
        click.echo(f"error: {error}", err=True)
        sys.exit(error.exit_code)
    except OSError as error:
        # A folder that is a file, a disk that went away: the machine's trouble, told by the system itself.
        click.echo(f"error: {error.filename or 'the system'}: {error.strerror or error}", err=True)
        sys.exit(COULD_NOT_RUN)
