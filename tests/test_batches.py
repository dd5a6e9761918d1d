from typing import NamedTuple

import pytest
import torch

from tenfold.batches import call, first_rows, length, placed
from tenfold.errors import DataError


class Scene(NamedTuple):
    image: torch.Tensor
    boxes: tuple[torch.Tensor, torch.Tensor]


def scene(count=3):
    return Scene(torch.randn(count, 3, 4, 5), (torch.randn(count, 2, 4), torch.ones(count, 2, dtype=torch.bool)))


def test_a_tuple_becomes_the_arguments_of_the_network():
    assert call(lambda image, boxes: (image.shape, len(boxes)), scene()) == ((3, 3, 4, 5), 2)
    assert call(torch.neg, torch.ones(2)).tolist() == [-1, -1]


def test_a_placed_batch_keeps_its_form_and_its_values():
    batch = scene()
    there = placed(batch, torch.device("meta"))
    assert isinstance(there, Scene)
    assert {there.image.device.type, there.boxes[0].device.type} == {"meta"}
    same = placed(batch, torch.device("cpu"), channels_last=True)
    assert torch.equal(same.image, batch.image)
    assert same.image.is_contiguous(memory_format=torch.channels_last)
    assert same.boxes[0].is_contiguous()  # three axes: no image


def test_the_first_samples_of_every_tensor_are_taken():
    few = first_rows(scene(), 2)
    assert isinstance(few, Scene)
    assert [len(few.image), len(few.boxes[0]), len(few.boxes[1])] == [2, 2, 2]
    assert len(first_rows(torch.zeros(3), 5)) == 3


def test_the_length_of_a_batch_is_that_of_all_its_tensors():
    assert length(scene(4)) == 4
    assert length(torch.zeros(5, 2)) == 5
    with pytest.raises(DataError, match=r"tensors of \[2, 3\] samples; the first axis of all must be the batch"):
        length((torch.zeros(3), torch.zeros(2)))
    with pytest.raises(DataError, match="tensors of no samples"):
        length(())
