import json

import numpy as np
import pytest
from PIL import Image

from tenfold.data.clips import open_clip
from tenfold.data.object_clips import MaskedClip, open_masked_clips
from tenfold.data.run_lengths import encode_mask, run_lengths
from tenfold.data.youtube_vis import open_youtube_vis
from tenfold.errors import DataError, MissingDataError, UsageError

HEIGHT, WIDTH, COUNT = 12, 16, 4


def mask(left):
    drawn = np.zeros((HEIGHT, WIDTH), np.bool_)
    drawn[2:8, left : left + 5] = True
    return drawn


def uncompressed(drawn):
    return {"size": [HEIGHT, WIDTH], "counts": run_lengths(encode_mask(drawn)["counts"].encode())}


def content():
    names = [f"0a1b/{5 * at:05d}.jpg" for at in range(COUNT)]
    object_ = {"video_id": 7, "iscrowd": 0, "height": HEIGHT, "width": WIDTH}
    return {
        "videos": [{"id": 7, "height": HEIGHT, "width": WIDTH, "length": COUNT, "file_names": names}],
        "categories": [{"id": 40, "name": "zebra"}, {"id": 3, "name": "dog"}],
        "annotations": [
            object_ | {"id": 1, "category_id": 40, "segmentations": [encode_mask(mask(at)) for at in range(COUNT)]},
            object_ | {"id": 2, "category_id": 3, "segmentations": [None, None, None, uncompressed(mask(9))]},
            object_ | {"id": 3, "category_id": 3, "iscrowd": 1, "segmentations": [None] * COUNT},
        ],
    }


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "JPEGImages/0a1b").mkdir(parents=True)
    for at in range(COUNT):
        Image.new("RGB", (WIDTH, HEIGHT), (40 * at, 90, 20)).save(tmp_path / f"JPEGImages/0a1b/{5 * at:05d}.jpg")
    (tmp_path / "instances.json").write_text(json.dumps(content()))
    return tmp_path


def changed(folder, change):
    made = content()
    change(made)
    (folder / "instances.json").write_text(json.dumps(made))


def test_a_video_has_its_frames_masks_labels_and_ids(folder):
    (clip,) = open_youtube_vis(folder)
    assert (clip.name, len(clip), clip.height, clip.width, clip.classes) == ("0a1b", 4, 12, 16, ("dog", "zebra"))
    frames, masks, labels, ids, annotated = clip.read(2, 2)
    assert np.abs(frames[:, 5, 5].astype(int) - [[80, 90, 20], [120, 90, 20]]).max() < 6
    assert (labels.tolist(), ids.tolist(), annotated.all()) == ([1, 0], [1, 2], True)
    assert np.array_equal(masks, [[mask(2), np.zeros_like(mask(0))], [mask(3), mask(9)]])


def test_objects_that_are_not_seen_in_a_part_are_left_out(folder):
    (clip,) = open_youtube_vis(folder)
    assert clip.read(0, 2).ids.tolist() == [1]


def test_a_part_is_read_at_another_size(folder):
    (clip,) = open_youtube_vis(folder / "instances.json", folder / "JPEGImages")
    part = clip.read(0, 1, (6, 8))
    assert (part.frames.shape, part.masks.shape) == ((1, 6, 8, 3), (1, 1, 6, 8))
    assert part.masks.sum() == pytest.approx(30 / 4, abs=2.5)


def test_frames_beyond_the_end_are_refused(folder):
    with pytest.raises(UsageError, match="has 4 frames, but 2 from frame 3 were asked"):
        open_youtube_vis(folder)[0].read(3, 2)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (lambda c: c["videos"][0]["file_names"].__setitem__(1, "../secret.jpg"), DataError, "inside the folder"),
        (lambda c: c["videos"][0]["file_names"].__setitem__(1, "/etc/x.jpg"), DataError, "inside the folder"),
        (
            lambda c: c["videos"][0]["file_names"].__setitem__(1, "0a1b/9.jpg"),
            MissingDataError,
            "1 pictures that are not",
        ),
        (lambda c: c["videos"][0].update(width=99), DataError, "says 99 x 12 pixels, but"),
        (lambda c: c["videos"][0].update(width=True), DataError, "has width: True; needed is a whole number from 1"),
        (lambda c: c["videos"][0].update(file_names=[]), DataError, "has no list of file_names"),
        (lambda c: c["videos"].append(c["videos"][0]), DataError, "has the id 7, which another video has"),
        (lambda c: c.pop("annotations"), DataError, "no list of objects 'annotations'.*test videos hold none"),
        (lambda c: c.update(categories=[]), DataError, "has no categories"),
        (lambda c: c.update(videos=[], annotations=[]), DataError, "has no videos"),
        (lambda c: c["annotations"][0].update(video_id=8), DataError, "is of video 8, which is not in the file"),
        (lambda c: c["annotations"][0].update(category_id=8), DataError, "is of category 8, which is not in the file"),
        (lambda c: c["annotations"][1]["segmentations"].pop(), DataError, "has 3 masks, but its video has 4 frames"),
        (
            lambda c: c["annotations"][1]["segmentations"][3]["counts"].pop(),
            DataError,
            "frame 3: the runs of a mask hold",
        ),
        (lambda c: c["annotations"][1]["segmentations"][3].update(size=[9, 9]), DataError, "frame 3: a mask says"),
    ],
)
def test_what_is_damaged_is_refused_with_its_place(folder, change, error, message):
    changed(folder, change)
    with pytest.raises(error, match=message):
        open_youtube_vis(folder)


