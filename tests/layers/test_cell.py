"""Cells: genes and their written forms, and the graph that a gene stands for."""

import itertools

import pytest
import torch
from torch.nn import functional as F

from tenfold.cost import profile
from tenfold.errors import UsageError
from tenfold.layers.cell import Cell, CellBlock, Pool
from tenfold.layers.cell_gene import REFERENCE_CELLS, Gene
from tenfold.models.mobilenet_v2 import InvertedResidual


def _warm(module, *shape):
    """Let batch norms see something, so that eval mode neither kills nor blows up the signal."""
    for one in module.modules():
        if isinstance(one, torch.nn.BatchNorm2d):
            one.momentum = 1.0
            torch.nn.init.uniform_(one.weight, 0.5, 1.5)
            torch.nn.init.normal_(one.bias, std=0.3)
    with torch.no_grad():
        module.train()(torch.randn(*shape))
    return module.eval()


@pytest.mark.parametrize(("gene", "kernel"), [("512112/2/00", 3), ("712112/2/00", 5), ("912112/2/00", 7)])
@pytest.mark.parametrize(("out_channels", "stride"), [(4, 1), (6, 2)])
def test_chains_of_one_kernel_are_inverted_residuals(gene, kernel, out_channels, stride):
    torch.manual_seed(0)
    block = _warm(CellBlock(4, out_channels, Gene.parse(gene), stride), 8, 4, 9, 9)
    twin = InvertedResidual(4, out_channels, stride, 6)
    twin.depthwise.conv = torch.nn.Conv2d(24, 24, kernel, stride, kernel // 2, groups=24, bias=False)
    twin.expand.relu = twin.depthwise.relu = torch.nn.ReLU6()
    twin.load_state_dict({n.replace("cell.edge01", "depthwise"): t for n, t in block.state_dict().items()})
    x = torch.randn(2, 4, 9, 9)
    with torch.no_grad():
        assert torch.equal(block(x), twin.eval()(x))


def test_a_chain_of_identities_is_a_linear_bottleneck():
    torch.manual_seed(0)
    block = _warm(CellBlock(4, 6, Gene.parse("212112/1/00")), 8, 4, 5, 5)
    x = torch.randn(2, 4, 5, 5)
    with torch.no_grad():
        assert torch.equal(block(x), block.project(block.expand(x)))
    assert not list(block.cell.parameters())


def test_a_node_gates_the_chain_by_what_arrives_around_it():
    """The whole formula once more, by hand: both nodes gated, with a pooled edge."""
    torch.manual_seed(0)
    cell = _warm(Cell(Gene.parse("555135/0/11"), 3, stride=2), 8, 3, 8, 8)
    x = torch.randn(2, 3, 8, 8)
    with torch.no_grad():
        one, around = cell.edge01(x), cell.edge02(x)
        two = cell.edge12(one) * torch.sigmoid(around.mean((2, 3), keepdim=True))
        pooled = F.avg_pool2d(one, 3, 1, 1, count_include_pad=False)
        expected = cell.edge23(two) * torch.sigmoid(pooled.mean((2, 3), keepdim=True))
        torch.testing.assert_close(cell(x), expected)
        added = Cell(Gene.parse("555135/0/00"), 3, stride=2).eval()
        added.load_state_dict(cell.state_dict())
        expected = pooled + added.edge23(added.edge12(one) + around)
        torch.testing.assert_close(added(x), expected)


def test_a_gate_with_nothing_around_leaves_the_chain_alone():
    torch.manual_seed(0)
    plain, gated = (_warm(Cell(Gene.parse(f"515115/0/{mix}"), 3), 4, 3, 6, 6) for mix in ("00", "11"))
    gated.load_state_dict(plain.state_dict())
    x = torch.randn(2, 3, 6, 6)
    with torch.no_grad():
        assert torch.equal(plain(x), gated(x))


@pytest.mark.parametrize("side", [7, 8])
def test_every_operation_gives_the_same_size(side):
    for codes in itertools.product((2, 3, 5, 7, 9), (1, 2, 3, 5)):
        gene = Gene.parse("{}{}2152/0/00".format(*codes))
        for stride in (1, 2):
            shape = Cell(gene, 2, stride).eval()(torch.zeros(1, 2, side, side)).shape
            assert shape == (1, 2, -(-side // stride), -(-side // stride))


def test_pools_average_what_is_in_the_image():
    x = torch.arange(9.0).reshape(1, 1, 3, 3)
    assert Pool(2, 2)(x).flatten().tolist() == [2.0, 3.5, 6.5, 8.0]
    assert Pool(3, 2)(x).flatten().tolist() == [2.0, 3.0, 5.0, 6.0]


@pytest.mark.parametrize("gene", ["555153/0/00", "752155/1/10", "333333/2/11", "912112/2/01", "252922/1/00"])
def test_cost_is_that_of_the_depthwise_kernels(gene):
    gene = Gene.parse(gene)
    counted = profile(Cell(gene, 4 * gene.expansion, stride=2), (4 * gene.expansion, 12, 12))
    assert counted.macs == gene.weights(4) * 6 * 6
    norms = sum(code > 3 for code in gene.edges) * 2 * 4 * gene.expansion
    assert counted.params == gene.weights(4) + norms


def test_the_receptive_field_is_where_a_gradient_comes_from():
    for text in ("515115/0/00", "252122/0/00", "922122/0/00", "313133/0/00", "355152/0/00"):
        gene = Gene.parse(text)
        cell = Cell(gene, 1).double().eval()
        for name, weight in cell.named_parameters():
            torch.nn.init.constant_(weight, 0.001 if name.endswith("conv.weight") else 1.0)
        x = torch.ones(1, 1, 41, 41, dtype=torch.float64, requires_grad=True)
        cell(x)[0, 0, 20, 20].backward()
        assert int((x.grad[0, 0, 20] != 0).sum()) == gene.receptive_field(), text


def test_kernels_of_the_chain_merge_as_the_published_network_has_them():
    assert [str(one) for one in Gene.parse("555155/1/10").merged()] == ["752155/1/10"]
    assert [str(one) for one in Gene.parse("515115/2/00").merged()] == ["712115/2/00", "912112/2/00"]
    assert Gene.parse("255125/1/00").merged() == []
    fields = [gene.receptive_field() for gene in REFERENCE_CELLS]
    assert fields == [7, 5, 3]
    for gene in REFERENCE_CELLS:
        assert all(one.receptive_field() == gene.receptive_field() for one in gene.merged())


def test_written_forms_are_read_back():
    for text in ("752155/1/10", "333123/0/01"):
        gene = Gene.parse(text)
        assert str(gene) == text
        config = {"build_graph": gene.to_table(), "num_nodes": 4, "dim_conv_idx": gene.dim, "kernel_size": 3}
        assert Gene.from_config({**config, "feature_mix_mode_idx": list(gene.mix)}) == gene
    # The first cell of the published network, in the authors' words.
    graph = [[0, 0, 0, 2], [5, 0, 0, [0, 0]], [1, 2, 0, 0], [1, 1, 2, 0]]
    assert Gene.from_config({"build_graph": graph, "expand_ratio": 6}) == Gene.parse("512112/2/00")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("112112/2/00", "edge 01 has code 1; allowed are 2, 3, 5, 7, 9"),
        ("512142/2/00", "edge 13 has code 4; allowed are 1, 2, 3, 5, 7, 9"),
        ("512112/3/00", "dim is 3; allowed are 0, 1, 2"),
        ("512112/2/02", "mix is .0, 2.; allowed are two bits"),
        ("51211/2/00", "it is six codes, dim and two bits, such as 512112/2/00"),
        ("", "is no gene of a cell"),
    ],
)
def test_what_is_no_gene_is_refused(text, reason):
    with pytest.raises(UsageError, match=reason):
        Gene.parse(text)


def test_a_configuration_that_contradicts_itself_is_refused():
    table = Gene.parse("512112/2/00").to_table()
    for key, value in {"dim_conv_idx": 1, "num_nodes": 5, "expand_ratio": 3, "feature_mix_mode_idx": [0, 1]}.items():
        with pytest.raises(UsageError, match=f"512112/2/00: {key} is .* but its build_graph says"):
            Gene.from_config({"build_graph": table, key: value})
    with pytest.raises(UsageError, match="build_graph must be a table of 4 rows of 4"):
        Gene.from_config({"build_graph": table[:3]})
    with pytest.raises(UsageError, match="edge 12 has code 0"):
        Gene.from_config({"build_graph": [[0, 0, 0, 2], [5, 0, 0, [0, 0]], [1, 0, 0, 0], [1, 1, 2, 0]]})
