"""AutoNL-S and -L against the authors' networks: cost, names, answers in all three variants."""

import functools
import json

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from filling import fill_by_keys, image, probes, statistics
from tenfold.cost import profile
from tenfold.errors import UsageError
from tenfold.layers.lightnl import LightNonLocal
from tenfold.models import Architecture, build, load_official_autonl, official_autonl_names, read_official_blocks


@pytest.fixture(scope="session")
def folder(shared):
    return shared / "reference" / "autonl"


def _keys(folder):
    return json.loads((folder / "keys_autonl_s.json").read_text())


@pytest.mark.parametrize("name", ["autonl_s", "autonl_l"])
def test_every_block_costs_what_the_authors_counted(folder, name):
    expected = json.loads((folder / "architectures.json").read_text())[name]
    network = build(name)
    counted = profile(network, (3, 224, 224))
    assert (counted.macs, counted.params) == (expected["macs"], expected["params_all"])
    linear = sum(m.weight.numel() for m in network.modules() if isinstance(m, nn.Conv2d | nn.Linear))
    biases = sum(m.bias.numel() for m in network.modules() if getattr(m, "bias", None) is not None)
    norms = sum(m.bias.numel() for m in network.modules() if isinstance(m, nn.BatchNorm2d))
    assert linear + biases - norms == expected["params_conv_linear"]
    for (block, *_), row in zip(network.blocks, expected["blocks"], strict=True):
        own = [one for one in counted.layers if one.name.startswith(f"{block}.")]
        assert sum(one.macs for one in own) == row["macs"], block
        assert sum(one.macs for one in own if ".attention" in one.name) == row["lightnl_macs"], block


@pytest.mark.parametrize("name", ["autonl_s", "autonl_l"])
@pytest.mark.parametrize(("left_out", "columns"), [("no_nl", [5]), ("no_se", [4]), ("neither", [4, 5])])
def test_networks_without_parts_cost_what_the_authors_counted(folder, name, left_out, columns):
    expected = json.loads((folder / "architectures.json").read_text())[name][left_out]
    rows = build(name).found_architecture().options["blocks"]
    for row in rows:
        for column in columns:
            row[column] = 0.0
    counted = profile(build("autonl", blocks=rows), (3, 224, 224))
    assert (counted.macs, counted.params) == (expected["macs"], expected["params_all"])


def test_names_are_the_authors_in_their_order(folder):
    network = build("autonl_s")
    keys, own = _keys(folder), network.state_dict()
    pairs = list(official_autonl_names(network))
    assert [official for _, official in pairs] == [name for _, name, _, _ in keys]
    assert [list(own[name].shape) for name, _ in pairs] == [shape for _, _, shape, _ in keys]


@functools.cache
def _filled(folder, variant, dtype):
    """A network filled by the recipe, its statistics set by one training pass; and the logits of that pass."""
    facts = json.loads((folder / "net_autonl_s_seed1.json").read_text())
    network = build(
        "autonl_s",
        dropout=0.0,
        padding="same" if variant == "mean_same" else "symmetric",
        legacy_scale=variant == "official_torch",
    ).to(dtype)
    load_official_autonl(network, fill_by_keys(_keys(folder), facts["seed"], facts["conv_amplitude"]))
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0
    with torch.no_grad():
        logits = network.train()(image(4, 3, 224, 224, facts["calibration_input_seed"]).to(dtype))
    return network.eval(), logits, facts


VARIANTS = ["official_torch", "mean_symmetric", "mean_same"]


@pytest.mark.slow  # two passes of the whole network at 224x224 in float64
@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_answers_equal_the_authors(folder, variant, dtype):
    network, logits, facts = _filled(folder, variant, dtype)
    tensors = load_file(folder / "net_autonl_s_seed1.safetensors")
    limit = 1e-9 if dtype == torch.float64 else 2e-4
    expected = {name.partition(".")[2]: value for name, value in tensors.items() if name.startswith(f"{variant}.")}
    assert float((logits.double() - expected["calibration_logits"]).abs().max()) <= limit
    names = {official: name for name, official in official_autonl_names(network)}
    own = network.state_dict()
    norms = torch.stack([own[names[name]].double().norm() for name in facts["buffer_names"]])
    torch.testing.assert_close(norms, expected["running_stat_norms"], rtol=limit, atol=limit)
    features = {}
    places = ["stem", *(name for name, *_ in network.blocks), "tail"]
    for index, place in enumerate(places):
        network.get_submodule(place).register_forward_hook(
            lambda _, __, output, index=index: features.__setitem__(index, output.double())
        )
    with torch.no_grad():
        answer = network(image(2, 3, 224, 224, facts["eval_input_seed"]).to(dtype))
    assert float((answer.double() - expected["logits"]).abs().max()) <= limit
    assert len(features) >= 20
    # The authors have the average pool as a 21st feature.
    for index, feature in features.items():
        stats, scattered = expected["feature_stats"][index], expected["feature_probes"][index]
        torch.testing.assert_close(statistics(feature), stats, rtol=10 * limit, atol=10 * limit)
        torch.testing.assert_close(probes(feature), scattered, rtol=10 * limit, atol=10 * limit)
    if variant == "mean_same":
        official = tensors["official_tf.logits_float32"].double()
        assert float((answer.double() - official).abs().max()) <= max(limit, 5e-6)


