import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tenfold.errors import CheckpointError
from tenfold.train.state_tree import pack, unpack

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: (
        st.lists(inner)
        | st.lists(inner).map(tuple)
        | st.dictionaries(st.text(), inner)
        | st.dictionaries(st.integers(), inner)
    ),
    max_leaves=12,
)


@given(values)
def test_plain_trees_survive_exactly(tree):
    import json

    skeleton, tensors = pack(tree)
    again = unpack(json.loads(json.dumps(skeleton, allow_nan=False)), tensors)
    assert repr(again) == repr(tree)  # repr tells -0.0 from 0.0 and tuples from lists


def test_tensors_keep_their_bits_and_their_layout():
    tree = {
        "state": {
            0: {"momentum": torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last), "step": torch.tensor(7.0)}
        },
        "half": torch.tensor([1.5, math.inf], dtype=torch.bfloat16),
        "transposed": torch.randn(3, 4).t(),
        "empty": torch.empty(0, 3),
    }
    again = unpack(*pack(tree))
    for was, now in (
        (tree["state"][0]["momentum"], again["state"][0]["momentum"]),
        (tree["state"][0]["step"], again["state"][0]["step"]),
        (tree["half"], again["half"]),
        (tree["transposed"], again["transposed"]),
        (tree["empty"], again["empty"]),
    ):
        assert torch.equal(was, now)
        assert was.stride() == now.stride()
        assert was.dtype == now.dtype


def test_packed_tensors_are_copies():
    original = torch.zeros(3)
    _, tensors = pack([original, original])
    original.add_(1)
    assert all(torch.equal(tensor, torch.zeros(3)) for tensor in tensors.values())


def test_equal_paths_do_not_hide_each_other():
    tree = {"a/b": torch.tensor(1), "a": {"b": torch.tensor(2)}, "c": {1: torch.tensor(3), "1": torch.tensor(4)}}
    again = unpack(*pack(tree))
    assert (again["a/b"], again["a"]["b"], again["c"][1], again["c"]["1"]) == (1, 2, 3, 4)


def test_what_cannot_be_saved_is_named_with_its_place():
    with pytest.raises(CheckpointError, match=r"cannot save methods/1/rng: it is a object"):
        pack({"methods": [{}, {"rng": object()}]})


def test_not_finite_numbers_survive():
    again = unpack(*pack([math.inf, -math.inf, math.nan]))
    assert again[:2] == [math.inf, -math.inf]
    assert math.isnan(again[2])