def test_a_link_that_leads_out_of_the_folder_is_refused(folder, tmp_path_factory):
    outside = tmp_path_factory.mktemp("outside") / "secret.jpg"
    Image.new("RGB", (WIDTH, HEIGHT)).save(outside)
    (folder / "JPEGImages/0a1b/00005.jpg").unlink()
    (folder / "JPEGImages/0a1b/00005.jpg").symlink_to(outside)
    with pytest.raises(DataError, match="a link that leads out"):
        open_youtube_vis(folder)


def test_a_picture_of_another_size_is_refused_when_it_is_read(folder):
    Image.new("RGB", (WIDTH, 5)).save(folder / "JPEGImages/0a1b/00010.jpg")
    with pytest.raises(DataError, match=r"00010.jpg has 16 x 5 pixels, but the file says"):
        open_youtube_vis(folder)[0].read(0, 4)


def test_files_that_are_missing_or_no_json_are_refused(folder, tmp_path):
    (tmp_path / "other.json").write_text("[")
    with pytest.raises(DataError, match="is not a JSON file"):
        open_youtube_vis(tmp_path / "other.json")
    with pytest.raises(MissingDataError, match="there is no file"):
        open_youtube_vis(tmp_path / "none.json")
    (folder / "instances.json").rename(folder / "a.json")
    with pytest.raises(MissingDataError, match=r"holds 2 JSON files, and none is called instances.json"):
        open_youtube_vis(folder)
    with pytest.raises(MissingDataError, match="there is no folder"):
        open_youtube_vis(folder / "a.json", tmp_path / "nowhere")


def davis(tmp_path, values):
    for name in ("JPEGImages/480p/dog", "Annotations/480p/dog"):
        (tmp_path / name).mkdir(parents=True)
    for at, drawn in enumerate(values):
        Image.new("RGB", (WIDTH, HEIGHT)).save(tmp_path / f"JPEGImages/480p/dog/{at:05d}.jpg")
        if drawn is not None:
            Image.fromarray(drawn.astype(np.uint8)).save(tmp_path / f"Annotations/480p/dog/{at:05d}.png")
    return tmp_path


def test_each_value_of_a_mask_is_an_object_and_255_is_nothing(tmp_path):
    drawn = mask(2) * 3
    drawn[9:11, 1:4] = 8
    drawn[0] = 255
    (clip,) = open_masked_clips(davis(tmp_path, [drawn, None, mask(3) * 3]))
    part = clip.read(0, 3)
    assert (part.ids.tolist(), part.labels.tolist(), part.annotated.tolist()) == ([3, 8], [0, 0], [True, False, True])
    assert np.array_equal(part.masks[0, 0], drawn == 3)
    assert not part.masks[1].any()
    assert np.array_equal(part.masks[2], [mask(3), np.zeros_like(mask(3))])


def test_a_mask_of_0_and_255_is_one_object(tmp_path):
    (clip,) = open_masked_clips(davis(tmp_path, [mask(2) * 255, mask(3) * 255]))
    assert np.array_equal(clip.read(0, 2).masks[:, 0], [mask(2), mask(3)])


def test_clips_without_masks_are_refused(tmp_path):
    davis(tmp_path, [None, None])
    with pytest.raises(MissingDataError, match=r"no clip in .* has masks"):
        open_masked_clips(tmp_path)
    with pytest.raises(MissingDataError, match="the clip 'dog' has no masks"):
        MaskedClip(open_clip(tmp_path))


def test_the_shared_clips_have_the_objects_that_their_readme_says(shared):
    clips = {clip.name: clip for clip in open_masked_clips(shared / "data/video")}
    assert clips["davis_judo16"].read(0, 2).annotated.tolist() == [True, False]
    with pytest.raises(DataError, match="has 853 x 480 pixels, but the clip's first frame has 854 x 480"):
        clips["davis_judo16"].read(5, 1)
    assert clips["davis_tennis"].read(0, 2, (120, 214)).masks.shape == (2, 1, 120, 214)
    assert clips["davis_tennis"].read(0, 1).masks.sum() == 36523
