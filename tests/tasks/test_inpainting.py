"""The inpainting task: windows, batches, loss, and the training of a network on them."""

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torchvision.models.vgg import cfgs, make_layers

from inpainting_data import TinyFiller, write_clip, write_photographs
from tenfold import tasks
from tenfold.cli.resolve import make_network
from tenfold.errors import DataError, MissingDataError, ShapeError, UnknownNameError, UsageError
from tenfold.tasks.inpainting_batches import WindowTargets, stack_windows
from tenfold.train.recipe import Choice, Recipe
from video_files import moving_square, write_video

pytest.importorskip("cv2", reason="needs OpenCV (the extra 'video')")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    root = tmp_path_factory.mktemp("inpainting")
    write_photographs(root / "stills")
    write_clip(root / "clips" / "masked", masks=True)
    write_clip(root / "clips" / "judged")
    return root


def open_task(root, **options):
    defaults = {
        "data": str(root / "clips"),
        "photographs": str(root / "stills"),
        "image_size": [32, 40],
        "lengths": [2, 4],
        "holes": ["stationary", "shape"],
        "eval_clips": ["judged"],
        "eval_fraction": 0.34,
    }
    return tasks.create("inpaint", **(defaults | options))


@pytest.fixture(scope="module")
def task(data):
    return open_task(data)


def test_windows_come_from_clips_and_photographs_and_none_is_judged_by_that_is_learned_from(task):
    told = task.describe()["data"]
    assert told["clips"] == ["masked"]
    assert told["eval_clips"] == ["judged"]
    assert (told["photographs"], told["eval_photographs"]) == (4, 2)
    learned, judged = task.train.sources, task.evaluation.sources
    assert not set(learned.photographs) & set(judged.photographs)
    assert task.train_size == len(learned.clips) + 4
    assert not learned.is_simulated(0)
    assert learned.is_simulated(task.train_size - 1)


def test_a_batch_is_what_a_network_takes(task):
    for inputs, targets in task.train_batches(epoch=0, batch_size=2, seed=5):
        count = inputs.frames.shape[1]
        assert count in (2, 4)
        assert inputs.frames.shape == (2, count, 3, 32, 40)
        assert inputs.known.shape == inputs.copied.shape == (2, count, 1, 32, 40)
        assert inputs.flow_fwd.shape == inputs.flow_bwd.shape == (2, count - 1, 2, 32, 40)
        assert inputs.invalid_fwd.shape == inputs.invalid_bwd.shape == (2, count - 1, 1, 32, 40)
        assert (inputs.frames * (1 - inputs.known) == 0).all()
        assert torch.equal(inputs.known, (~targets.rest).float())
        untouched = ~(targets.rest | targets.copied).expand_as(targets.truth)
        assert torch.equal(targets.given[untouched], targets.truth[untouched])
        assert TinyFiller()(*inputs).shape == inputs.frames.shape


def test_a_batch_is_a_function_of_its_coordinates_alone(task):
    together = list(task.train_batches(epoch=3, batch_size=2, seed=1))
    alone = next(iter(task.train_batches(epoch=3, batch_size=2, seed=1, start=1, workers=2)))
    for one, other in zip((*together[1][0], *together[1][1]), (*alone[0], *alone[1]), strict=True):
        assert torch.equal(one, other)
    halves = [next(iter(task.train_batches(epoch=3, batch_size=1, seed=1, rank=rank, world_size=2))) for rank in (0, 1)]
    for whole, first, second in zip(together[0][0], halves[0][0], halves[1][0], strict=True):
        assert torch.equal(whole, torch.cat([first, second]))
    other_epoch = next(iter(task.train_batches(epoch=4, batch_size=2, seed=1)))
    assert other_epoch[1].truth.shape != together[0][1].truth.shape or not torch.equal(
        other_epoch[1].truth, together[0][1].truth
    )


def test_windows_have_all_lengths_in_turn(task):
    lengths = {
        inputs.frames.shape[1]
        for epoch in range(4)
        for inputs, _ in task.train_batches(epoch=epoch, batch_size=2, seed=0)
    }
    assert lengths == {2, 4}


