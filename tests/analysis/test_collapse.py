"""The collapse analysis of whole networks."""

import json

import pytest
import timm
import torch
import torchvision
from safetensors.torch import load_file

from tenfold.analysis import analyze_collapse
from tenfold.errors import UsageError
from tenfold.layers.map_capture import watch_maps
from tenfold.models import build, load_official_deepvit
from waves import filled_state, signal


@pytest.mark.slow  # a network of 27 million weights
def test_measures_of_deepvit_s_equal_the_reference(shared):
    folder = shared / "reference" / "deepvit"
    rows = json.loads((folder / "state_deepvit_S.json").read_text())
    tensors = load_file(folder / "full_models.safetensors")
    network = build("deepvit_s").eval()
    load_official_deepvit(network, filled_state(rows["state"] if isinstance(rows, dict) else rows))
    index = json.loads((folder / "full_models.json").read_text())["deepvit_S"]["input_index"]
    image = signal([1, 3, 224, 224], index)
    for axis in ("key", "query"):
        found = analyze_collapse(network, [image], axis=axis)
        expected = tensors[f"deepvit_S.sim_{axis}"].double()
        torch.testing.assert_close(
            torch.tensor(found.maps["used"].matrix, dtype=torch.float64), expected, atol=1e-5, rtol=0
        )
    found = analyze_collapse(network, [image])
    for name, got in (
        ("head_sim_key", found.maps["used"].heads),
        ("feat_sim_last", found.features_to_last),
        ("sim_ratio_key_0.9", found.maps["used"].ratios["0.9"]),
        ("sim_ratio_key_0.5", found.maps["used"].ratios["0.5"]),
    ):
        # A ratio counts vectors; one at the very threshold may fall on the other side.
        tolerance = 1e-3 if "ratio" in name else 1e-5
        torch.testing.assert_close(
            torch.tensor(got, dtype=torch.float64), tensors[f"deepvit_S.{name}"].double(), atol=tolerance, rtol=0
        )
    assert found.reattention == [11, 12, 13, 14, 15]
    assert set(found.maps) == {"used", "used, centred", "softmax", "softmax, centred"}


def _timm():
    return timm.models.VisionTransformer(img_size=32, patch_size=8, embed_dim=48, depth=3, num_heads=4, num_classes=5)


def _torchvision():
    return torchvision.models.VisionTransformer(32, 8, 3, 4, 48, 96, num_classes=5)


@pytest.mark.parametrize("make", [_timm, _torchvision, lambda: build("vit_tiny", depth=3, patch_size=8)])
def test_networks_of_others_are_looked_at_and_left_as_they_were(make):
    torch.manual_seed(0)
    network, images = make(), torch.randn(5, 3, 32, 32)
    with torch.no_grad():
        before = network.eval()(images)
    network.train()
    told = []
    found = analyze_collapse(network, images.split(2), progress=told.append)
    assert told == [2, 4, 5]
    assert network.training
    assert len(found.blocks) == 3
    assert found.tokens == 17
    assert found.reattention == []
    assert list(found.maps) == ["used", "used, centred"]
    assert found.features_to_last[-1] == pytest.approx(1)
    with torch.no_grad():
        assert torch.equal(network.eval()(images), before)
    json.dumps(found.to_dict())


@pytest.mark.parametrize("make", [_timm, _torchvision])
def test_maps_of_others_are_those_that_they_use(make):
    """Values times maps, through the output layer, is what the attention gives."""
    torch.manual_seed(0)
    network, seen, outputs, inputs = make().eval(), {}, [], []
    attentions = [m for m in network.modules() if type(m).__name__ in {"Attention", "MultiheadAttention"}]
    for one in attentions:
        one.register_forward_hook(lambda _, given, __: inputs.append(given[0]))
        one.register_forward_hook(lambda _, __, out: outputs.append(out))
    with torch.no_grad(), watch_maps(network, lambda number, before, _: seen.__setitem__(number, before)):
        network(torch.randn(2, 3, 32, 32))
        for number, one in enumerate(attentions):
            x, maps = inputs[number], seen[number]
            if isinstance(one, torch.nn.MultiheadAttention):
                v = torch.nn.functional.linear(x, one.in_proj_weight[96:], one.in_proj_bias[96:])
                last, out = one.out_proj, outputs[number][0]
            else:
                v, last, out = one.qkv(x)[..., 96:], one.proj, outputs[number]
            v = v.unflatten(2, (4, 12)).transpose(1, 2)
            torch.testing.assert_close(last((maps @ v).transpose(1, 2).flatten(2)), out, atol=1e-6, rtol=1e-5)


def test_bad_input_is_told():
    with pytest.raises(UsageError, match="ImageClassifier is not a vision transformer that is known here"):
        analyze_collapse(build("resnet20_cifar"), [])
    with pytest.raises(UsageError, match="a network of one block has nothing to compare"):
        analyze_collapse(build("vit_tiny", depth=1), [])
    with pytest.raises(UsageError, match="no similarity of no images"):
        analyze_collapse(build("vit_tiny", depth=2), [])
