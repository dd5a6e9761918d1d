"""`tenfold fit`: from words to a run folder."""

import json
import os
import re
import signal
import subprocess
import sys

import pytest
import torch

from tenfold import models
from tenfold.cli.resolve import Typed, default_folder, resolve_recipe
from tenfold.cli.starting_weights import start_from
from tenfold.cli.train_flags import TrainFlags, overrides
from tenfold.errors import UsageError
from tenfold.train import TrainConfig

SMALL = ("--model", "convnet_tiny", "--epochs", "1", "--subset", "64", "--batch-size", "32")


def test_every_option_of_a_training_is_a_flag_with_its_own_words(tenfold):
    out = " ".join(tenfold("fit", "--help").out.split())
    for name in TrainConfig.__dataclass_fields__:
        assert f"--{name.replace('_', '-')}" in out
    assert "Images per optimiser step" in out


def test_flags_that_are_not_typed_change_nothing():
    assert overrides(None) == []
    assert overrides(TrainFlags()) == []
    assert overrides(TrainFlags(epochs=3, nesterov=False, step_epochs=(1.0, 2.0))) == [
        "train.epochs=3",
        "train.nesterov=false",
        "train.step_epochs=[1.0, 2.0]",
    ]


def test_what_is_typed_lies_over_the_recipe(tmp_path):
    file = tmp_path / "r.toml"
    file.write_text(
        '[model]\nkind = "mobilenet_v2"\nwidth = 0.5\n[task]\nkind = "classify"\n'
        '[[methods]]\nkind = "sat"\nw_bits = 4\na_bits = 4\n[train]\nlr = 0.3\nepochs = 9\n'
    )
    recipe = resolve_recipe(Typed(recipe=file, bits="3/5", data="digits", train=["train.epochs=2"], budget="bytes=1M"))
    assert (recipe.methods[0].options["w_bits"], recipe.methods[0].options["a_bits"]) == (3, 5)
    assert (recipe.train.epochs, recipe.train.lr, recipe.budget) == (2, 0.3, "bytes=1M")
    assert recipe.task.options == {"data": "digits"}
    assert recipe.model.options == {"width": 0.5}
    # Another model does not inherit the options of the recipe's.
    assert resolve_recipe(Typed(recipe=file, model="resnet18")).model.options == {}
    assert resolve_recipe(Typed(recipe=file, settings=["model.width=0.75"])).model.options == {"width": 0.75}


def test_a_budget_on_bits_that_is_typed_takes_the_place_of_the_recipes(tmp_path):
    file = tmp_path / "recipe.toml"
    start = '[model]\nkind = "resnet18"\n[task]\nkind = "classify"\n'
    file.write_text('budget = "macs=7M,bitops=1G"\n' + start + '[[methods]]\nkind = "fracbits"\nkappa = 1.0\n')
    recipe = resolve_recipe(Typed(recipe=file, like="uniform:4"))
    assert (recipe.budget, recipe.methods[0].options) == ("macs=7M", {"kappa": 1.0, "like": 4})
    file.write_text(start + '[[methods]]\nkind = "fracbits"\nlike = 3\n')
    assert resolve_recipe(Typed(recipe=file, budget="bytes=1M")).methods[0].options == {}
    assert resolve_recipe(Typed(recipe=file, budget="macs=1M")).methods[0].options == {"like": 3}
    assert resolve_recipe(Typed(recipe=file, like="uniform:2")).methods[0].options == {"like": 2}


def test_several_methods_apply_in_the_order_typed():
    recipe = resolve_recipe(Typed(model="resnet18", methods=("sat", "qat"), bits="4"))
    assert [method.kind for method in recipe.methods] == ["sat", "qat"]


