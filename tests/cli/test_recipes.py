"""Recipes: each loads, names things that exist, says what it must say, and runs in quick mode."""

import re
import tomllib

import pytest

from tenfold import methods, models, tasks
from tenfold.cli.recipes import find_recipe, list_recipes, recipe_folder
from tenfold.cost import Budget
from tenfold.errors import MissingDataError, UnknownNameError
from tenfold.train import load_recipe

RECIPES = list_recipes()
QUICKEST = ("convnet_tiny_sat_4bit_digits",)


def test_there_are_as_many_recipes_as_files_and_no_fewer_than_expected():
    files = list(recipe_folder().rglob("*.toml"))
    assert len(files) == len(RECIPES) >= 17


@pytest.mark.parametrize("quick", [False, True])
@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_loads_and_all_its_names_exist(name, quick):
    recipe = load_recipe(RECIPES[name], quick=quick)
    assert models.facts(recipe.model.kind)
    assert recipe.task.kind in tasks.list_tasks()
    for method in recipe.methods:
        methods.create(method.kind, **method.options)
    if recipe.budget:
        Budget.parse(recipe.budget)


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_opens_with_what_it_does_how_to_run_it_and_what_to_expect(name):
    text = RECIPES[name].read_text(encoding="utf-8")
    comment = text[: re.search(r"^[^#\n]", text, flags=re.MULTILINE).start()]
    for part in ("Command ", "Time ", "Expected ", "Paper ", "Quick "):
        assert f"# {part}" in comment
    assert f"tenfold fit --recipe {name} " in comment.replace("\n", " ")
    for other in re.findall(r"runs/([\w]+)/artifact", comment):
        assert other in RECIPES
    assert tomllib.loads(text)["quick"]


@pytest.mark.slow  # trains; the other recipes' quick modes are the same path with larger networks
@pytest.mark.parametrize("name", QUICKEST)
def test_a_recipe_runs_end_to_end_in_quick_mode(tenfold, tmp_path, name):
    done = tenfold("fit", "--recipe", name, "--quick", "--out", tmp_path / "run", "--json")
    assert done.code == 0, done.err
    assert done.json["metrics"]["final"]["top1"] > 0.1
    assert (tmp_path / "run" / "report.html").is_file()


def test_recipes_are_listed_with_what_they_do(tenfold):
    done = tenfold("recipes")
    assert done.code == 0
    assert "resnet20_cifar_sat_4bit_cifar10" in done.out
    assert {one["name"] for one in tenfold("recipes", "list", "--json").json["recipes"]} == set(RECIPES)


def test_show_prints_the_file_as_it_is(tenfold):
    name = "resnet20_cifar_sat_4bit_cifar10"
    assert tenfold("recipes", "show", name).out == RECIPES[name].read_text(encoding="utf-8")


def test_copy_never_overwrites(tenfold, tmp_path):
    name = "resnet20_cifar_sat_4bit_cifar10"
    done = tenfold("recipes", "copy", name, tmp_path)
    assert done.code == 0
    assert (tmp_path / f"{name}.toml").read_bytes() == RECIPES[name].read_bytes()
    again = tenfold("recipes", "copy", name, tmp_path)
    assert again.code == 2
    assert "is there already" in again.words


def test_a_recipe_is_found_by_name_or_path_and_a_wrong_name_suggests(tmp_path):
    own = tmp_path / "mine.toml"
    own.write_text("")
    assert find_recipe(str(own)) == own
    with pytest.raises(UnknownNameError, match="Did you mean resnet20_cifar"):
        find_recipe("resnet20_cifar_sat")
    with pytest.raises(MissingDataError, match="there is no recipe file"):
        find_recipe("no/such/recipe.toml")
