"""Blocks that are several cells at once."""

import numpy as np
import pytest
import torch
from torch import nn

from tenfold.cost import profile
from tenfold.errors import UsageError
from tenfold.layers.cell import CellBlock
from tenfold.layers.cell_gene import Gene
from tenfold.models.autospace import Skeleton
from tenfold.search import CellSpace
from tenfold.search.supernet import MixedBlock, cell_supernet, found_architecture, mixed_blocks, plain_network

GENES = [Gene.parse(text) for text in ("512112/2/00", "355125/0/11", "912112/2/00", "232153/1/10", "555153/1/01")]
MICRO = Skeleton(4, 1, 4, ((6, 2, 1), (8, 2, 2)), 16)


def _block(candidates=GENES, stride=1, channels=(4, 4), scores=None):
    torch.manual_seed(0)
    block = MixedBlock(*channels, stride, 8, CellSpace())
    for module in block.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.3)
    block.arrange(candidates, scores or [0.0] * len(candidates))
    return block.double()


@pytest.mark.parametrize(("stride", "channels"), [(1, (4, 4)), (2, (4, 6))])
def test_one_candidate_is_an_ordinary_block(stride, channels):
    x = torch.randn(6, 4, 9, 9, dtype=torch.float64)
    for gene in GENES:
        block = _block([gene], stride, channels)
        cell = CellBlock(*channels, gene, stride).double()
        block.fill(cell)
        torch.testing.assert_close(block.train()(x), cell.train()(x))
        torch.testing.assert_close(block.eval()(x), cell.eval()(x))


def test_candidates_of_different_widths_add_up_by_their_weights():
    genes, scores = [GENES[0], GENES[1], GENES[3], None], [0.4, -0.2, 0.1, 0.3]
    block = _block(genes, scores=scores)
    x = torch.randn(6, 4, 8, 8, dtype=torch.float64)
    weights = torch.softmax(torch.tensor(scores, dtype=torch.float32).double(), 0)
    expected = x.clone()
    for gene, weight in zip(genes[:3], weights, strict=False):
        expected = expected + weight * (_block([gene])(x) - x)
    torch.testing.assert_close(block(x), expected)


def test_tolls_change_the_weights_and_not_the_scores():
    block = _block(scores=[0.1] * 5)
    block.set_tolls(np.array([0.0, 0.0, 50.0, 50.0, 50.0]))
    assert block.probabilities().tolist() == pytest.approx([0.5, 0.5, 0, 0, 0])
    assert block.scores[:5].tolist() == pytest.approx([0.1] * 5)


def test_the_gradient_of_a_score_is_that_of_finite_differences():
    block = _block([*GENES, None])
    x = torch.randn(4, 4, 6, 6, dtype=torch.float64)
    aim = torch.randn(4, 4, 6, 6, dtype=torch.float64)

    def loss():
        return (block(x) * aim).mean()

    loss().backward()
    gradient = block.scores.grad[:6].clone()
    for at in range(6):
        values = []
        for step in (1e-5, -1e-5):
            with torch.no_grad():
                block.scores[at] += step
                values.append(float(loss()))
                block.scores[at] -= step
        assert float(gradient[at]) == pytest.approx((values[0] - values[1]) / 2e-5, rel=1e-5, abs=1e-9)
    assert gradient.abs().max() > 1e-4


def test_the_only_useful_cell_rises_and_the_useless_ones_fall():
    """Only the 7x7 kernel has its teacher's weights; scores alone are trained."""
    block = _block(GENES)
    teacher = CellBlock(4, 4, GENES[2]).double()
    block.fill(teacher)
    optimizer = torch.optim.Adam([block.scores], lr=0.05)
    for step in range(30):
        x = torch.randn(8, 4, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(step))
        optimizer.zero_grad()
        ((block(x) - teacher(x).detach()) ** 2).mean().backward()
        optimizer.step()
    scores = block.scores[:5].tolist()
    assert max(scores) == scores[2] > 0.5
    assert sorted(scores)[-2] < 0.3


def test_few_paths_are_drawn_the_same_by_the_same_generator_and_likelier_ones_more_often():
    block = _block(scores=[2.0, 0, 0, 0, 0])
    counts = [0] * 5
    for seed in range(200):
        block.draw(2, torch.Generator().manual_seed(seed))
        drawn = list(block._drawn)
        block.draw(2, torch.Generator().manual_seed(seed))
        assert block._drawn == drawn
        for index in drawn:
            counts[index] += 1
    assert counts[0] > 150 > max(counts[1:]) > min(counts[1:]) > 20
    x = torch.randn(4, 4, 6, 6, dtype=torch.float64)
    block.draw(2, torch.Generator().manual_seed(0))
    block(x).sum().backward()
    assert [at for at, g in enumerate(block.scores.grad.tolist()) if g] == block._drawn


@pytest.mark.parametrize("stride", [1, 2])
def test_costs_are_those_that_the_profiler_counts(stride):
    block = MixedBlock(4, 6, stride, 8, CellSpace())
    block.arrange(GENES, [0.0] * 5)
    for gene, cost in zip(GENES, block.costs(7, 9), strict=True):
        counted = profile(CellBlock(4, 6, gene, stride), (4, 7, 9))
        assert cost.tolist() == [counted.macs, counted.params]


def test_a_block_refuses_what_it_cannot_be():
    block = MixedBlock(4, 6, 1, 8, CellSpace())
    with pytest.raises(UsageError, match="changes the shape cannot be left out"):
        block.arrange([None], [0.0])
    with pytest.raises(
        UsageError, match=r"cell 517115/2/00 has code 7 on edge 12.*Allowed are its own codes, and 7 and 9 on edge 01"
    ):
        block.arrange([Gene.parse("515115/2/00").with_codes(e12=7)], [0.0])


@pytest.mark.parametrize("head", [None, "lraspp", "multires"])
def test_a_choice_becomes_an_ordinary_network_with_the_same_answers(head):
    torch.manual_seed(0)
    network = cell_supernet(MICRO, capacity=4, space=CellSpace(), num_classes=3, in_channels=2, head=head)
    chosen = [GENES[1], None, GENES[4], GENES[2]]
    for block, candidate in zip(mixed_blocks(network).values(), chosen, strict=True):
        block.arrange([candidate], [0.0])
    x = torch.randn(3, 2, 16, 16)
    with torch.no_grad():
        network.train()(x)
        plain = plain_network(network, chosen)
        assert not mixed_blocks(plain)
        torch.testing.assert_close(plain.eval()(x), network.eval()(x))
    options = plain.architecture.options if head is None else plain.architecture.options["options"]
    genes = [gene for *_, gene in options["blocks"]]
    assert genes == ["512112/0/00", str(GENES[1]), "skip", str(GENES[4]), str(GENES[2])]
    assert found_architecture(network, chosen).options["num_classes"] == 3
    assert sum(p.numel() for p in plain.parameters()) < sum(p.numel() for p in network.parameters())
