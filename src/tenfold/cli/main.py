"""The command `tenfold`: finds the verb, runs it, and turns errors into sentences and exit codes.

Exit codes: 0 done, 1 failed, 2 wrong usage, 3 the budget cannot be met, 130 interrupted (a training saves first).
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import NoReturn

from cyclopts import App, Group

from tenfold import __version__
from tenfold.cli.failures import report_failure

_MAKE, _USE, _LOOK = (Group(name, sort_key=order) for order, name in enumerate(("Make", "Use", "Look around")))

# The verb, the function that it calls, its line of help. Nothing is imported until the verb is typed.
_VERBS = (
    (_MAKE, "demo", "demo:demo", "Train, quantize, export and time a small network in a few minutes."),
    (_MAKE, "fit", "fit:fit", "Train a network on your data, within a budget."),
    (_MAKE, "search", "search:app", "Find a network among many candidates."),
    (_MAKE, "export", "export:export", "Turn a trained artifact into an ONNX file with integers inside."),
    (_USE, "predict", "predict:predict", "Say what is on images, with an artifact or an ONNX file."),
    (_USE, "segment", "segment:segment", "Follow objects through a video."),
    (_USE, "erase", "erase:erase", "Take things out of a video: point at them once, and they are gone."),
    (_USE, "serve", "serve:serve", "Erase in the browser: a page of this machine for clips, reports and costs."),
    (_USE, "inpaint", "inpaint:inpaint", "Fill holes in a video, or remove what masks cover."),
    (_USE, "eval", "evaluate:evaluate", "Measure the accuracy of an artifact or an ONNX file."),
    (_USE, "eval-tracks", "eval_tracks:eval_tracks", "Judge tracks of objects in videos, as YouTube-VIS does."),
    (_USE, "bench", "bench:bench", "Time exported files side by side in the installed runtimes."),
    (_LOOK, "profile", "profile:profile", "Count what a network costs: MACs, parameters, BitOPs, bytes."),
    (_LOOK, "analyze", "analyze:app", "Look into a network: do the blocks of a vision transformer repeat themselves?"),
    (_LOOK, "models", "models:models", "List the networks that are known by name."),
    (_LOOK, "recipes", "recipes:app", "List, show or copy the recipes: whole trainings in one file."),
    (_LOOK, "doctor", "doctor:doctor", "Look at this machine: what is installed, what is missing, how to get it."),
)


def make_app(verb: str = "") -> App:
    """The command with all its verbs.

    Args:
        verb: the one that was typed. It is imported and so brings its own, longer help; of the others only the line
            in the table is known.
    """
    app = App(
        name="tenfold",
        help="Make vision networks ten times cheaper and put them to work.",
        help_epilogue=(
            "Every verb takes --help; verbs with results take --json. Results go to stdout, words to stderr. "
            "--debug shows the traceback of an error."
        ),
        # Markdown would double the time that --help takes.
        help_format="plaintext",
        version=__version__,
        result_action="return_value",
        suppress_keyboard_interrupt=False,
    )
    app["--help"].group = app["--version"].group = Group("Options", sort_key=9)
    for order, (group, name, target, sentence) in enumerate(_VERBS):
        own = {} if target.endswith(":app") else {"result_action": "return_value"}
        line = None if name == verb else sentence
        app.command(f"tenfold.cli.{target}", name=name, help=line, group=group, sort_key=order, **own)
    return app


def run(words: Sequence[str]) -> int:
    """Run one command line, and return its exit code instead of leaving.

    Args:
        words: what follows `tenfold` on the command line.
    """
    words = list(words)
    debug = "--debug" in words
    words = [word for word in words if word != "--debug"]
    try:
        code = make_app(words[0] if words else "")(words)
    except SystemExit as leaving:
        return leaving.code if isinstance(leaving.code, int) else 0 if leaving.code is None else 1
    except BrokenPipeError:
        # The reader, such as `head`, has seen enough. Python would complain once more while it closes stdout.
        sys.stdout = None
        return 0
    except BaseException as error:
        return report_failure(error, debug=debug, as_json="--json" in words)
    return code if type(code) is int else 0


def main() -> NoReturn:
    """The entry point of the command `tenfold`, and of `torchrun -m tenfold.cli.main`."""
    sys.exit(run(sys.argv[1:]))


if __name__ == "__main__":
    main()
