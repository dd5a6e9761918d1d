"""What a person sees when a command fails, and the code it leaves with."""

from __future__ import annotations

import sys
import traceback

from tenfold.cli.output import to_stderr, write_json
from tenfold.errors import BudgetError, TenfoldError, UsageError

FAILED, WRONG_USAGE, BUDGET_MISSED, INTERRUPTED = 1, 2, 3, 130


def report_failure(error: BaseException, *, debug: bool, as_json: bool) -> int:
    """Tell about an error on stderr (and as an object on stdout for programs), and choose the exit code.

    Errors raised on purpose are one message; anything else is a mistake of ours and shows where it happened.

    Args:
        error: what was raised.
        debug: show the traceback of any error.
        as_json: also write `{"version": 1, "error": {...}}` to stdout.
    """
    code = exit_code(error)
    if debug or not isinstance(error, TenfoldError | KeyboardInterrupt):
        sys.stderr.write("".join(traceback.format_exception(error)))
    if isinstance(error, KeyboardInterrupt):
        to_stderr("[bold]Interrupted.[/]")
    elif isinstance(error, TenfoldError):
        title = "Stopped" if code == INTERRUPTED else "Budget" if code == BUDGET_MISSED else "Error"
        panel(title, str(error), "yellow" if code == INTERRUPTED else "red")
    else:
        panel(
            "This is a mistake in Tenfold",
            f"{type(error).__name__}: {error}\n"
            "Please report it with the lines above and the output of `tenfold doctor`.",
            "red",
        )
    if as_json:
        write_json({"error": {"type": type(error).__name__, "message": str(error), "exit_code": code}})
    return code


def exit_code(error: BaseException) -> int:
    """The code that stands for an error; errors may carry their own as `exit_code`."""
    own = getattr(error, "exit_code", None)
    if isinstance(own, int):
        return own
    if isinstance(error, KeyboardInterrupt):
        return INTERRUPTED
    if isinstance(error, UsageError):
        return WRONG_USAGE
    return BUDGET_MISSED if isinstance(error, BudgetError) else FAILED


def panel(title: str, message: str, colour: str) -> None:
    """A message in a frame; the text is shown as it is, brackets included."""
    from rich.panel import Panel
    from rich.text import Text

    to_stderr(Panel(Text(message), title=title, title_align="left", border_style=colour))
