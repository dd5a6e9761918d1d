"""The space of genes, and populations in it."""

import random

from tenfold.layers.cell_gene import EDGES, REFERENCE_CELLS, Gene
from tenfold.models import LEARNED_SPACE
from tenfold.search import CellSpace
from tenfold.search.population import Population

SPACE = CellSpace()


def _places(gene):
    return [*gene.edges, gene.dim, *gene.mix]


def test_the_space_has_the_genes_of_the_published_alphabets():
    genes = set(SPACE)
    assert len(genes) == SPACE.size == 3**3 * 4**2 * 3 * 4
    assert all(gene in SPACE for gene in genes)
    assert all(gene in genes for layer in LEARNED_SPACE for gene in layer)
    assert Gene.parse("712112/2/00") not in SPACE
    assert Gene.parse("512512/2/00") not in SPACE


def test_draws_reach_every_value_of_every_place():
    rng = random.Random(0)
    drawn = [SPACE.draw(rng) for _ in range(300)]
    assert all(gene in SPACE for gene in drawn)
    for edge in EDGES:
        assert {gene.code(edge) for gene in drawn} == set(SPACE.codes(edge))
    assert {(gene.dim, *gene.mix) for gene in drawn} == {(d, a, b) for d in range(3) for a in (0, 1) for b in (0, 1)}


def test_a_mutation_changes_one_place_and_reaches_every_neighbour():
    rng = random.Random(1)
    gene = Gene.parse("535125/1/10")
    children = {SPACE.mutate(gene, rng) for _ in range(600)}
    neighbours = {one for one in SPACE if sum(a != b for a, b in zip(_places(one), _places(gene), strict=True)) == 1}
    assert children == neighbours


def test_a_crossover_takes_each_place_from_a_parent():
    rng = random.Random(2)
    one, other = Gene.parse("225125/0/00"), Gene.parse("553152/2/11")
    children = {SPACE.crossover(one, other, rng) for _ in range(200)}
    for child in children:
        assert all(c in (a, b) for a, b, c in zip(_places(one), _places(other), _places(child), strict=True))
    assert len(children) > 50


def _worth(gene):
    """A made-up quality with a single best gene, and pairs of places that matter together."""
    target = Gene.parse("553125/1/10")
    equal = [a == b for a, b in zip(_places(gene), _places(target), strict=True)]
    return sum(equal) + 1.5 * (equal[0] and equal[2]) + 1.5 * (equal[4] and equal[6])


def _evolved(seed, rounds):
    rng = random.Random(seed)
    population = Population(SPACE, 24, REFERENCE_CELLS)
    population.fill(rng)
    seen = set()
    for number in range(rounds):
        chosen = population.select(4, rng, tournament=4, mutation=0.7, crossover=0.15, generation=number)
        assert len(set(chosen)) == 4
        assert not set(chosen) & set(REFERENCE_CELLS)
        for gene in chosen:
            population.score(gene, _worth(gene) + rng.gauss(0, 0.3), 0.5)
            seen.add(gene)
        assert len(population.members) == 24
    return population, seen


def test_evolution_finds_a_planted_optimum_with_far_fewer_trials_than_chance():
    top = sorted((_worth(gene) for gene in SPACE), reverse=True)[SPACE.size // 100]
    found, trials = [], []
    for seed in range(5):
        population, seen = _evolved(seed, 50)
        found.append(_worth(population.best(1)[0].gene))
        trials.append(len(seen))
    assert sum(worth >= top for worth in found) >= 4
    # By chance, one of a hundred is among the best hundredth; these are the best few of 5184.
    chance = [max(_worth(SPACE.draw(random.Random(1000 * s + i))) for i in range(max(trials))) for s in range(5)]
    assert max(trials) <= 200
    assert sum(found) > sum(chance) + 5


def test_only_what_was_tried_is_kept_and_the_state_comes_back():
    population, seen = _evolved(3, 5)
    best = population.best(6)
    assert [one.fitness for one in best] == sorted((one.fitness for one in best), reverse=True)
    assert all(one.gene in seen for one in best)
    again = Population(SPACE, 24, REFERENCE_CELLS)
    again.load(population.state())
    assert again.members == population.members


def test_an_empty_space_gives_what_there_is():
    space = CellSpace(chain=(5,), around=(1, 5), dims=(1,), mixes=(0,))
    population = Population(space, 10, (Gene.parse("515115/1/00"),))
    population.fill(random.Random(0))
    assert len(population.members) == 3
    chosen = population.select(4, random.Random(0), tournament=2, mutation=1.0, crossover=0.0, generation=0)
    assert sorted(map(str, chosen)) == ["515155/1/00", "555115/1/00", "555155/1/00"]