def test_a_checkpoint_that_does_not_fit_is_refused(folder):
    state = fill_by_keys(_keys(folder), 1, 2.45)
    with pytest.raises(UsageError, match=r"classifier.1.weight has shape \(1000, 1280\).*2 in all"):
        load_official_autonl(build("autonl_s", num_classes=10), state)
    del state["features.2.nl_op.bn.bias"]
    with pytest.raises(UsageError, match=r"features.2.nl_op.bn.bias is missing"):
        load_official_autonl(build("autonl_s"), state)


def test_a_fresh_network_has_closed_lightnl_and_the_authors_spread():
    torch.manual_seed(0)
    network = build("autonl_s")
    placed = [module for module in network.modules() if isinstance(module, LightNonLocal)]
    assert len(placed) == 7
    for block in placed:
        assert block.bn.weight.abs().max() == 0
    weights = torch.cat([block.depthwise.weight.flatten() for block in placed])
    assert weights.std().item() == pytest.approx((2 / 9) ** 0.5, rel=0.05)


def test_a_network_describes_itself_so_that_it_can_be_built_again():
    network = build("autonl_l", num_classes=7, padding="same", dropout=0.1)
    found = network.found_architecture()
    again = build(Architecture.from_dict(json.loads(json.dumps(found.to_dict()))))
    assert [(n, t.shape) for n, t in again.state_dict().items()] == [
        (n, t.shape) for n, t in network.state_dict().items()
    ]
    again.load_state_dict(network.state_dict())
    x = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(again.eval()(x), network.eval()(x))


def test_the_table_of_blocks_is_checked():
    with pytest.raises(UsageError, match=r"block 2 of the table has no atoms, but leads from 16 to 24 channels"):
        build("autonl", blocks=[[16, 1, 32, 0, 0.0, 0.0, 1], [24, 2, 0, 0, 0.0, 0.0, 1]])
    with pytest.raises(UsageError, match=r"block 1 of the table has 48 atoms.*Give it 32"):
        build("autonl", blocks=[[16, 1, 48, 0, 0.0, 0.0, 1]])
    with pytest.raises(UsageError, match=r"ratio 0.01 on 16 channels would compare none"):
        build("autonl", blocks=[[16, 1, 32, 0, 0.0, 0.01, 1]])


def _official_text(rows):
    lines = []
    for row in rows:
        kernel, stride, expansion = row["kernel"], row["stride"], row["expansion"]
        line = f"r1_k{kernel}_s{stride}{stride}_e{expansion}_i{row['inp']}_o{row['out']}_se{row['se_ratio']}_sw"
        if row["nl_ratio"]:
            line += f"_nonlocal{row['nl_ratio']}-{row['nl_stride']}"
        lines.append(line)
    return "\n".join(lines)


@pytest.mark.parametrize("name", ["autonl_s", "autonl_l"])
def test_the_authors_text_of_an_architecture_is_read(folder, name):
    rows = json.loads((folder / "architectures.json").read_text())[name]["blocks"]
    blocks = read_official_blocks(_official_text(rows))
    assert blocks == build(name).found_architecture().options["blocks"]


def test_repeats_groups_and_defaults_of_the_authors_text():
    text = "r1_k3_s11_e1_i32_o16_a1_p1_sw\n\nr2_k3.5_s22_e3_i17_o24_a1.1_noskip_nonlocal\n"
    assert read_official_blocks(text) == [
        [16, 1, 32, 0, 0.0, 0.0, 1],
        [24, 2, 26, 25, 0.0, 1.0, 1],
        [24, 1, 36, 36, 0.0, 1.0, 1],
    ]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("k3_s11_e1_i32", r"line 1 .* it lacks o"),
        ("k3_s11_e1_i32_o16_x9", r"'x9' is no token of it; allowed are r, k, s"),
        ("k7_s11_e1_i32_o16", r"kernel sizes \[7\] are not 3, 5, or both"),
        ("k3_s11_e6_i32_o16", r"the first block alone has expansion 1"),
        ("k3_s11_e1_i32_o16_a3", r"expanding and projecting convolutions are 1x1 here"),
        ("k3_s11_e1_i16_o16_noskip", r"a block that keeps the shape adds its input here"),
        ("k3_s11_e1_i3.2_o16", r"invalid literal.*A line looks like"),
    ],
)
def test_text_that_cannot_be_read_is_refused(text, reason):
    with pytest.raises(UsageError, match=reason):
        read_official_blocks(text)