def test_the_run_folder_gets_a_telling_name():
    recipe = resolve_recipe(Typed(model="timm:resnet18", methods=("sat",), bits="4/8"))
    assert default_folder(recipe, None).as_posix() == "runs/timm-resnet18-sat-4-8"
    assert default_folder(recipe, "mine").as_posix() == "runs/mine"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "which network? Say --model NAME"),
        (("--model", "resnet99"), "unknown model 'resnet99'. Did you mean"),
        (("--model", "convnet_tiny", "--method", "satt"), "unknown method 'satt'. Did you mean sat"),
        (("--model", "convnet_tiny", "--bits", "4/4"), "needs a method that is told its bits"),
        (("--model", "convnet_tiny", "--method", "adabits", "--bits", "8,,4"), "several with commas, such as 8,6,5,4"),
        (("--model", "convnet_tiny", "--method", "adabits", "--bits", "8,x"), "'x' is no bit-width"),
        (("--model", "convnet_tiny", "--set", "train.epohcs=3"), "train.epohcs: unknown key. Did you mean epochs"),
        (("--model", "convnet_tiny", "--epochs", "-1"), "train.epochs = -1: must be a whole number"),
        (("--model", "convnet_tiny", "--budget", "mac=3"), "unknown budget limit 'mac'. Did you mean macs"),
        (("--model", "convnet_tiny", "--data", "no-such-data"), "unknown data set 'no-such-data'"),
        (("--recipe", "x", "--from", "y"), "keep one of them"),
        (("--quick",), "--quick is a mode of a recipe"),
        (("--resume",), "which run shall go on?"),
    ],
)
def test_wrong_usage_is_told_before_anything_is_written(tenfold, tmp_path, words, message):
    done = tenfold("fit", *words, "--out", tmp_path / "run") if "--resume" not in words else tenfold("fit", *words)
    assert done.code == 2
    assert message in done.words
    assert not (tmp_path / "run").exists()


def test_missing_data_are_named(tenfold, tmp_path):
    done = tenfold("fit", "--model", "convnet_tiny", "--data", tmp_path / "gone")
    assert done.code == 1
    assert "there is no data folder" in done.words


def test_a_budget_out_of_reach_says_the_smallest_that_can_be_reached(tenfold, tmp_path):
    done = tenfold("fit", *SMALL, "--method", "sat", "--budget", "bytes=1k", "--out", tmp_path / "run")
    assert done.code == 3
    assert "At 2 bits, the fewest, bytes: asked for 1,000, smallest" in done.words
    assert not (tmp_path / "run").exists()


def test_a_dry_run_checks_everything_and_writes_nothing(tenfold, tmp_path):
    words = ("fit", *SMALL, "--method", "sat", "--bits", "4/4", "--budget", "bytes=20k", "--out", tmp_path / "run")
    done = tenfold(*words, "--dry-run")
    assert done.code == 0, done.err
    assert "Would train 1 epochs of 2 steps" in done.words
    assert "Not within the budget yet: bytes" in done.words
    assert not (tmp_path / "run").exists()
    plan = tenfold(*words, "--dry-run", "--json").json
    assert plan["cost"]["after"]["bytes"] < plan["cost"]["before"]["bytes"] / 6
    assert plan["recipe"]["train"]["epochs"] == 1
    assert plan["exceeds"]["bytes"]["asked"] == 20_000


@pytest.mark.slow  # trains three times
def test_a_run_can_be_repeated_from_its_folder_resumed_and_started_from(tenfold, tmp_path):
    first = tmp_path / "first"
    done = tenfold("fit", *SMALL, "--out", first, "--json")
    assert done.code == 0, done.err
    assert done.json["version"] == 1
    assert done.json["cost"]["after"]["macs"] > 0
    for file in ("artifact.safetensors", "report.html", "report.json", "recipe.toml", "config.json"):
        assert (first / file).is_file()

    again = tenfold("fit", *SMALL, "--out", first)
    assert again.code == 2
    assert "already holds a run" in again.words

    resumed = tenfold("fit", "--resume", "--out", first, "--json")
    assert resumed.code == 0, resumed.err
    assert resumed.json["metrics"] == done.json["metrics"]

    repeated = tenfold("fit", "--from", first, "--out", tmp_path / "second", "--json")
    assert repeated.json["metrics"]["final"] == done.json["metrics"]["final"]

    twin = tenfold(
        "fit", *SMALL, "--method", "sat", "--bits", "4", "--weights", first / "artifact.safetensors",
        "--out", tmp_path / "twin",
    )  # fmt: skip
    assert twin.code == 0, twin.err
    assert "7.9" in twin.out
    assert "less" in twin.out
    report = json.loads((tmp_path / "twin" / "report.json").read_text())
    assert report["metrics"]["float"]["top1"] == done.json["metrics"]["final"]["top1"]


@pytest.mark.slow  # trains twice
def test_the_second_stage_is_compared_with_the_first_which_is_float(tenfold, tmp_path):
    stages = tmp_path / "float", tmp_path / "4bit"
    method = ("--method", "sat", "--pixels")
    assert tenfold("fit", *SMALL, *method, "--bits", "32/32", "--out", stages[0]).code == 0
    weights = ("--weights", stages[0] / "artifact.safetensors")
    done = tenfold("fit", *SMALL, *method, "--bits", "4/4", *weights, "--out", stages[1], "--json")
    assert done.code == 0, done.err
    assert 0 <= done.json["metrics"]["float"]["top1"] <= 1
    # The weights of a quantized network are a start as well, but nothing to call float.
    third = tenfold("fit", *SMALL, "--weights", stages[1] / "artifact.safetensors", "--out", tmp_path / "x", "--json")
    assert "float" not in third.json["metrics"]


