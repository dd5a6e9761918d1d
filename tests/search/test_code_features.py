"""What predictors are told of a code beside its numbers."""

import numpy as np
import torch

from tenfold.search import create_predictor
from tenfold.search.code_features import live_counts, live_operations
from tenfold.search.code_spaces import NAS_BENCH_201


def test_what_is_live_in_a_cell_is_what_lies_on_a_way_through_it():
    space = NAS_BENCH_201
    codes = space.random(400, np.random.default_rng(0))
    found = live_operations(torch.from_numpy(space.to_points(codes))).unflatten(1, (6, 4)).numpy()
    ways = [(3,), (0, 4), (1, 5), (0, 2, 5)]  # edges from the input, node 0, to the output, node 3
    real = [at for at, name in enumerate(space.options) if name != "none"]
    for code, row in zip(codes, found, strict=True):
        open_ways = [way for way in ways if all(space.options[code[edge]] != "none" for edge in way)]
        live = {edge for way in open_ways for edge in way}
        wanted = np.array([[edge in live and code[edge] == at for at in real] for edge in range(6)])
        assert np.array_equal(row, wanted)
    counts = live_counts(torch.from_numpy(space.to_points(codes))).numpy()
    assert np.array_equal(counts, found.sum(1))


def test_cells_that_differ_in_dead_edges_only_are_alike_to_a_process():
    space = NAS_BENCH_201
    codes = space.random(60, np.random.default_rng(1))
    values = live_counts(torch.from_numpy(space.to_points(codes))).numpy() @ [0.5, 0.2, 1.0, 2.0]
    process = create_predictor("gp", space).fit(codes, values)
    none, conv = space.options.index("none"), space.options.index("nor_conv_3x3")
    # 0->1 and 1->2 and 1->3 shut: what stands in 1->2 reaches nothing.
    dead = np.array([[none, conv, one, conv, none, conv] for one in range(5)])
    assert np.ptp(process.predict(dead).mean) < 1e-9
    assert np.ptp(process.predict(np.array([[none, one, conv, conv, none, conv] for one in range(5)])).mean) > 0.1
