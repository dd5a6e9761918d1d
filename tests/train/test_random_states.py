import random

import numpy as np
import torch

from tenfold.train.random_states import random_states, restore_random_states, seed_everything, untouched_random_states
from tenfold.train.state_tree import pack, unpack

CPU = torch.device("cpu")


def draw():
    return (torch.rand(3).tolist(), torch.randn(3).tolist(), np.random.normal(size=3).tolist(), random.gauss(0, 1))


def test_restored_states_give_the_same_numbers_even_after_packing():
    seed_everything(1)
    draw()  # leaves a second Gaussian number waiting in Python's and numpy's generators
    states = random_states(CPU)
    first = draw()
    restore_random_states(unpack(*pack(states)), CPU)
    assert draw() == first


def test_untouched_really_is():
    seed_everything(2)
    expected = draw()
    seed_everything(2)
    with untouched_random_states(CPU):
        draw()
        seed_everything(99)
    assert draw() == expected
