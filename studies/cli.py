"""The command line. Heavy imports happen inside the commands, so that help is instant.

Exit status: 0; 1 = it ran, and a method or a regression failed; 2 = bad input, one line saying what and
where; 3 = internal error, one line and the path of the saved traceback; 130 = interrupted; 141 = who
read the output has left.
"""

import os
import sys
import tempfile
import traceback
from collections.abc import Callable
from typing import Annotated

import typer

from nanoed.studies.commands import files, run, studies
from nanoed.studies.console import plain_warnings

app = typer.Typer(
    name="nanoed",
    help="Open 3D electron diffraction: simulate, reduce, refine, compare with the truth.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
COMMANDS: dict[str, Callable[..., None]] = {
    "list": run.list_,
    "show": run.show,
    "run": run.run,
    "simulate": run.simulate,
    "reduce": run.reduce,
    "index": run.index_,
    "solve": run.solve_,
    "refine": run.refine,
    "compare": files.compare,
    "export": files.export,
    "import": files.import_,
    "report": files.report,
    "study": studies.study,
    "regress": studies.regress,
    "bench": studies.bench,
}
for _name, _command in COMMANDS.items():
    app.command(_name)(_command)


def main() -> None:
    """Run the program and exit with its status."""
    plain_warnings()
    sys.exit(status())


def status(args: list[str] | None = None) -> int:
    """Run the program and return its exit status."""
    try:
        code = int(app(args, standalone_mode=False) or 0)
        sys.stdout.flush()
    except (KeyboardInterrupt, typer.Abort):
        code = 130
    except (BrokenPipeError, SystemExit):  # typer makes SystemExit of the former
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except Exception as error:
        return _failed(error)
    if code == 130:
        print("nanoed: interrupted", file=sys.stderr)
    return code


def _failed(error: Exception) -> int:
    """Say in one line what went wrong; returns the exit status."""
    from nanoed.sim.physics.errors import ConvergenceError, InputError

    usage = getattr(error, "format_message", None)
    if usage is not None:
        text = str(usage()).strip()
        print(text if "\n" in text else f"nanoed: {text} (see --help)", file=sys.stderr)
        return 2
    if isinstance(error, InputError):
        print(f"nanoed: {error}", file=sys.stderr)
        return 2
    if isinstance(error, ConvergenceError):
        print(f"nanoed: not converged: {error}", file=sys.stderr)
        return 1
    handle, path = tempfile.mkstemp(prefix="nanoed-traceback-", suffix=".txt")
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        traceback.print_exception(error, file=file)
    what = " ".join(f"{type(error).__name__}: {error}".split())
    print(f"nanoed: internal error: {what[:200]} (traceback saved in {path})", file=sys.stderr)
    return 3


@app.callback(invoke_without_command=True)
def _program(
    version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False,
) -> None:
    if version:
        import nanoed

        print(nanoed.__version__)
        raise typer.Exit


if __name__ == "__main__":
    main()
