"""TSAM: the authors' tensors and names, and what must hold for every clip."""

import pytest
import torch

from tenfold import build, profile
from tenfold.errors import ShapeError, UsageError
from tenfold.layers.gated import GatedConv2d
from tenfold.layers.temporal_align import WholeClip
from tenfold.models import Architecture, composited, load_official_tsam, official_tsam_names
from tenfold.models.tsam_parts import Enlarge, ShiftedBottleneck, ShiftedGate
from tsam_reference import FLOWS, case, filled, flows_of, read, time_first


def _relative(got, expected, tolerance):
    assert float((got - expected).abs().max()) <= tolerance * float(expected.abs().max())


def _block(name):
    if name == "enc_gated_align_conv":
        return GatedConv2d(16, 8, bias=False), lambda own: own.replace("feature", "net").replace("gate", "gating_conv")
    if name == "deconv_up2":
        return Enlarge(16, 8), lambda own: own.replace("conv.", "conv.featureConv.").replace("weight", "weight_orig")
    if name == "bottleneck":
        names = {"conv2.conv": "conv2", "conv2.bn": "bn2", "conv3.conv": "conv3", "conv3.bn": "bn3"}
        names |= {"shortcut.conv": "downsample.0", "shortcut.bn": "downsample.1"}
        names |= {"conv1.feature": "conv1.net", "conv1.gate": "conv1.gating_conv"}

        def renamed(own):
            layer, _, tensor = own.rpartition(".")
            return f"{names.get(layer, layer)}.{tensor}"

        return ShiftedBottleneck(32, 16, stride=1, dilation=2, project=True), renamed
    is_last = name == "dec_last_conv"
    block = ShiftedGate(16, 3 if is_last else 8, 3, is_last=is_last)
    suffix = "" if is_last else "_orig"
    branch = {"feature": "featureConv", "gate": "gatingConv"}
    return (
        block,
        lambda own: f"{branch[own.split('.')[1]]}.{own.split('.')[2]}{suffix if own.endswith('weight') else ''}",
    )


def _undo_one_step_of_the_norms(block, run):
    """The file has the statistics behind the training step; the answers in eval mode were taken before it."""
    norms = [module for module in block.modules() if isinstance(module, torch.nn.BatchNorm2d)]
    after = [(norm.running_mean.clone(), norm.running_var.clone()) for norm in norms]
    for norm in norms:
        norm.momentum = 1.0
    with torch.no_grad():
        run()
    for norm, (mean, var) in zip(norms, after, strict=True):
        norm.running_mean.copy_((mean - 0.1 * norm.running_mean) / 0.9)
        norm.running_var.copy_((var - 0.1 * norm.running_var) / 0.9)


@pytest.mark.parametrize(
    ("name", "of"),
    [
        ("enc_gated_align_conv", "enc_gated_align_conv"),
        ("dec_gated_align_conv", "dec_gated_align_conv"),
        ("deconv_up2", "deconv_up2"),
        ("dec_last_conv", "dec_last_conv"),
        ("bottleneck", "bottleneck_train"),
        ("bottleneck", "bottleneck_eval"),
    ],
)
def test_blocks_and_their_gradients_equal_the_official_ones(shared, name, of):
    everything = read(shared, "blocks")
    tensors = case(everything, "bottleneck_train" if name == "bottleneck" else of)
    block, renamed = _block(name)
    block.load_state_dict(
        {own: tensors[f"w.{renamed(own)}"] for own in block.state_dict() if not own.endswith("num_batches_tracked")},
        strict=False,
    )
    x = time_first(tensors["x"]).requires_grad_()
    clip = WholeClip(x.shape[1], flows_of(case(everything, "common")), mode="compat")
    folded = x.flatten(0, 1)
    if name == "deconv_up2":
        got = block(folded)
    elif name == "enc_gated_align_conv":
        got = block(clip.shift(block, folded, 8)[0])
    else:
        if of == "bottleneck_eval":
            _undo_one_step_of_the_norms(block, lambda: block(folded, clip))
            block.eval()
        got = block(folded, clip)
    got = time_first(got.unflatten(0, x.shape[:2]))
    torch.testing.assert_close(got, everything[f"{of}.out"], atol=2e-5, rtol=0)
    if of == "bottleneck_eval":
        return
    got.backward(tensors["cotangent"])
    _relative(time_first(x.grad), tensors["grad_x"], 1e-3)
    for own, parameter in block.named_parameters():
        _relative(parameter.grad, tensors[f"g.{renamed(own)}"], 1e-3)


