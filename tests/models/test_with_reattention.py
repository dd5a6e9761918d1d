"""Re-attention for a network that exists."""

import copy

import pytest
import timm
import torch
from torch import nn

from tenfold.errors import UsageError
from tenfold.layers.reattention import ReAttention
from tenfold.models import Architecture, build, reattention


def _timm(**options):
    torch.manual_seed(0)
    return timm.models.VisionTransformer(
        img_size=32, patch_size=8, embed_dim=48, depth=4, num_heads=4, num_classes=5, **options
    )


@pytest.mark.parametrize(
    "options", [{}, {"qk_norm": True, "init_values": 0.1}, {"class_token": False, "global_pool": "avg"}]
)
@pytest.mark.parametrize("norm", ["batch", "none"])
def test_a_network_of_timm_answers_as_before_and_keeps_its_weights(options, norm):
    network = _timm(**options).eval()
    images, state = torch.randn(2, 3, 32, 32), copy.deepcopy(network.state_dict())
    with torch.no_grad():
        before = network(images)
        assert reattention(network, [1, 3], norm=norm) is network
        torch.testing.assert_close(network(images), before, atol=2e-6, rtol=0)
    assert [isinstance(block.attn, ReAttention) for block in network.blocks] == [False, True, False, True]
    for name, value in state.items():
        assert torch.equal(network.state_dict()[name], value), name
    assert not network.blocks[1].attn.var_norm.training
    network.train()(images).sum().backward()
    assert network.blocks[3].attn.reatten_matrix.weight.grad.abs().sum() > 0


@pytest.mark.parametrize("gain", [1.0, 0.5])
def test_with_images_the_network_is_unchanged_in_training_too(gain):
    network = _timm()
    images = torch.randn(8, 3, 32, 32)
    with torch.no_grad():
        before = network(images)
        reattention(network, images=images, gain=gain)
        assert network.training
        torch.testing.assert_close(network(images), before, atol=1e-5, rtol=0)
        torch.testing.assert_close(network.eval()(images), before, atol=1e-5, rtol=0)


def test_without_images_a_batch_norm_changes_the_maps_in_training():
    network = _timm()
    images = torch.randn(8, 3, 32, 32)
    with torch.no_grad():
        before = network(images)
        assert float((reattention(network)(images) - before).abs().max()) > 1e-3


def test_a_network_of_the_registry_can_be_built_again():
    network = reattention(build("timm:vit_tiny_patch16_224", num_classes=3, img_size=32), [11], norm="none")
    again = build(Architecture.from_dict(network.architecture.to_dict()))
    again.load_state_dict(network.state_dict())
    assert again.architecture == network.architecture
    images = torch.randn(1, 3, 32, 32)
    with torch.no_grad():
        assert torch.equal(again.eval()(images), network.eval()(images))


def test_bad_input_is_told():
    with pytest.raises(UsageError, match=r"there is no block 4, 9: the network has 4 blocks, numbered 0 to 3"):
        reattention(_timm(), [1, 9, 4])
    with pytest.raises(UsageError, match="ImageClassifier is not a vision transformer that is known here"):
        reattention(build("resnet18_cifar"))
    with pytest.raises(UsageError, match=r"blocks\.0\.attn has re-attention already"):
        reattention(reattention(_timm()))
    with pytest.raises(UsageError, match=r"blocks\.0\.attn cannot be given re-attention: its output is normalised"):
        reattention(_timm(scale_attn_norm=True))
    encoder = nn.TransformerEncoderLayer(16, 2, batch_first=True)
    with pytest.raises(UsageError, match="cannot be given re-attention: it is MultiheadAttention"):
        reattention(encoder)
    with pytest.raises(UsageError, match="images set where the identity starts, not theta='random'"):
        reattention(_timm(), theta="random", images=torch.randn(1, 3, 32, 32))
    with pytest.raises(UsageError, match="name all blocks at once"):
        build("with_reattention", network="with_reattention")
