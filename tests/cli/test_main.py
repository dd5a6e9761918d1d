"""The command as a whole: start-up, help, exit codes, errors."""

import json
import subprocess
import sys

import pytest

from tenfold.cli.failures import exit_code
from tenfold.cli.main import _VERBS, run
from tenfold.errors import BudgetError, DataError, TenfoldError, UnknownNameError, UsageError

HEAVY = {"torch", "torchvision", "timm", "numpy", "pydantic", "onnxruntime", "openvino", "matplotlib", "PIL"}
MOST_MODULES = 350  # what start-up costs; Python and the parser of the command line are 214


@pytest.mark.parametrize("words", [["--help"], ["--version"], ["recipes", "list"], ["doctor"], ["bench", "--help"]])
def test_light_commands_import_nothing_heavy_and_little_at_all(words):
    program = f"""
import sys
from tenfold.cli.main import run
code = run({words!r})
heavy = sorted({HEAVY!r} & sys.modules.keys())
sys.stderr.write("HEAVY " + " ".join(heavy if heavy or len(sys.modules) < {MOST_MODULES} else sys.modules))
sys.exit(code)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr.rpartition("HEAVY ")[2] == ""


def test_help_lists_every_verb_and_names_the_exit_of_debug(tenfold):
    done = tenfold("--help")
    assert done.code == 0
    for _, name, _, sentence in _VERBS:
        assert name in done.out
        assert sentence.split()[0] in done.out
    assert "--debug" in done.out


@pytest.mark.parametrize("verb", [name for _, name, _, _ in _VERBS])
def test_every_verb_has_help(tenfold, verb):
    done = tenfold(verb, "--help")
    assert done.code == 0, done.err
    assert "Usage: tenfold" in done.out


def test_the_version_is_printed(tenfold):
    import tenfold as package

    assert tenfold("--version").out.strip() == package.__version__


def test_an_unknown_verb_suggests_the_nearest(process):
    done = process("profle", "resnet18")
    assert done.code == 2
    assert done.out == ""
    assert 'Did you mean "profile"?' in done.words


def test_an_unknown_option_suggests_the_nearest(tenfold):
    done = tenfold("profile", "resnet18", "--inptu", "3x224x224")
    assert done.code == 2
    assert "Unknown option: --inptu. Did you mean --input?" in done.words


def test_an_option_of_the_training_is_suggested_too(tenfold):
    done = tenfold("fit", "--epohcs", "3")
    assert done.code == 2
    assert "Did you mean --epochs?" in done.words


def test_an_error_is_one_friendly_message_and_a_traceback_only_on_request(tenfold):
    done = tenfold("profile", "mobilenet_v9")
    assert done.code == 2
    assert done.out == ""
    assert "unknown model 'mobilenet_v9'. Did you mean" in done.words
    assert "mobilenet_v2" in done.words
    assert "Traceback" not in done.err
    assert "Traceback" in tenfold("profile", "mobilenet_v9", "--debug").err


def test_an_error_is_also_an_object_for_programs(tenfold):
    done = tenfold("profile", "mobilenet_v9", "--json")
    assert done.code == 2
    assert done.json["version"] == 1
    assert done.json["error"]["type"] == "UnknownNameError"
    assert done.json["error"]["exit_code"] == 2


def test_exit_codes_tell_failures_apart():
    class SavedError(TenfoldError):
        exit_code = 130

    assert exit_code(UsageError("x")) == 2
    assert exit_code(UnknownNameError("model", "x", ["y"])) == 2
    assert exit_code(BudgetError("x")) == 3
    assert exit_code(DataError("x")) == 1
    assert exit_code(RuntimeError("x")) == 1
    assert exit_code(SavedError("x")) == 130
    assert exit_code(KeyboardInterrupt()) == 130


def raising(monkeypatch, error):
    """Make the verb doctor fail."""
    import tenfold.cli.main as main

    def fail(_words):
        raise error

    monkeypatch.setattr(main, "make_app", lambda _verb: fail)


@pytest.mark.slow  # starts a process that imports torch, to see the real exit code
def test_the_exit_code_reaches_the_shell(process):
    done = process("profile", "mobilenet_v9")
    assert (done.code, done.out) == (2, "")
    assert "Did you mean" in done.words


def test_ctrl_c_leaves_with_130_and_no_traceback(monkeypatch, capsys):
    raising(monkeypatch, KeyboardInterrupt())
    assert run(["doctor"]) == 130
    assert "Interrupted" in capsys.readouterr().err


def test_a_mistake_of_ours_shows_where_it_happened_and_asks_for_a_report(monkeypatch, capsys):
    raising(monkeypatch, ZeroDivisionError("division by zero"))
    assert run(["doctor"]) == 1
    said = capsys.readouterr().err
    assert "Traceback" in said
    assert "mistake in Tenfold" in said


def test_brackets_in_a_message_are_no_markup(monkeypatch, capsys):
    raising(monkeypatch, DataError("cannot read [bold]photo[/bold].jpg"))
    assert run(["doctor"]) == 1
    assert "[bold]photo[/bold].jpg" in capsys.readouterr().err


def test_a_reader_that_stops_early_is_no_error():
    program = [sys.executable, "-m", "tenfold.cli.main", "doctor", "--json"]
    head = subprocess.run(["sh", "-c", f"{' '.join(program)} | head -c 1"], capture_output=True, text=True, check=False)
    assert head.stdout == "{"
    assert "Traceback" not in head.stderr
    assert "BrokenPipe" not in head.stderr


def test_of_many_processes_only_the_first_speaks(tenfold):
    done = tenfold("recipes", "list", "--json", env={"RANK": "1"})
    assert done.code == 0
    assert done.out == ""
    assert json.loads(tenfold("recipes", "list", "--json", env={"RANK": "0"}).out)["recipes"]
