"""Random choices depend on their coordinates alone, and are spread as they should be."""

import random

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tenfold.data import Draws, stratified_order

MASK = 2**64 - 1


def split_mix(state):
    """SplitMix64 by its published definition, in Python's own integers."""
    z = (state + 0x9E3779B97F4A7C15) & MASK
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK
    return z ^ (z >> 31)


@given(seed=st.integers(-(2**40), 2**40), epoch=st.integers(0, 1000), choice=st.integers(0, 99))
def test_numbers_equal_the_published_hash(seed, epoch, choice):
    indices = [0, 1, 7, 10**9]
    state = 0
    for part in (seed, epoch, choice):
        state = split_mix(state ^ (part & MASK))
    expected = [(split_mix(state ^ index) >> 11) / 2**53 for index in indices]
    assert Draws(seed, epoch, np.array(indices)).uniform(choice).tolist() == expected


def test_a_number_does_not_depend_on_the_company_it_is_drawn_in():
    together = Draws(3, 5, np.arange(100)).uniform(2)
    alone = [Draws(3, 5, np.array([index])).uniform(2)[0] for index in range(100)]
    np.testing.assert_array_equal(together, alone)


@pytest.mark.parametrize("other", [Draws(4, 5, np.arange(4000)), Draws(3, 6, np.arange(4000))])
def test_seeds_epochs_and_choices_give_independent_numbers(other):
    first = Draws(3, 5, np.arange(4000))
    for a, b in ((first.uniform(0), other.uniform(0)), (first.uniform(0), first.uniform(1))):
        assert abs(np.corrcoef(a, b)[0, 1]) < 0.06  # about four standard errors
        assert abs(a.mean() - 0.5) < 0.02
    counts = np.bincount(first.integers(0, 9), minlength=9)
    assert len(counts) == 9
    assert ((counts - 4000 / 9) ** 2 / (4000 / 9)).sum() < 26  # chi-squared, 8 degrees of freedom, one in a thousand


def test_order_holds_every_index_once():
    indices = np.arange(10, 1010)
    order = Draws(0, 0, indices).order()
    assert sorted(order) == list(indices)
    assert (order != indices).mean() > 0.9
    assert (order != Draws(0, 1, indices).order()).mean() > 0.9


def test_global_random_states_are_left_alone():
    before = random.getstate(), np.random.get_state()[1].copy(), torch.random.get_rng_state()
    Draws(0, 0, np.arange(10)).order()
    stratified_order(np.zeros(10, np.int64))
    assert random.getstate() == before[0]
    assert (np.random.get_state()[1] == before[1]).all()
    assert torch.equal(torch.random.get_rng_state(), before[2])


@given(st.lists(st.integers(0, 4), min_size=1, max_size=200), st.integers(0, 10))
def test_every_beginning_holds_the_classes_in_proportion(targets, seed):
    targets = np.array(targets)
    order = stratified_order(targets, seed)
    assert sorted(order) == list(range(len(targets)))
    shares = np.bincount(targets, minlength=5) / len(targets)
    for length in range(1, len(targets) + 1):
        # Each class rounds for itself, so a prefix may be off by one for the class and one for the sum of the others.
        assert (np.abs(np.bincount(targets[order[:length]], minlength=5) - length * shares) < 3).all()


def test_another_seed_gives_another_order():
    targets = np.arange(200) % 4
    assert (stratified_order(targets, 0) != stratified_order(targets, 1)).any()
    np.testing.assert_array_equal(stratified_order(targets, 1), stratified_order(targets, 1))
