"""`tenfold search ncp` and `tenfold search fetch`."""

import json
import pickle

import numpy as np
import pytest
from PIL import Image

from search.test_tables import small_table
from tenfold.search.tables import read_table, write_table
from tenfold.train import load_recipe

pytest.importorskip("pyarrow", reason="needs the extra search")
CODE = "16_64-1_1_3_128-3_2_3_3_32_48-2_3_2_3_2_16_32_16-1_4_2_4_1_1_96_112_48_80-112"


def test_the_command_leaves_codes_a_recipe_and_a_picture(tenfold, tmp_path):
    write_table(small_table(), tmp_path / "table.parquet")
    words = ("search", "ncp", tmp_path / "table.parquet", "--target", "seg", "--predictor", "gp", "--starts", "4")
    done = tenfold(*words, "--budget", "macs=400M", "--out", tmp_path / "run", "--json")
    assert done.code == 0, done.err
    assert done.json["best"]["costs"]["macs"] <= 400_000_000
    assert done.json["counted_by"] == {"image": [128, 128], "num_classes": 19, "in_channels": 3, "pixels": True}
    kept = json.loads((tmp_path / "run" / "result.json").read_text())
    assert kept["best"]["code"] == done.json["best"]["code"]
    recipe = load_recipe(tmp_path / "run" / "found.toml")
    assert (recipe.model.kind, recipe.task.kind) == ("multires_segmenter", "segment")
    assert list(recipe.model.options["code"]) == kept["best"]["code"]
    with Image.open(tmp_path / "run" / "front.png") as picture:
        assert picture.size == (900, 600)
    assert not done.json["proposed"]
    asked = tenfold(*words, "--propose", "3", "--out", tmp_path / "next", "--json")
    assert json.loads((tmp_path / "next" / "proposed.json").read_text()) == [
        one["code"] for one in asked.json["proposed"]
    ]
    shown = tenfold(*words, "--budget", "macs=400M", "--out", tmp_path / "run")
    assert "best" in shown.out
    assert "next: tenfold fit --recipe" in shown.words
    # From the code of another search, and from the authors' text; with a way to move of one's own.
    further = (
        "--start",
        tmp_path / "run",
        "--start",
        CODE,
        "--set",
        "mode=winner-takes-all",
        "--set",
        "cost_weights=[0]",
    )
    done = tenfold(*words, *further, "--image", "64x64", "--out", tmp_path / "further", "--json")
    assert done.json["counted_by"]["image"] == [64, 64]
    settings = json.loads((tmp_path / "further" / "search.json").read_text())
    assert settings["starts"][0] == kept["best"]["code"]
    assert settings["config"]["mode"] == "winner-takes-all"


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["--image", "big"], "--image 'big' is not HEIGHTxWIDTH"),
        (["--start", "1,2"], "has 2 numbers; it takes 27"),
        (["--start", "."], "holds no result of a search"),
        (["--set", "caution=2"], "unknown option of the search 'caution'"),
        (["--set", "mode=sideways"], "unknown mode of a search 'sideways'"),
    ],
)
def test_what_makes_no_sense_is_refused(tenfold, tmp_path, words, reason):
    write_table(small_table(), tmp_path / "table.parquet")
    done = tenfold("search", "ncp", tmp_path / "table.parquet", "--target", "seg", *words, "--out", tmp_path / "run")
    assert done.code == 2
    assert reason in done.words
    assert not (tmp_path / "run").exists()


def test_published_files_become_a_table_without_running_them(tenfold, tmp_path):
    table = small_table()
    rows = [
        {"embedding": code.tolist(), "mIoU": value, "mAcc": 2.0, "aAcc": 3.0, "flops": 4.0, "params": 5.0}
        for code, value in zip(table.codes, table.column("seg").tolist(), strict=True)
    ]
    (tmp_path / "seg").mkdir()
    (tmp_path / "seg" / "trainval.pkl").write_bytes(pickle.dumps(rows))
    out = tmp_path / "published.parquet"
    done = tenfold("search", "fetch", "--task", "seg", "--files", tmp_path, "--out", out)
    assert done.code == 0, done.err
    assert f"{len(rows)} candidates in" in done.out
    read = read_table(out)
    np.testing.assert_array_equal(read.codes, table.codes)
    assert read.measured_task("seg").kind == "segment"
    assert "unknown task of NAS-Bench-MR 'sag'" in tenfold("search", "fetch", "--task", "sag").words
    assert "must end in .parquet" in tenfold("search", "fetch", "--out", "x.npz").words