@pytest.mark.slow  # a process that trains until it is interrupted
def test_ctrl_c_saves_and_leaves_with_130(tmp_path):
    words = ["fit", "--model", "convnet_tiny", "--epochs", "40", "--out", str(tmp_path / "run")]
    command = [sys.executable, "-m", "tenfold.cli.main", *words]
    running = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    said = ""
    while "epoch 1/" not in said and running.poll() is None:
        said += running.stderr.readline()
    running.send_signal(signal.SIGINT)
    said += running.communicate(timeout=120)[1]
    assert running.returncode == 130, said
    assert "Everything is saved" in " ".join(said.split()).replace("│ ", "").replace(" │", "")
    assert "Traceback" not in said
    assert list((tmp_path / "run" / "checkpoints").iterdir())


@pytest.mark.slow  # two processes that import torch
def test_the_same_command_runs_under_torchrun_and_one_process_speaks(process, tmp_path):
    command = ("--nproc-per-node", "2", "--master-port", "29631", "-m", "tenfold.cli.main")
    words = ("fit", *SMALL, "--out", tmp_path / "run", "--json")
    done = process(*command, *words, module="torch.distributed.run")
    assert done.code == 0, done.err
    assert done.json["metrics"]["final"]["top1"] >= 0
    assert len(re.findall(r"epoch 1/1", done.err)) == 1


def test_weights_of_another_network_are_refused(tmp_path):
    from safetensors.torch import save_file

    path = tmp_path / "w.safetensors"
    save_file(models.build("convnet_tiny", num_classes=7).state_dict(), path)
    with pytest.raises(UsageError, match=r"do not fit this network: classifier\.weight is"):
        start_from(models.build("convnet_tiny"), path)
    own = models.build("convnet_tiny", num_classes=7)
    assert start_from(own, path) is None
    save_file({"a": torch.zeros(3)}, path)
    with pytest.raises(UsageError, match="do not fit"):
        start_from(own, path)


def test_the_allocator_keeps_memory_on_glibc_and_is_harmless_elsewhere(monkeypatch):
    from tenfold.train import allocator

    monkeypatch.setattr(allocator.os, "confstr", lambda name: None)
    assert allocator.keep_freed_memory() is False
    monkeypatch.undo()
    monkeypatch.setenv("MALLOC_ARENA_MAX", "2")
    assert allocator.keep_freed_memory() is False


@pytest.mark.skipif(sys.platform != "linux", reason="counts page faults as Linux does")
def test_kept_memory_is_reused_without_page_faults(process, tmp_path):
    program = tmp_path / "faults.py"
    program.write_text(
        "import ctypes, resource, sys\n"
        "from tenfold.train.allocator import keep_freed_memory\n"
        "kept = keep_freed_memory() if sys.argv[1] == 'keep' else False\n"
        "def touch():\n"
        "    buffer = ctypes.create_string_buffer(8 << 20)\n"
        "    ctypes.memset(buffer, 1, 8 << 20)\n"
        "touch()\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt\n"
        "for _ in range(10): touch()\n"
        "print(kept, resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)\n"
    )

    def faults(mode):
        done = subprocess.run([sys.executable, program, mode], capture_output=True, text=True, check=True)
        return done.stdout.split()

    kept, count = faults("keep")
    if kept != "True":
        pytest.skip("not glibc")
    assert int(count) < int(faults("plain")[1]) / 10


@pytest.mark.slow  # trains and judges a network
def test_bits_of_a_timm_model_are_learned_by_one_command(tenfold, tmp_path):
    words = (
        "--model",
        "timm:test_resnet",
        "--image-size",
        "32",
        "--epochs",
        "1",
        "--subset",
        "32",
        "--batch-size",
        "16",
    )
    done = tenfold("fit", *words, "--method", "fracbits", "--like", "uniform:4", "--out", tmp_path / "run", "--json")
    assert done.code == 0, done.err
    found = json.loads((tmp_path / "run" / "report.json").read_text())["found"]["fracbits"]
    assert 0.9 < found["used"]["bitops"] <= 1