def test_the_cache_gives_what_was_made_and_survives_damage(data, tmp_path):
    fresh = open_task(data, variants=2)
    cached = open_task(data, variants=2, cache=str(tmp_path))
    first = next(iter(cached.train_batches(epoch=1, batch_size=2, seed=0)))
    files = sorted(tmp_path.rglob("*.npz"))
    assert len(files) == 2
    files[0].write_bytes(files[0].read_bytes()[:100])
    files[1].write_bytes(b"")
    for task in (cached, cached, fresh):
        again = next(iter(task.train_batches(epoch=1, batch_size=2, seed=0)))
        assert all(torch.equal(one, other) for one, other in zip(first[0], again[0], strict=True))
        assert all(torch.equal(one, other) for one, other in zip(first[1], again[1], strict=True))
    third = next(iter(fresh.train_batches(epoch=3, batch_size=2, seed=0)))[1].truth  # the variant of epoch 1 again
    assert third.shape[-2:] == first[1].truth.shape[-2:]


def test_loss_is_the_error_of_what_was_to_be_filled_and_a_part_of_the_rest(data):
    truth = torch.rand(1, 2, 3, 4, 4)
    rest = torch.zeros(1, 2, 1, 4, 4, dtype=torch.bool)
    rest[..., :2] = True
    given = torch.where(rest, torch.full_like(truth, 0.5), truth)
    nothing = torch.zeros(1, 1, 2, 4, 4)
    targets = WindowTargets(truth, given, given, rest, ~rest, nothing, nothing[:, :, :1] > 0)
    answer = torch.zeros_like(truth)
    expected = (0.5 - truth)[rest.expand_as(truth)].abs().mean()
    assert open_task(data).loss(answer, targets) == pytest.approx(float(expected))
    answer[~rest.expand_as(answer)] = 0.25
    assert open_task(data, outside=0.5).loss(answer, targets) == pytest.approx(float(expected) + 0.125)
    squared = open_task(data, outside=0.0, error="l2").loss(answer, targets)
    assert squared == pytest.approx(float(((0.5 - truth) ** 2)[rest.expand_as(truth)].mean()))
    # The authors' loss is that of composited frames, over all pixels; their second stage counts the hole 7 times.
    release = open_task(data, error="release", masked=6).loss(answer, targets)
    assert release == pytest.approx(7 * float(expected) / 2, rel=1e-5)
    none = WindowTargets(truth, truth, truth, torch.zeros_like(rest), rest, nothing, nothing[:, :, :1] > 0)
    assert open_task(data).loss(torch.zeros_like(truth), none) == 0


def test_features_of_vgg_join_the_loss_where_there_are_weights(data, tmp_path):
    torch.manual_seed(0)
    layers = make_layers(cfgs["D"][:13])
    save_file({f"features.{name}": value for name, value in layers.state_dict().items()}, tmp_path / "vgg.safetensors")
    options = {"error": "release", "vgg": str(tmp_path / "vgg.safetensors")}
    plain, full = open_task(data, error="release"), open_task(data, perceptual=1, style=2, **options)
    targets = next(iter(plain.eval_batches(batch_size=1)))[1]
    answer = torch.zeros_like(targets.truth, requires_grad=True)
    assert full.loss(answer, targets) > plain.loss(answer, targets)
    full.loss(answer, targets).backward()
    assert answer.grad[targets.rest.expand_as(answer)].abs().sum() > 0
    assert "vgg" not in str(full.describe())


def test_the_answer_is_added_to_the_smooth_filling_or_stands_alone(task, data):
    window = task.train(0, 0, 0)
    for base, expected in (("smooth", window.given), ("none", np.zeros_like(window.given))):
        targets = stack_windows([window], smooth_base=base == "smooth")[1]
        painted = (targets.painted(torch.zeros_like(targets.truth)) * 255).round().to(torch.uint8)
        assert (painted[0].permute(0, 2, 3, 1).numpy() == expected).all()
    assert open_task(data, base="none").describe()["base"] == "none"


def test_without_propagation_the_network_gets_whole_holes(data):
    plain = open_task(data, propagate=False)
    inputs, targets = next(iter(plain.train_batches(epoch=0, batch_size=2, seed=0)))
    assert not inputs.copied.any()
    propagated = open_task(data)
    with_copies = next(iter(propagated.train_batches(epoch=0, batch_size=2, seed=0)))[1]
    assert with_copies.copied.any()
    assert targets.rest.any()


@pytest.mark.parametrize("flow", ["oracle", "observed"])
def test_flow_is_that_of_the_truth_or_of_what_is_seen(data, flow):
    task = open_task(data, flow=flow, lengths=4)
    window = task.train(0, 0, 0)  # a camera that moves one pixel a frame, at about 0.8 of the clip's size
    clear = window.valid_fwd & ~window.rest[:-1]
    found = np.moveaxis(window.flow_fwd, 1, -1)[clear].astype(np.float32)
    assert np.abs(np.median(found[:, 0]) + 0.8) < 0.35
    assert np.abs(np.median(found[:, 1])) < 0.3


