import json

import pytest

from tenfold.errors import MissingDataError, UsageError
from tenfold.train import TrainConfig, load_recipe, write_recipe
from tenfold.train.recipe import Choice, Recipe

RECIPE = """
budget = "bytes=300k"

[model]
kind = "resnet20_cifar"
num_classes = 10

[task]
kind = "classify"
data = "digits"

[[methods]]
kind = "sat"
w_bits = 4
a_bits = 4

[train]
epochs = 3
lr = 1
step_epochs = [1, 2.5]
ema_decay = 0.99

[quick]
train.epochs = 1
task.subset = 64
"""


@pytest.fixture
def recipe_file(tmp_path):
    path = tmp_path / "recipe.toml"
    path.write_text(RECIPE)
    return path


def test_a_recipe_is_read_with_its_types(recipe_file):
    recipe = load_recipe(recipe_file)
    assert recipe.model == Choice(kind="resnet20_cifar", options={"num_classes": 10})
    assert recipe.task == Choice(kind="classify", options={"data": "digits"})
    assert recipe.methods == (Choice(kind="sat", options={"w_bits": 4, "a_bits": 4}),)
    assert recipe.budget == "bytes=300k"
    assert recipe.train == TrainConfig(epochs=3, lr=1.0, step_epochs=(1, 2.5), ema_decay=0.99)


def test_the_quick_mode_changes_only_what_it_names(recipe_file):
    quick = load_recipe(recipe_file, quick=True)
    assert quick.train.epochs == 1
    assert quick.train.lr == 1.0
    assert quick.task.options == {"data": "digits", "subset": 64}


def test_overrides_are_applied_last(recipe_file):
    recipe = load_recipe(
        recipe_file,
        quick=True,
        overrides=[
            "train.epochs=7",
            "methods.0.w_bits=3",
            "model.kind=resnet18",
            "budget=macs=5M",
            "train.nesterov=false",
        ],
    )
    assert recipe.train.epochs == 7
    assert recipe.train.nesterov is False
    assert recipe.methods[0].options["w_bits"] == 3
    assert recipe.model.kind == "resnet18"
    assert recipe.budget == "macs=5M"


def test_without_a_file_the_defaults_and_overrides_count():
    assert load_recipe() == Recipe()
    assert load_recipe(overrides=["train.lr=0.5"]).train == TrainConfig(lr=0.5)


@pytest.mark.parametrize("name", ["resolved.toml", "resolved.json"])
def test_a_written_recipe_reads_back_the_same(recipe_file, tmp_path, name):
    recipe = load_recipe(recipe_file, overrides=['task.data="a \\"quoted\\" path"'])
    write_recipe(recipe, tmp_path / name)
    assert load_recipe(tmp_path / name) == recipe


def test_a_recipe_extends_one_other(recipe_file, tmp_path):
    child = tmp_path / "child.toml"
    child.write_text('extends = "recipe.toml"\n[model]\nkind = "resnet18"\n[train]\nepochs = 9\n')
    recipe = load_recipe(child)
    assert recipe.train.epochs == 9
    assert recipe.train.ema_decay == 0.99
    assert recipe.model == Choice(kind="resnet18")  # another kind does not inherit the options of the first
    grandchild = tmp_path / "grandchild.toml"
    grandchild.write_text('extends = "child.toml"\n')
    with pytest.raises(UsageError, match="only one step is allowed"):
        load_recipe(grandchild)


def test_all_problems_are_told_together_with_suggestions(tmp_path):
    path = tmp_path / "bad.toml"
    path.write_text(
        "bugdet = 'macs=5M'\n[model]\nname = 'resnet18'\n"
        "[train]\nepoch = 3\nlr = '0.1'\nmomentum = 2\noptimizer = 'adam'\n"
    )
    with pytest.raises(UsageError) as caught:
        load_recipe(path, overrides=["train.sede=1", "nonsense"])
    message = str(caught.value)
    for part in (
        "bugdet: unknown key. Did you mean budget?",
        "model.kind = None",
        "train.epoch: unknown key. Did you mean epochs",
        "train.lr = '0.1': must be a valid number",
        "train.momentum = 2: must be a number from 0 to below 1",
        "train.optimizer = 'adam': must be",
        "train.sede: unknown key. Did you mean seed",
        "override 'nonsense': must look like train.epochs=3",
    ):
        assert part in message
    assert message.count("train.lr") == 1
    assert message.count("train.epoch:") == 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[train", "is not TOML"),
        ("train = 3", "train = 3: must be"),
        ("methods = 1", "methods = 1"),
        ("budget = 5", "budget = 5"),
    ],
)
def test_a_malformed_file_is_refused(tmp_path, text, message):
    path = tmp_path / "bad.toml"
    path.write_text(text)
    with pytest.raises(UsageError, match=message):
        load_recipe(path)


def test_json_that_is_no_table_is_refused(tmp_path):
    path = tmp_path / "bad.json"
    path.write_text(json.dumps([1]))
    with pytest.raises(UsageError, match="must hold tables"):
        load_recipe(path)


def test_a_missing_recipe_is_named(tmp_path):
    with pytest.raises(MissingDataError, match="there is no recipe"):
        load_recipe(tmp_path / "none.toml")


def test_quick_mode_must_exist(tmp_path):
    path = tmp_path / "plain.toml"
    path.write_text("[train]\nepochs = 1\n")
    with pytest.raises(UsageError, match="has no quick mode"):
        load_recipe(path, quick=True)


def test_an_override_of_nothing_is_refused(recipe_file):
    with pytest.raises(UsageError, match="there is nothing at methods"):
        load_recipe(recipe_file, overrides=["methods.5.w_bits=3"])
