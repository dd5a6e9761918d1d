"""Losses of inpainting: the authors' values, and what they must do."""

import pytest
import torch
from safetensors.torch import save_file
from torchvision.models import vgg16

from tenfold.errors import DataError, MissingDataError
from tenfold.layers import adversarial_losses as critics
from tenfold.layers.temporal_discriminator import TemporalDiscriminator
from tenfold.models.tsam_names import official_tsam_discriminator_name
from tenfold.tasks import inpainting_losses as losses
from tenfold.tasks.perceptual import VggFeatures
from tsam_reference import filled, read


@pytest.fixture(scope="module")
def official(shared):
    return read(shared, "losses"), read(shared, "values.json")["losses"]


def _levels(tensors, kind):
    """relu1_2 is not used."""
    return [torch.stack([tensors[f"{kind}.frame{frame}.level{level}"] for frame in range(3)], 1) for level in (1, 2, 3)]


def _value(got, expected):
    assert got.item() == pytest.approx(expected, rel=1e-5)


def test_reconstruction_losses_equal_the_official_ones(official):
    tensors, values = official
    truth, mask, made = tensors["targets"], tensors["mask"], {"raw": tensors["raw"], "composite": tensors["composite"]}
    for name, painted in made.items():
        _value(losses.reconstruction(painted, truth), values[f"recon_{name}"])
        _value(losses.masked_reconstruction(painted, truth, mask), values[f"masked_recon_{name}"])


def test_feature_losses_equal_the_official_ones(official):
    tensors, values = official
    painted, truth = _levels(tensors, "feat_out"), _levels(tensors, "feat_tgt")
    _value(losses.perceptual(painted, truth), values["vgg_loss"])
    _value(losses.style(painted, truth, per_sample=False), values["style_loss"])
    _value(losses.style(painted, truth), values["style_loss_per_sample_gram"])


def test_adversarial_losses_equal_the_official_ones(official):
    tensors, values = official
    scores = tensors["scores"]
    large = torch.full_like(scores, 1e4)
    _value(2 * critics.hinge_discriminator(scores, -large), values["hinge_real_d"])
    _value(2 * critics.hinge_discriminator(large, scores), values["hinge_fake_d"])
    _value(critics.hinge_generator(scores), values["hinge_g"])
    before = torch.logit(scores.double())  # theirs are behind the sigmoid
    _value(2 * critics.least_squares_discriminator(before, -large), values["lsgan_real"])
    _value(2 * critics.least_squares_discriminator(large, before), values["lsgan_fake"])
    _value(critics.least_squares_generator(before), values["lsgan_real"])


def test_the_discriminator_equals_the_official_one(shared):
    tensors, values = read(shared, "discriminator"), read(shared, "values.json")["discriminator"]
    network = TemporalDiscriminator()
    assert sum(p.numel() for p in network.parameters()) == 5_948_416
    state = filled(read(shared, "state_dict_keys.json")["discriminator"]["tensors"])
    network.load_state_dict({name: state[official_tsam_discriminator_name(name)] for name in network.state_dict()})
    clip = tensors["in"].clone().requires_grad_()
    scores = torch.sigmoid(network(clip))
    torch.testing.assert_close(scores, tensors["out"], atol=1e-5, rtol=0)
    loss = (scores - 1).square().mean()
    _value(loss, values["lsgan_real_loss"])
    loss.backward()
    expected = tensors["grad_in_correct"]
    # A unit whose input is zero but for rounding takes the other slope on another processor, and changes the gradient
    # in its receptive field: float32 and float64 differ as much among themselves (0.5 % in all).
    missed = (clip.grad - expected).abs() / expected.abs().max()
    assert float((missed > 1e-3).float().mean()) < 0.02
    assert float((clip.grad - expected).norm() / expected.norm()) < 1e-2
    for name, parameter in network.named_parameters():
        official_name = official_tsam_discriminator_name(name)
        assert parameter.grad.norm().item() == pytest.approx(values["grad_norms_correct"][official_name], rel=2e-2)


def test_real_spectral_norm_bounds_every_layer():
    torch.manual_seed(0)
    network = TemporalDiscriminator(channels=4, spectral=True)
    for _ in range(30):  # each call is one step of the power iteration
        network(torch.rand(1, 2, 5, 64, 64))
    for conv in network.eval().convs:
        assert torch.linalg.matrix_norm(conv.weight.flatten(1), 2).item() == pytest.approx(1, abs=0.05)
    scores = network(torch.rand(1, 2, 5, 64, 64))
    assert scores.shape == (1, 2, 16, 1, 1)


def test_a_small_hole_counts_as_much_as_a_large_one():
    truth, known = torch.zeros(1, 1, 3, 8, 8), torch.ones(1, 1, 1, 8, 8)
    known[..., 0, 0] = 0
    painted = truth + 0.5 * (1 - known)
    assert losses.l1_by_area(painted, truth, known).item() == pytest.approx(0.5)
    known[..., :4, :] = 0
    painted = truth + 0.5 * (1 - known)
    assert losses.l1_by_area(painted, truth, known).item() == pytest.approx(0.5)
    assert losses.l1_by_area(truth + 0.25 * known, truth, known, outside=2).item() == pytest.approx(0.5)
    assert losses.l1_by_area(truth + 1, truth, torch.ones_like(known)).item() == pytest.approx(1)
    assert losses.l1_by_area(truth + 1, truth, torch.zeros_like(known)).item() == pytest.approx(1)


def test_features_are_those_of_torchvision(tmp_path):
    torch.manual_seed(0)
    with torch.device("meta"):
        reference = vgg16(weights=None).features
    reference = reference.to_empty(device="cpu")
    for parameter in reference.parameters():
        torch.nn.init.normal_(parameter, std=0.05)
    save_file(
        {f"features.{name}": value for name, value in reference.state_dict().items()}, tmp_path / "vgg.safetensors"
    )
    features = VggFeatures(tmp_path / "vgg.safetensors").train()
    clip = torch.rand(1, 2, 3, 32, 32, requires_grad=True)
    levels = features(clip)
    assert [tuple(one.shape) for one in levels] == [(1, 2, 128, 16, 16), (1, 2, 256, 8, 8), (1, 2, 512, 4, 4)]
    for one, last in zip(levels, (9, 16, 23), strict=True):
        torch.testing.assert_close(one.flatten(0, 1), reference[:last](clip.flatten(0, 1)))
    losses.perceptual(levels, [torch.zeros_like(one) for one in levels]).backward()
    assert clip.grad.abs().sum() > 0
    assert not any(parameter.requires_grad for parameter in features.parameters())


def test_weights_that_are_not_there_or_not_vgg_are_refused(tmp_path):
    with pytest.raises(MissingDataError, match=r"no VGG weights at .*none\.safetensors; give"):
        VggFeatures(tmp_path / "none.safetensors")
    save_file({"features.0.weight": torch.zeros(1)}, tmp_path / "other.safetensors")
    with pytest.raises(DataError, match="does not hold the weights of torchvision's vgg16"):
        VggFeatures(tmp_path / "other.safetensors")
    (tmp_path / "torn.safetensors").write_bytes(b"PK\x03\x04")
    with pytest.raises(DataError, match="does not hold the weights"):
        VggFeatures(tmp_path / "torn.safetensors")
