"""`tenfold search ncp`."""

import json

from PIL import Image

from search.test_tables import small_table
from tenfold.search.tables import write_table


def test_the_command_leaves_codes_and_a_picture(tenfold, tmp_path):
    write_table(small_table(), tmp_path / "table.parquet")
    words = ("search", "ncp", tmp_path / "table.parquet", "--target", "seg", "--predictor", "gp", "--starts", "4")
    done = tenfold(*words, "--budget", "macs=400M", "--out", tmp_path / "run", "--json")
    assert done.code == 0, done.err
    assert done.json["best"]["costs"]["macs"] <= 400_000_000
    kept = json.loads((tmp_path / "run" / "result.json").read_text())
    assert kept["best"]["code"] == done.json["best"]["code"]
    with Image.open(tmp_path / "run" / "front.png") as picture:
        assert picture.size == (900, 600)
    assert not done.json["proposed"]
    asked = tenfold(*words, "--propose", "3", "--out", tmp_path / "next", "--json")
    assert json.loads((tmp_path / "next" / "proposed.json").read_text()) == [
        one["code"] for one in asked.json["proposed"]
    ]
    shown = tenfold(*words, "--budget", "macs=400M", "--out", tmp_path / "run")
    assert "best" in shown.out
    assert tenfold(*words, "--image", "big").code == 2
