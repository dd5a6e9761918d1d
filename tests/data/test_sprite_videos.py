"""SpriteVIS: what follows from a seed, that masks are exact, and that trouble happens as often as it should."""

import dataclasses
import json

import numpy as np
import pytest
from PIL import Image

from tenfold.data.run_lengths import encode_mask
from tenfold.data.sprite_sets import SpriteSet
from tenfold.data.sprite_videos import SpriteSettings, make_sprite_video
from tenfold.data.sprites import SILHOUETTES, load_cut_outs, silhouette
from tenfold.errors import ArtifactError, DataError, MissingDataError, UnknownNameError, UsageError

SMALL = SpriteSettings(height=64, width=96, frames=12, diameter=(12, 30))


def test_a_video_follows_from_its_seed():
    one, same, other = (make_sprite_video(seed, SMALL) for seed in ((1, 2), (1, 2), (1, 3)))
    for name in ("frames", "sharp", "masks", "labels", "degraded", "faded"):
        np.testing.assert_array_equal(getattr(one, name), getattr(same, name))
    assert not np.array_equal(one.frames, other.frames)


def test_shapes_and_types():
    video = make_sprite_video((0,), SMALL)
    count = len(video.labels)
    assert video.frames.shape == video.sharp.shape == (12, 64, 96, 3)
    assert video.masks.shape == (12, count, 64, 96)
    assert video.frames.dtype == np.uint8
    assert video.masks.dtype == np.bool_
    assert 2 <= count <= 4
    assert video.faded.shape == (12, count)


def test_degradation_does_not_touch_the_scene():
    clean = dataclasses.replace(SMALL, degraded=0.0, faded=0.0)
    plain, hard = make_sprite_video((5,), clean), make_sprite_video((5,), SMALL)
    np.testing.assert_array_equal(plain.frames, hard.sharp)
    np.testing.assert_array_equal(plain.masks, hard.masks)
    untouched = ~hard.degraded & ~hard.faded.any(1)
    assert untouched.any()
    assert hard.degraded.any()
    for time in range(12):
        assert np.array_equal(hard.frames[time], hard.sharp[time]) == untouched[time]


def test_masks_are_exact_and_show_the_visible_part():
    """Objects of one look each, far from the background's, are found again in the picture by their colour."""
    settings = dataclasses.replace(SMALL, bars=0, objects=(3, 3), lookalikes=0.0)
    red = np.broadcast_to(np.array([200, 20, 20], np.uint8), (40, 40, 3))
    video = make_sprite_video((3,), settings, photographs=[red])
    assert not (video.masks.sum(1) > 1).any()  # no pixel shows two objects
    # Everything has one colour up to gain and hue, so that differences from the still background are the objects.
    differs = np.abs(video.sharp.astype(int) - red[0, 0]).max(-1) > 0
    assert (differs & video.masks.any(1)).sum() > 0.7 * video.masks.any(1).sum()
    edge = differs & ~video.masks.any(1)
    assert edge.sum() < 0.35 * video.masks.sum()  # soft borders only


def test_an_object_that_is_hardly_seen_is_absent():
    settings = SpriteSettings(height=64, width=64, frames=30, diameter=(16, 24), speed=6)
    seen = [make_sprite_video((9, index), settings).masks.sum((2, 3)) for index in range(8)]
    for areas in seen:
        assert ((areas == 0) | (areas >= 12)).all()
    presence = np.concatenate([areas > 0 for areas in seen], axis=1)
    assert (~presence).any()
    returned = [(np.diff(column.astype(int)) == 1).any() for column in presence.T]
    assert any(returned)  # some leave and come back


def test_trouble_happens_as_often_as_it_should():
    settings = dataclasses.replace(SMALL, height=32, width=32, diameter=(6, 10), frames=20)
    videos = [make_sprite_video((4, index), settings) for index in range(60)]
    degraded = np.stack([video.degraded for video in videos])
    assert 0.27 < degraded.mean() < 0.4
    runs = np.stack([degraded[:, start : start + 4].all(1) for start in range(17)])
    assert not runs.any()  # never four in a row
    assert 0.12 < np.concatenate([video.faded.ravel() for video in videos]).mean() < 0.18
    assert 0.35 < np.mean([video.lookalikes is not None for video in videos]) < 0.65
    assert {int(label) for video in videos for label in video.labels} == set(range(len(SILHOUETTES)))


def test_lookalikes_are_of_one_class():
    videos = [make_sprite_video((6, index), SMALL) for index in range(8)]
    pairs = [(video, video.lookalikes) for video in videos if video.lookalikes]
    assert pairs
    for video, (one, other) in pairs:
        assert one < other
        assert video.labels[one] == video.labels[other]


def test_objects_move_no_faster_than_allowed():
    settings = SpriteSettings(height=160, width=160, frames=20, objects=(1, 1), bars=0, speed=6, diameter=(20, 30))
    moved = []
    for index in range(12):
        mask = make_sprite_video((7, index), settings).masks[:, 0]
        inside = mask.any((1, 2)) & ~(mask[:, [0, -1]].any((1, 2)) | mask[:, :, [0, -1]].any((1, 2)))
        centres = np.array([np.argwhere(one).mean(0) if one.any() else [np.nan] * 2 for one in mask])
        steps = np.linalg.norm(np.diff(centres, axis=0), axis=1)
        moved.extend(steps[inside[1:] & inside[:-1]])
    assert max(moved) < 6 + 1.5  # the centre of what is drawn sways a little as it turns
    assert np.mean(moved) > 1


