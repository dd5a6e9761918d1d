"""The map of what is real: written, read, counted."""

import numpy as np
import pytest
from PIL import Image

from tenfold.errors import DataError, MissingDataError
from tenfold.video.provenance import (
    EARLIER,
    INVENTED,
    LATER,
    REPAIRED,
    Account,
    encode,
    read_provenance,
    write_provenance,
)


def test_codes_tell_direction_distance_and_kind():
    distance = np.array([-3, 5, -500, 0, 2])
    invented = np.array([False, False, False, True, False])
    repaired = np.array([False, False, False, False, True])
    codes = encode(invented, repaired, distance)
    assert codes.tolist() == [EARLIER + 3, LATER + 5, EARLIER + 119, INVENTED, REPAIRED]


def test_a_map_survives_its_file(tmp_path):
    codes = np.arange(256, dtype=np.uint8).reshape(16, 16)
    write_provenance(tmp_path / "map.png", codes)
    np.testing.assert_array_equal(read_provenance(tmp_path / "map.png"), codes)
    colours = np.asarray(Image.open(tmp_path / "map.png").convert("RGB"))
    assert colours[0, 1, 2] > colours[0, 1, 0]  # earlier: blue
    assert colours[15, 15, 0] > colours[15, 15, 2]  # invented: red
    Image.new("RGB", (4, 4)).save(tmp_path / "other.png")
    with pytest.raises(DataError, match="not a map of provenance"):
        read_provenance(tmp_path / "other.png")
    with pytest.raises(MissingDataError):
        read_provenance(tmp_path / "none.png")


def test_the_account_adds_up():
    account = Account()
    account.add(np.array([[0, EARLIER + 1, LATER + 1, INVENTED]], np.uint8))
    account.add(np.array([[EARLIER + 4, REPAIRED, 0, 0]], np.uint8))
    told = account.to_dict()
    assert told["frames"] == 2
    assert told["hole_pixels"] == 5
    assert told["copied_share"] == pytest.approx(0.6)
    assert told["repaired_share"] == pytest.approx(0.2)
    assert told["invented_share"] == pytest.approx(0.2)
    assert told["mean_distance_frames"] == pytest.approx(2)
    assert told["farthest_distance_frames"] == 4
    assert Account().to_dict()["copied_share"] == 0
