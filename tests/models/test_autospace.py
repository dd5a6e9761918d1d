"""AutoSpace: the published network and space against the decoded files of the authors."""

import json

import pytest
import torch

from tenfold.cost import profile
from tenfold.errors import UsageError
from tenfold.layers.cell_gene import EDGES, REFERENCE_CELLS, Gene
from tenfold.models import LEARNED_SPACE, Architecture, build


@pytest.fixture(scope="module")
def folder(shared):
    return shared / "reference" / "autospace"


def _gene(described):
    codes = "".join(str(described["edges"][edge]) for edge in EDGES)
    return Gene.parse(f"{codes}/{described['dim']}/{''.join(map(str, described['mix']))}")


def test_the_published_network_is_that_of_the_authors_file_block_by_block(folder):
    expected = json.loads((folder / "learned_net_340m.json").read_text())
    network = build("autospace_340m")
    counted = profile(network, (3, 224, 224))
    totals = expected["totals"]
    assert (counted.macs, counted.params) == (totals["macs_conv_and_fc"], totals["params_total"])
    sizes = {name: tensor.numel() for name, tensor in network.named_parameters()}
    norms = sum(size for name, size in sizes.items() if ".bn." in name)
    head = sum(size for name, size in sizes.items() if name.startswith("classifier"))
    assert (norms, head) == (totals["bn_affine"], totals["fc_params"])
    assert sum(sizes.values()) - norms - head == totals["conv_params"]
    assert {module.eps for module in network.modules() if hasattr(module, "eps")} == {expected["bn"]["eps"]}
    stem = sum(one.macs for one in counted.layers if one.name.startswith("stem."))
    assert stem == expected["stem"]["macs"]
    for (name, channels, stride), gene, block in zip(network.places, network.genes(), expected["blocks"], strict=True):
        macs = sum(one.macs for one in counted.layers if one.name.startswith(f"{name}."))
        convs = sum(s for n, s in sizes.items() if n.startswith(f"{name}.") and "conv" in n)
        affine = sum(s for n, s in sizes.items() if n.startswith(f"{name}.") and ".bn." in n)
        assert (macs, convs, affine) == (block["macs"], block["conv_params"], block["bn_affine"]), name
        if block["type"] == "skip":
            assert gene == "skip"
            continue
        assert (channels, stride) == (block["cout"], block["stride"])
        assert network.get_submodule(name).is_residual == block["shortcut"]
        assert Gene.parse(gene).expansion == block["expand"]
        if block["type"] == "cell":
            assert Gene.parse(gene) == _gene(block["gene"])
        else:
            assert gene.startswith("512112/")
            assert block["kernel"] == 3


def test_the_published_space_is_that_of_the_authors_file(folder):
    layers = json.loads((folder / "learned_space.json").read_text())["layers"]
    assert len(LEARNED_SPACE) == len(layers) == 11
    for ours, theirs in zip(LEARNED_SPACE, layers, strict=True):
        assert list(ours) == [_gene(cell) for cell in theirs["cells"]]
        assert list(ours[-3:]) == [_gene(cell) for cell in theirs["cells"] if cell["reference"]]


def test_every_cell_of_the_published_network_is_in_the_published_space_as_it_is_or_merged(folder):
    """Needs no file for our tables, but the authors' own matches say from which cell each comes, and how."""
    blocks = json.loads((folder / "learned_net_340m.json").read_text())["blocks"]
    genes = build("autospace_340m").genes()
    matched = 0
    for block, gene in zip(blocks, genes, strict=True):
        if block["type"] != "cell":
            continue
        layer = LEARNED_SPACE[(block["index"] - 1) // 2]
        for at, how, origin in block["matches"]:
            variants = {"as_is": layer[at], **dict(zip(("merge2", "merge3"), layer[at].merged(), strict=False))}
            assert str(variants[how]) == gene
            assert (layer[at] in REFERENCE_CELLS) == (origin == "reference")
            matched += 1
    assert matched == 13


def test_golden_costs_and_names_hold_without_the_reference_folder():
    counted = profile(build("autospace_340m"), (3, 224, 224))
    assert (counted.macs, counted.params) == (336_336_512, 4_507_920)
    evolved = [gene for layer in LEARNED_SPACE for gene in layer[:6]]
    # The counts of `autospace.md` section 3, over the 66 evolved cells.
    codes = [code for gene in evolved for code in gene.edges]
    assert {code: codes.count(code) for code in sorted(set(codes))} == {1: 74, 2: 113, 3: 59, 5: 150}
    assert [sum(gene.dim == dim for gene in evolved) for dim in range(3)] == [26, 19, 21]


def test_a_network_describes_itself_so_that_it_can_be_built_again():
    blocks = [[8, 1, "512112/0/00"], [12, 2, "355122/0/11"], [12, 1, "skip"], [16, 2, "752155/1/10"]]
    network = build("autospace", num_classes=5, blocks=blocks, stem=8, tail=32, stride=1, norm_epsilon=0.006)
    found = network.found_architecture()
    assert found.options["blocks"] == blocks
    again = build(Architecture.from_dict(json.loads(json.dumps(found.to_dict()))))
    again.load_state_dict(network.state_dict())
    x = torch.randn(2, 3, 20, 20)
    with torch.no_grad():
        assert torch.equal(again.eval()(x), network.eval()(x))


@pytest.mark.parametrize(
    ("block", "reason"),
    [
        ([8, 2, "skip"], r"block 2 of the table is skipped, but leads from 8 to 8 channels with stride 2"),
        ([12, 1, "skip"], r"block 2 of the table is skipped, but leads from 8 to 12 channels"),
        ([8, 1, "512112"], r'block 2 of the table: .*such as 512112/2/00.*"skip" leaves a block out'),
        ([8, 1, "112112/2/00"], r"block 2 of the table: .*edge 01 has code 1"),
    ],
)
def test_the_table_of_blocks_is_checked(block, reason):
    with pytest.raises(UsageError, match=reason):
        build("autospace", blocks=[[8, 1, "512112/0/00"], block], stem=8)
