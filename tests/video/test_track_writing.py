import json
from fractions import Fraction

import numpy as np
import pytest

from tenfold.data.run_lengths import decode_mask
from tenfold.errors import StorageError
from tenfold.tasks.track_files import TrackTruth, VideoFacts, read_results
from tenfold.video.segment import Seen
from tenfold.video.track_writing import TrackWriter

SIZE = (6, 8)


def mask(*pixels):
    drawn = np.zeros(SIZE, np.bool_)
    for y, x in pixels:
        drawn[y, x] = True
    return drawn


FRAMES = [
    {},
    {2: Seen(mask((1, 1), (1, 2)), 1, 0.5)},
    {2: Seen(mask((1, 2)), 2, 0.7), 9: Seen(mask((5, 7)), 1, 1.0)},
    {2: Seen(mask((2, 2)), 2, 0.9)},
]


@pytest.fixture
def written(tmp_path):
    with TrackWriter(tmp_path / "tracks.json", SIZE, {1: "dog", 2: "cat"}) as writer:
        for number, seen in enumerate(FRAMES):
            writer.add(seen, Fraction(number, 25))
    return tmp_path / "tracks.json"


def test_an_entry_holds_what_was_seen_on_each_frame(written):
    first, second = json.loads(written.read_text())
    assert (first["id"], first["category_id"], first["category"], first["score"]) == (2, 2, "cat", 0.7)
    assert (first["height"], first["width"], first["times"]) == (6, 8, [0, 0.04, 0.08, 0.12])
    assert first["frame_scores"] == [0, 0.5, 0.7, 0.9]
    assert first["segmentations"][0] is None
    for seen, code in zip(FRAMES[1:], first["segmentations"][1:], strict=True):
        assert np.array_equal(decode_mask(code, *SIZE), seen[2].mask)
    assert (second["id"], second["category"]) == (9, "dog")
    assert [code is None for code in second["segmentations"]] == [True, True, False, True]


def test_the_file_is_read_as_results_of_youtube_vis(written):
    facts = VideoFacts(id=1, width=8, height=6, length=4)
    tracks = read_results(written, TrackTruth(videos={1: facts}, categories={1: "dog", 2: "cat"}))
    assert [track.areas for track in tracks] == [(None, 2, 1, 1), (None, None, 1, None)]
    assert tracks[0].frame_scores == (0, 0.5, 0.7, 0.9)


def test_a_video_without_objects_is_an_empty_list(tmp_path):
    with TrackWriter(tmp_path / "tracks.json", SIZE, {1: "object"}) as writer:
        writer.add({}, Fraction(0))
    assert json.loads((tmp_path / "tracks.json").read_text()) == []


def test_after_an_error_what_stood_there_is_untouched(tmp_path):
    path = tmp_path / "tracks.json"
    path.write_text("before")
    with pytest.raises(ZeroDivisionError), TrackWriter(path, SIZE, {1: "object"}) as writer:
        writer.add(FRAMES[1], Fraction(1, 0))
    assert path.read_text() == "before"
    assert list(tmp_path.iterdir()) == [path]


def test_a_place_that_cannot_be_written_is_said(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="file"):
        TrackWriter(tmp_path / "file" / "tracks.json", SIZE, {1: "object"})