@pytest.fixture(scope="module")
def official(shared):
    """The whole network with the weights that the reference was made with, and a function that gives its inputs."""
    rows = read(shared, "state_dict_keys.json")
    state = {f"generator.{name}": value for name, value in filled(rows["tensors"]).items()}
    network = build("tsam", mode="compat").eval()
    names = dict(official_tsam_names(network))
    counters = {f"generator.{name}": torch.tensor(0) for name in names.values() if name.endswith("num_batches_tracked")}
    spare = {"generator.coarse_net.upsample_module.conv9.gatingConv.weight_u": torch.zeros(3)}
    load_official_tsam(network, {**state, **counters, **spare})
    return network, read(shared, "generator")


def test_names_and_shapes_are_those_of_the_authors(shared):
    rows = {row["key"]: row["shape"] for row in read(shared, "state_dict_keys.json")["tensors"]}
    network = build("tsam")
    own = network.state_dict()
    got = {
        official: list(own[name].shape)
        for name, official in official_tsam_names(network)
        if not name.endswith("num_batches_tracked")
    }
    assert got == rows


def test_weights_of_another_network_are_refused():
    with pytest.raises(UsageError, match=r"the weights do not fit: .*conv1\.weight is missing"):
        load_official_tsam(build("tsam"), {"generator.something": torch.zeros(1)})
    with pytest.raises(
        UsageError, match=r"has no tensor decoder\.skip_full\.weight\. Their weights fit the model tsam"
    ):
        load_official_tsam(build("tsam_tiny"), {})


@pytest.mark.slow  # the whole network, twice forward and backward: 8 seconds on one core
@pytest.mark.parametrize("kind", ["tsam", "tsm"])
def test_maps_frames_and_gradients_equal_the_official_ones(official, kind):
    network, tensors = official
    inputs = case(tensors, "in")
    frames, known = inputs["frames"], inputs["mask"]
    network.shift_kind = "plain" if kind == "tsm" else "aligned"
    network.zero_grad()
    maps = []
    handle = network.encoder.register_forward_hook(lambda module, args, output: maps.extend(output))
    raw = network(frames, known, torch.zeros_like(known), *(inputs[name] for name in FLOWS))
    handle.remove()
    torch.testing.assert_close(raw, tensors[f"{kind}.raw"], atol=5e-5, rtol=0)
    torch.testing.assert_close(composited(raw, frames, known), tensors[f"{kind}.out"], atol=5e-5, rtol=0)
    for number, one in enumerate(maps, start=1):
        every = time_first(one.unflatten(0, frames.shape[:2]))[:, ::16]
        expected = tensors[f"{kind}.enc{number}_every16ch"]
        torch.testing.assert_close(every, expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max()))
    (composited(raw, frames, known) - frames).square().mean().backward()
    own = {official: name for name, official in official_tsam_names(network)}
    aliases = {"conv11.featureConv.layer.weight": "conv11.featureConv.weight"}
    for name, expected in case(tensors, f"{kind}.grad").items():
        for alias, canonical in aliases.items():
            name = name.replace(alias, canonical)
        got = network.get_parameter(own[name]).grad
        _relative(got, expected, 0.02)


@pytest.mark.parametrize(
    ("size", "giga"),
    [((240, 424), 97.906), ((96, 96), 8.867)],
)
def test_the_cost_of_a_frame_is_the_published_one(size, giga):
    counted = profile(_network("tsam"), (3, *size))
    assert counted.macs / 1e9 == pytest.approx(giga, abs=5e-4)
    encoder = sum(layer.macs for layer in counted.layers if layer.name.startswith("encoder."))
    assert encoder / counted.macs == pytest.approx(0.4705, abs=1e-4)


@pytest.mark.parametrize(
    ("options", "params", "giga"),
    [
        ({"planes": 32, "decoder": (128, 128, 128), "stem": 32}, 7.94, 7.024),
        (
            {"planes": 8, "blocks": (1, 1, 1, 1), "decoder": (32, 24, 16), "stem": 16, "stem_kernel": 3},
            0.190,
            0.239,
        ),
    ],
)
def test_sizes_between_the_registered_ones_cost_what_the_table_says(options, params, giga):
    network = build("tsam", **options)
    assert sum(p.numel() for p in network.parameters()) / 1e6 == pytest.approx(params, abs=5e-3)
    assert profile(network, (3, 128, 224)).macs / 1e9 == pytest.approx(giga, abs=5e-4)


_BUILT = {}


def _network(name, **options):
    key = (name, *options.items())
    if key not in _BUILT:
        torch.manual_seed(0)
        _BUILT[key] = build(name, **options).eval()
    return _BUILT[key]


