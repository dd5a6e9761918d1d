"""Tables of candidates: read, written, refused in words; the authors' files without running what is in them."""

import pickle

import numpy as np
import pytest

from tenfold.errors import DataError, MissingDataError, UnknownNameError, UsageError
from tenfold.search.code_costs import CodeCosts
from tenfold.search.code_spaces import MULTIRES
from tenfold.search.nas_bench_mr import read_authors_files, read_plain_pickle
from tenfold.search.origin import NAS_BENCH_MR
from tenfold.search.tables import Table, official_split, read_table, write_table


def small_table(count=40, seed=0):
    """Codes with a metric that rises with the first unit counts."""
    codes = np.unique(MULTIRES.random(count, np.random.default_rng(seed)), axis=0)
    value = codes.sum(1) / codes.sum(1).max()
    metrics = {"seg": {"mIoU": value, "mAcc": value + 1}}
    return Table(space=MULTIRES, codes=codes, metrics=metrics, origin=NAS_BENCH_MR)


def test_the_real_tables_are_read(shared):
    table = read_table(shared / "data/nas_bench_mr/nas_bench_mr.npz")
    assert {"seg", "video", "cls-50-1000"} <= table.metrics.keys()
    assert table.codes.shape[1] == 27
    assert table.main_metric("seg") == "mIoU"
    train, held = official_split(len(table.codes))
    assert len(set(train) & set(held)) == 0
    other = read_table(shared / "data/nas_bench_mr/nas_bench_201.npz")
    assert other.codes.shape == (len(other.metrics["imagenet16-120"]["top1"]), 6)


def test_a_table_comes_back_from_parquet(tmp_path):
    table = small_table()
    write_table(table, tmp_path / "t.parquet")
    again = read_table(tmp_path / "t.parquet")
    np.testing.assert_array_equal(again.codes, table.codes)
    np.testing.assert_array_equal(again.column("seg/mAcc"), table.column("seg/mAcc"))
    assert again.measured_task("seg").per_pixel
    assert again.costs_of("seg") == CodeCosts(num_classes=19, pixels=True)


def test_bad_tables_are_refused_in_words(tmp_path):
    table = small_table()
    codes, values = table.codes, table.column("seg")
    with pytest.raises(MissingDataError, match="there is no table"):
        read_table(tmp_path / "none.npz")
    cases = {
        "no column named TASK/METRIC": {"codes": codes},
        "lacks the column": {"seg/mIoU": values},
        "codes that are no numbers, or are NaN": {"codes": codes * np.nan, "seg/mIoU": values},
        "holds infinity": {"codes": codes, "seg/mIoU": values * np.inf},
        "holds pickled objects. Only plain arrays are read": {"codes": np.array([{}, 1], object)},
        "is there 2 times. Keep one row of each": {"codes": codes[[0, 1, 0]], "seg/mIoU": values[:3]},
        "code of row 0 lies outside of the space multires": {"codes": codes + 1, "seg/mIoU": values},
    }
    for number, (words, columns) in enumerate(cases.items()):
        np.savez(tmp_path / f"{number}.npz", **columns)
        with pytest.raises(DataError, match=rf"the table .*{number}\.npz cannot be used: .*({words})"):
            read_table(tmp_path / f"{number}.npz")
    (tmp_path / "pickle.npz").write_bytes(pickle.dumps([1]))
    with pytest.raises(DataError, match=r"it holds pickled objects\. Only plain arrays are read"):
        read_table(tmp_path / "pickle.npz")
    outside = codes.copy()
    outside[3, 0] = 9999
    with pytest.raises(UsageError, match="9999"):
        Table(space=MULTIRES, codes=outside, metrics={"seg": {"mIoU": values}})
    with pytest.raises(UnknownNameError, match="sag"):
        table.column("sag")


def test_a_pickle_that_would_run_code_is_not_run(tmp_path):
    class Evil:
        def __reduce__(self):
            return print, ("run",)

    folder = tmp_path / "seg"
    folder.mkdir()
    (folder / "trainval.pkl").write_bytes(pickle.dumps([Evil()]))
    with pytest.raises(DataError, match=r"asks for builtins\.print, which may run code"):
        read_plain_pickle(folder / "trainval.pkl")
    table = small_table()
    rows = [
        {"embedding": code.tolist(), "mIoU": 1.0, "mAcc": 2.0, "aAcc": 3.0, "flops": 4.0, "params": 5.0}
        for code in table.codes
    ]
    (folder / "trainval.pkl").write_bytes(pickle.dumps(rows))
    read = read_authors_files(tmp_path, ["seg"])
    np.testing.assert_array_equal(read.codes, table.codes)
    for value, words in (([1, 2], "row: not all of them have 27 numbers"), (list(range(27)), "lies outside")):
        broken = [rows[0], {**rows[1], "embedding": value}]
        (folder / "trainval.pkl").write_bytes(pickle.dumps(broken))
        with pytest.raises(UsageError, match=words):
            read_authors_files(tmp_path, ["seg"])
    (folder / "trainval.pkl").write_bytes(pickle.dumps([{**rows[0], "mAcc": 10**400}]))
    with pytest.raises(DataError, match=r"row 0 of .*: mAcc is 1000+, not a number"):
        read_authors_files(tmp_path, ["seg"])
    del rows[2]["aAcc"]
    (folder / "trainval.pkl").write_bytes(pickle.dumps(rows))
    with pytest.raises(DataError, match=r"row 2 of .* lacks aAcc"):
        read_authors_files(tmp_path, ["seg"])