def test_silhouettes_differ_and_fill_their_box():
    covers = [silhouette(label) >= 128 for label in range(len(SILHOUETTES))]
    for index, cover in enumerate(covers):
        assert 0.2 < cover.mean() <= 1
        assert cover.any(0).mean() > 0.7
        for other in covers[index + 1 :]:
            assert (cover & other).sum() / (cover | other).sum() < 0.9


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"objects": (3, 2)}, "3 to 2 objects are not allowed"),
        ({"frames": 0}, "0 frames of"),
        ({"diameter": (2, 9)}, "diameters"),
    ],
)
def test_settings_that_make_no_video_are_refused(changed, message):
    with pytest.raises(UsageError, match=message):
        SpriteSettings(**changed)


def test_a_set_is_made_once_and_read_as_it_was_made(tmp_path):
    made = SpriteSet.make(tmp_path / "a", "validation", 3, SMALL, seed=7)
    before = (tmp_path / "a" / "frames.npy").stat().st_mtime_ns
    again = SpriteSet.make(tmp_path / "a", "validation", 3, SMALL, seed=7)
    assert (tmp_path / "a" / "frames.npy").stat().st_mtime_ns == before
    assert len(made) == len(again) == 3
    for index in range(3):
        direct, stored = make_sprite_video((7, 1, index), SMALL), again[index]
        for field in dataclasses.fields(direct):
            np.testing.assert_array_equal(getattr(stored, field.name), getattr(direct, field.name))
    train = SpriteSet.make(tmp_path / "b", "train", 3, SMALL, seed=7)
    assert not np.array_equal(train[0].frames, made[0].frames)
    SpriteSet.make(tmp_path / "a", "validation", 2, SMALL, seed=8)
    assert len(SpriteSet(tmp_path / "a")) == 2


def test_a_set_that_is_missing_damaged_or_wrong_is_refused(tmp_path):
    with pytest.raises(MissingDataError, match="there is no set of videos in"):
        SpriteSet(tmp_path)
    with pytest.raises(UnknownNameError, match="unknown split 'test'"):
        SpriteSet.make(tmp_path, "test", 1)
    with pytest.raises(UsageError, match="a set of 0 videos"):
        SpriteSet.make(tmp_path, "train", 0)
    SpriteSet.make(tmp_path, "train", 1, SMALL)
    described = json.loads((tmp_path / "set.json").read_text())
    (tmp_path / "set.json").write_text(json.dumps(described | {"form": 99}))
    with pytest.raises(ArtifactError, match="damaged or of another version"):
        SpriteSet(tmp_path)
    (tmp_path / "frames.npy").write_bytes(b"not an array")
    with pytest.raises(ArtifactError, match="is damaged"):
        SpriteSet(tmp_path)


def coco_file(folder, objects):
    """A COCO file with one photograph per object; returns its path."""
    images, annotations = [], []
    for number, mask in enumerate(objects):
        Image.fromarray(np.full((*mask.shape, 3), 10 * number + 5, np.uint8)).save(folder / f"{number}.png")
        images.append({"id": number, "file_name": f"{number}.png", "height": mask.shape[0], "width": mask.shape[1]})
        annotations.append(
            {
                "id": number,
                "image_id": number,
                "category_id": 3,
                "area": int(mask.sum()),
                "segmentation": encode_mask(mask),
            }
        )
    content = {"images": images, "annotations": annotations, "categories": [{"id": 3, "name": "cat"}]}
    (folder / "coco.json").write_text(json.dumps(content))
    return folder / "coco.json"


def box_mask(top, left, height, width):
    mask = np.zeros((60, 80), np.bool_)
    mask[top : top + height, left : left + width] = True
    return mask


def test_cut_outs_are_the_largest_whole_objects(tmp_path):
    path = coco_file(tmp_path, [box_mask(5, 5, 20, 20), box_mask(0, 5, 50, 50), box_mask(10, 10, 30, 40)])
    cut_outs = load_cut_outs(path, count=2, least_area=100)
    assert [one.identity for one in cut_outs] == [2, 0]  # number 1 touches the border
    assert cut_outs[0].cover.shape == (30, 40)
    assert cut_outs[0].cover.all()
    assert cut_outs[0].picture[0, 0, 0] == 25
    assert cut_outs[0].name == "cat"
    with pytest.raises(DataError, match="has 2 objects of at least 100 pixels that are whole, but 3 were asked"):
        load_cut_outs(path, count=3, least_area=100)
    video = make_sprite_video((0,), dataclasses.replace(SMALL, degraded=0, faded=0, bars=0), cut_outs=cut_outs)
    assert set(video.labels) <= {0, 1}
    assert video.masks.any()


def test_files_that_are_not_of_coco_are_refused(tmp_path):
    with pytest.raises(MissingDataError, match="there are no annotations at"):
        load_cut_outs(tmp_path / "none.json")
    (tmp_path / "a.json").write_text("[1, 2]")
    with pytest.raises(DataError, match="is not a COCO file"):
        load_cut_outs(tmp_path / "a.json")


def test_real_cut_outs_make_a_video(shared):
    path = shared / "data" / "instances" / "coco_nonnd" / "instances_train2017.json"
    cut_outs = load_cut_outs(path)
    assert len({one.identity for one in cut_outs}) == 20
    assert all(one.cover.sum() > 1500 for one in cut_outs)
    video = make_sprite_video((0,), SpriteSettings(frames=3), cut_outs=cut_outs)
    assert video.masks.any((0, 2, 3)).any()