def test_holes_may_have_the_outline_of_masked_objects(data):
    task = open_task(data, holes="track", flow="oracle")
    window = task.train(0, 0, 0)
    assert 0 < (window.rest | window.copied).mean() < 0.5


def test_video_files_are_clips_too(tmp_path):
    write_video(tmp_path / "clip.mp4", moving_square(6))
    task = tasks.create(
        "inpaint",
        data=[str(tmp_path / "clip.mp4")],
        image_size=32,
        lengths=4,
        holes="stationary",
        eval_clips=[],
        photographs=str(write_photographs(tmp_path / "stills", 2)),
        eval_fraction=0.5,
    )
    assert task.describe()["data"]["clips"] == ["clip"]
    assert task.train(0, 0, 0).truth.shape == (4, 32, 32, 3)


def test_pictures_show_what_was_done(task):
    network = TinyFiller().eval()
    pictures = task.illustrate(network)
    assert len(pictures) == min(4, task.eval_size)
    assert "judged" in pictures[0].caption
    assert pictures[0].image.size[1] == 4 * 32


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"image_size": 30}, ShapeError, r"image_size is 30; needed is \[height, width\], multiples of 8 from 16"),
        ({"lengths": [0, 3]}, UsageError, r"lengths are \[0, 3\]; needed is at least one whole number from 1"),
        ({"lengths": 12}, DataError, "the clip 'masked' has 9 frames, but windows have 12. Choose shorter windows"),
        ({"holes": []}, UsageError, "holes is empty; name at least one kind, such as 'object' or 'track'"),
        ({"holes": "round"}, UnknownNameError, "kind of hole 'round'"),
        ({"error": "l3"}, UnknownNameError, "error 'l3'"),
        ({"base": "grey"}, UnknownNameError, "base 'grey'"),
        ({"flow": "true"}, UnknownNameError, "flow 'true'"),
        ({"outside": -1}, UsageError, "outside is -1; allowed is 0 to 1000"),
        ({"masked": 6}, UsageError, 'masked is 6: only error = "release" has it'),
        ({"style": 2}, UsageError, "perceptual and style losses need VGG's weights: vgg=FILE"),
        ({"cache": "x"}, UsageError, "a cache needs a number of variants, such as variants=2"),
        ({"variants": 0}, UsageError, "variants is 0"),
        ({"eval_clips": ["judge"]}, UnknownNameError, "clip 'judge'.*judged"),
        ({"eval_fraction": 1.0}, UsageError, "eval_fraction is 1.0; allowed is 0 up to below 1"),
        ({"motion": {"pann": 1}}, UnknownNameError, "part of motion 'pann'.*pan"),
        ({"data": None, "photographs": None, "eval_clips": []}, DataError, "there are no windows to train on"),
        ({"eval_clips": [], "eval_fraction": 0.0}, DataError, "or none to evaluate with; give clips or photographs"),
    ],
)
def test_options_that_cannot_be_are_refused(data, options, error, message):
    with pytest.raises(error, match=message):
        open_task(data, **options)


def test_clips_of_one_name_are_refused(data, tmp_path):
    write_clip(tmp_path / "judged")
    with pytest.raises(DataError, match="two clips are named 'judged'; rename one"):
        open_task(data, data=[str(data / "clips"), str(tmp_path / "judged")])


def test_a_folder_without_photographs_is_refused(data, tmp_path):
    with pytest.raises(MissingDataError, match="holds no photographs"):
        open_task(data, photographs=str(tmp_path))


def test_a_described_task_is_opened_again_on_other_clips(task, data):
    again = tasks.reopen(task.describe(), data / "clips")
    assert again.eval_size == 2 * len(task.evaluation.sources.clips)
    assert again.lengths == task.lengths
    inputs, _ = next(iter(again.eval_batches(batch_size=1)))
    assert inputs.frames.shape == (1, 4, 3, 32, 40)
    with pytest.raises(MissingDataError, match="inpainting is judged on clips: give --data FOLDER"):
        tasks.reopen(task.describe(), None)


def test_networks_that_take_images_are_refused_and_those_that_take_windows_built(task):
    with pytest.raises(UsageError, match="'resnet18' takes images, but the task 'inpaint' gives windows"):
        make_network(Recipe(model=Choice(kind="resnet18")), task)
    network = make_network(Recipe(model=Choice(kind="tsam_tiny", options={"corrects": True})), task)
    inputs, _ = next(iter(task.eval_batches(batch_size=1)))
    assert network.eval()(*inputs).shape == inputs.frames.shape
