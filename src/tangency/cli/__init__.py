"""The ``tangency`` command.

Each subcommand lives in a module of its own that is imported when the subcommand is called, so
that ``--help`` answers at once and imports neither NumPy nor JAX.

Exit status: 0 the answer was found, 1 it was not proved, 2 bad input or usage, 3 an unexpected
error, 130 an interrupt.
"""

from __future__ import annotations

import os
import sys
import traceback
from importlib import import_module
from typing import Any

import click

from tangency._version import __version__

__all__ = ["cli", "main"]

#: Subcommand -> (module, one line of help).
COMMANDS = {
    "activations": ("activations", "List the activation records, or print one record's card."),
    "batch": ("batch", "Run the commands of a manifest, here or on many machines; resumable."),
    "bounds": ("bounds", "Bound the outputs over boxes; certified accuracy on a data set."),
    "certify": ("certify", "Prove a Lipschitz bound, or robustness on a data set."),
    "check": ("check", "Check a certificate against a model."),
    "inspect": ("inspect", "Print a model as a table of its layers."),
    "kernel": ("kernel", "Compute the infinite-width kernel of an architecture; predict with it."),
    "ntk": ("ntk", "Compute the empirical neural tangent kernel on a data set."),
    "papers": ("papers", "List the papers that tangency reproduces, or run one."),
}


class LazyGroup(click.Group):
    """A group whose subcommands are imported when they are called."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except BrokenPipeError:
            # Whoever read the answer has closed it. Click would end with status 1, "not proved".
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise SystemExit(141) from None

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module = import_module(f"tangency.cli.{COMMANDS[cmd_name][0]}")
        command: click.Command = module.command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in sorted(COMMANDS.items())])


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="tangency")
def cli() -> None:
    """Kernels, certificates and bounds of a trained network.

    MODEL is an ONNX file (.onnx, .onnx.gz), a MATLAB file of weights (.mat), an exported torch
    program (.pt2) or a file saved by tangency.

    Exit status: 0 the answer was found, 1 it was not proved, 2 bad input or usage, 3 an unexpected
    error, 130 an interrupt.
    """


def main() -> None:
    """Run the command; an error that tangency raises on purpose is one line and a status.

    Any other error has a status of its own: none may be taken for the answer "not proved".
    """
    try:
        status = _status()
        sys.stdout.flush()
    except Exception:  # what was to be printed about an error could not be
        status = 3
        # Python flushes again as it ends, and would end with a status of its own.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sys.exit(status)


def _status() -> int:
    from tangency.models.errors import NotProvedError, TangencyError

    try:
        # Not standalone: there click ends an interrupt with status 1.
        return int(cli(standalone_mode=False) or 0)
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except NotProvedError as error:
        click.echo(f"tangency: not proved: {error}", err=True)
        return 1
    except TangencyError as error:
        click.echo(f"tangency: error: {' '.join(str(error).split())}", err=True)
        return 2
    except (KeyboardInterrupt, click.Abort):
        click.echo("tangency: interrupted", err=True)
        return 130
    except Exception as error:
        words = f"{type(error).__name__}: {' '.join(str(error).split())}"
        traceback.print_exc()
        click.echo(f"tangency: unexpected error: {words}; please report it", err=True)
        if "--json" in sys.argv:
            from tangency.cli.common import to_json

            click.echo(to_json({"error": words}))
        return 3