def _clip(frames=3, size=(16, 24), batch=1):
    generator = torch.Generator().manual_seed(2)

    def uniform(count, channels):
        return torch.rand(batch, count, channels, *size, generator=generator)

    known = (uniform(frames, 1) > 0.3).float()
    copied = known * (uniform(frames, 1) > 0.5)
    flows = [4 * uniform(frames - 1, 2) - 2 for _ in range(2)]
    invalid = [(uniform(frames - 1, 1) > 0.8).float() for _ in range(2)]
    return [uniform(frames, 3) * known, known, copied, *flows, *invalid]


@torch.no_grad()
def test_without_motion_the_network_is_its_twin_with_plain_shifts():
    clip = _clip()
    still = [*clip[:3], *(torch.zeros_like(one) for one in clip[3:])]
    plain = _network("tsam_tiny", shift="plain")
    plain.load_state_dict(_network("tsam_tiny").state_dict())
    torch.testing.assert_close(_network("tsam_tiny")(*still), plain(*clip), atol=1e-5, rtol=0)


@torch.no_grad()
@pytest.mark.parametrize("frames", [1, 2, 3])
def test_clips_of_any_length_are_painted(frames):
    assert _network("tsam_tiny")(*_clip(frames)).shape == (1, frames, 3, 16, 24)


@torch.no_grad()
def test_what_is_behind_a_hole_changes_nothing():
    clip = _clip()
    network = _network("tsam_tiny")
    seen = [clip[0] + 5 * (1 - clip[1]), *clip[1:]]
    assert torch.equal(network(*seen), network(*clip))
    full = [clip[0], torch.zeros_like(clip[1]), *clip[2:]]
    assert network(*full).isfinite().all()


@torch.no_grad()
@pytest.mark.parametrize("name", ["mode", "edge", "shift"])
def test_each_option_changes_the_answer(name):
    value = {"mode": "compat", "edge": "self", "shift": "plain"}[name]
    other = _network("tsam_tiny", **{name: value})
    other.load_state_dict(_network("tsam_tiny").state_dict())
    assert (other(*_clip()) - _network("tsam_tiny")(*_clip())).abs().max() > 1e-3
    assert Architecture.from_dict(other.architecture.to_dict()).options[name] == value


def test_known_pixels_stay_to_the_bit():
    clip = _clip()
    made = composited(torch.rand_like(clip[0]), clip[0], clip[1])
    known = clip[1].bool().expand_as(made)
    assert torch.equal(made[known], clip[0][known])
    assert not torch.equal(made, clip[0])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda clip: [one[..., :-2] for one in clip], r"16 x 22 .* multiples of 8\. Pad them"),
        (lambda clip: [clip[0][:, :, :2], *clip[1:]], r"frames are \(B, T, 3, H, W\).*\(1, 3, 2, 16, 24\)"),
        (lambda clip: [clip[0], clip[1][:, :2], *clip[2:]], r"known has the shape \(1, 2, 1, 16, 24\)"),
        (lambda clip: [*clip[:2], clip[2][:, :, :0], *clip[3:]], r"copied has the shape \(1, 3, 0, 16, 24\)"),
        (lambda clip: [*clip[:4], clip[4][:, :1], *clip[5:]], r"backward has the shape \(1, 1, 2, 16, 24\)"),
        (lambda clip: [one[:, :0] for one in clip], r"at least one frame"),
    ],
)
def test_inputs_that_do_not_fit_are_refused(change, message):
    with pytest.raises(ShapeError, match=message):
        _network("tsam_tiny")(*change(_clip()))


def test_a_shape_that_is_none_of_frames_is_refused():
    with pytest.raises(ShapeError, match=r"\(1, 16, 16\) are not allowed; TSAM takes colour frames"):
        profile(_network("tsam_tiny"), (1, 16, 16))


def test_gates_of_the_encoder_start_as_what_they_gate():
    network = build("tsam_tiny")
    conv = network.encoder.stages[0][0].conv1
    assert torch.equal(conv.gate.weight, conv.feature.weight)
    assert network.decoder.last.conv.gate.bias.abs().sum() == 0


def test_a_network_that_corrects_starts_by_adding_nothing_and_learns():
    torch.manual_seed(0)
    network = build("tsam_tiny", corrects=True)
    frames = torch.rand(1, 2, 3, 16, 24)
    inputs = network.example_inputs((3, 16, 24), 2)._replace(frames=frames)
    answer = network(*inputs)
    assert not answer.any()
    (answer - 0.1).square().mean().backward()
    last = network.decoder.last.conv
    assert last.gate is None
    assert last.feature.weight.grad.abs().sum() > 0
