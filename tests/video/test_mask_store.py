"""Masks on the disk."""

import numpy as np
import pytest

from tenfold.errors import DataError, ShapeError
from tenfold.video.mask_store import MaskStore


def test_masks_come_back_and_missing_ones_are_empty(tmp_path):
    masks = np.random.default_rng(0).random((4, 21, 33)) < 0.3
    masks[2] = False
    with MaskStore(tmp_path / "masks", (21, 33), write=True) as store:
        for number in (3, 0, 2):
            store.write(number, masks[number])
    with MaskStore(tmp_path / "masks", (21, 33)) as store:
        for number, mask in zip(range(5), store, strict=False):
            expected = masks[number] if number in (0, 3) else np.zeros((21, 33), np.bool_)
            np.testing.assert_array_equal(mask, expected)
        assert store.records.read(2) == b""


def test_a_mask_is_a_picture_that_can_be_laid_over_its_frame(tmp_path):
    import io

    from PIL import Image

    mask = np.zeros((8, 10), np.bool_)
    mask[2:4, 3:7] = True
    with MaskStore(tmp_path / "masks", (8, 10), write=True) as store:
        store.write(0, mask)
        seen = np.asarray(Image.open(io.BytesIO(store.records.read(0))).convert("RGBA"))
    np.testing.assert_array_equal(seen[..., 3] == 255, mask)
    np.testing.assert_array_equal(seen[..., 3] == 0, ~mask)


def test_masks_of_another_size_and_damaged_ones_are_refused(tmp_path):
    with MaskStore(tmp_path / "masks", (8, 10), write=True) as store:
        with pytest.raises(ShapeError, match="mask of frame 0 is bool"):
            store.write(0, np.zeros((8, 11), np.bool_))
        store.write(0, np.ones((8, 10), np.bool_))
        store.records.append(1, b"nonsense")
        with pytest.raises(DataError, match=r"mask 1 .* is damaged"):
            store.read(1)
    with MaskStore(tmp_path / "masks", (9, 10)) as store, pytest.raises(DataError, match="another size than its video"):
        store.read(0)
