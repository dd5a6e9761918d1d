"""DeepViT's networks: the authors' names, tensors and costs."""

import json

import pytest
import timm
import torch
from safetensors.torch import load_file
from torch.nn import functional as F

from tenfold.cost import profile
from tenfold.errors import ShapeError, UsageError
from tenfold.layers.map_capture import watch_maps
from tenfold.layers.reattention import Attention, ReAttention
from tenfold.models import build, load_official_deepvit
from tenfold.models.deepvit import TransformerBlock
from waves import close_gradient, filled_state, signal

NAMES = {
    "deepvit_s": "deepvit_S",
    "deepvit_l": "deepvit_L",
    "deepvit_l_384": "deepvit_L_384",
    "deepvit_16b": "deepvit_patch16_224_re_attn_16b",
    "deepvit_24b": "deepvit_patch16_224_re_attn_24b",
    "deepvit_32b": "deepvit_patch16_224_re_attn_32b",
}
WITH_TENSORS = [name for name in NAMES if name not in {"deepvit_l", "deepvit_32b"}]


def _read(shared, name):
    return json.loads((shared / "reference" / "deepvit" / f"{name}.json").read_text())


def _tensors(shared, file, prefix):
    tensors = load_file(shared / "reference" / "deepvit" / f"{file}.safetensors")
    prefix = f"{prefix}."
    return {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}


@pytest.mark.parametrize("name", NAMES)
def test_names_shapes_and_costs_are_those_of_the_authors(shared, name):
    network = build(name)
    own = {key: list(value.shape) for key, value in network.state_dict().items()}
    rows = _read(shared, f"state_{NAMES[name]}")
    rows = rows["state"] if isinstance(rows, dict) else rows
    assert own == {row["key"]: row["shape"] for row in rows}
    facts = _read(shared, "full_models")[NAMES[name]]
    counted = profile(network, (3, facts["img_size"], facts["img_size"]))
    assert counted.params == facts["params"]
    assert counted.macs == facts["macs"]["total"]
    by_kind = {"conv": 0, "linear": 0, "matmul": 0, "attention": 0}
    for layer in counted.layers:
        if layer.macs:
            by_kind["mix" if layer.name.endswith("reatten_matrix") else layer.kind] = (
                by_kind.get("mix" if layer.name.endswith("reatten_matrix") else layer.kind, 0) + layer.macs
            )
    macs = facts["macs"]
    assert by_kind["mix"] == macs["reatten_conv"]
    assert by_kind["matmul"] + by_kind["attention"] == macs["attn_matmul"]
    assert by_kind["linear"] == macs["linear"]
    assert by_kind["conv"] == macs["patch_embed"]


def _blocks(network, run):
    """Output, maps and class tokens of all blocks of a run."""
    maps, classes = {}, []
    handles = [
        block.register_forward_hook(lambda _, __, out: classes.append(out[:, 0].detach())) for block in network.blocks
    ]
    with watch_maps(network, lambda number, _, after: maps.__setitem__(number, after)):
        out = run()
    for handle in handles:
        handle.remove()
    return out, [maps[number] for number in sorted(maps)], torch.stack(classes)


@pytest.mark.slow  # networks of up to 59 million weights
@pytest.mark.parametrize("name", WITH_TENSORS)
def test_logits_tokens_and_maps_equal_the_authors(shared, name):
    reference, facts = NAMES[name], _read(shared, "full_models")[NAMES[name]]
    tensors = _tensors(shared, "full_models", reference)
    network = build(name).eval()
    rows = _read(shared, f"state_{reference}")
    load_official_deepvit(network, filled_state(rows["state"] if isinstance(rows, dict) else rows))
    image = signal([1, 3, facts["img_size"], facts["img_size"]], facts["input_index"])
    with torch.no_grad():
        torch.testing.assert_close(network(image), tensors["logits"], atol=2e-5, rtol=0)
        logits, maps, classes = _blocks(network, lambda: network(image))
        torch.testing.assert_close(logits, tensors["logits"], atol=2e-5, rtol=0)
        # Residual sums grow to thousands over the blocks, and rounding with them.
        limit = 1e-6 * float(tensors["feat_cls"].abs().max())
        torch.testing.assert_close(classes[:, 0], tensors["feat_cls"], atol=limit, rtol=0)
        facts = torch.tensor([[float(one.mean()), float(one.std())] for one in maps])
        torch.testing.assert_close(facts, tensors["attn_mean_std"].float(), atol=2e-5, rtol=1e-4)
        for key, value in tensors.items():
            if key.endswith("attn_head0"):
                torch.testing.assert_close(maps[int(key.split(".")[0][5:])][0, 0], value, atol=2e-5, rtol=0)
        if "train_mode_logits_b2" in tensors:
            network.train()
            logits = network(signal([2, 3, 224, 224], 940))
            torch.testing.assert_close(logits, tensors["train_mode_logits_b2"], atol=2e-5, rtol=0)


TINY = ("t0_patch_eval", "t0_patch_train", "t1_cnn_eval", "t1_cnn_train", "t2_cosreg_train")


def _tiny(case):
    options = case["cfg"]
    convolves = bool(options.get("use_cnn_embed"))
    width = options["embed_dim"] // options["num_heads"]
    network = build(
        "deepvit",
        image_size=options["img_size"],
        patch_size=options["patch_size"],
        dim=options["embed_dim"],
        depth=len(options["depth"]),
        heads=options["num_heads"],
        mlp_ratio=options["mlp_ratio"],
        blocks=[number for number, mixes in enumerate(options["apply_transform"]) if mixes],
        stem="conv" if convolves else "patch",
        gain=width**-0.5 if options.get("transform_scale") else 1.0,
        residual_scale=options.get("scale_adjustment", 1.0),
        num_classes=case["num_classes"],
    )
    load_official_deepvit(network, filled_state(case["state"]))
    return network.train(case["mode"] == "train")


@pytest.mark.parametrize("name", TINY)
@pytest.mark.parametrize("watched", [True, False])
def test_a_step_of_small_networks_equals_the_authors(shared, name, watched):
    case, tensors = _read(shared, "tiny_models")[name], _tensors(shared, "tiny_models", name)
    network = _tiny(case)
    images = signal([case["B"], 3, 32, 32], 920)
    targets = signal([case["B"], 10], 921, 2.0).softmax(1)
    if watched:
        logits, maps, classes = _blocks(network, lambda: network(images))
        torch.testing.assert_close(torch.stack(maps), tensors["attn"], atol=2e-5, rtol=0)
        torch.testing.assert_close(classes, tensors["feat_cls"], atol=2e-5, rtol=2e-5)
    else:
        logits = network(images)
    torch.testing.assert_close(logits, tensors["logits"], atol=2e-5, rtol=0)
    loss = F.cross_entropy(logits, targets)
    torch.testing.assert_close(loss, tensors["ce_part" if "ce_part" in tensors else "loss"][0], atol=2e-5, rtol=0)
    for key, value in tensors.items():
        if key.startswith("after."):
            torch.testing.assert_close(network.get_buffer(key.removeprefix("after.")), value, atol=1e-5, rtol=1e-5)
    if case["cos_reg_n"]:  # its gradients stand in tests/methods/test_attention_diversity.py
        return
    loss.backward()
    for key, parameter in network.named_parameters():
        if f"grad.{key}" in tensors:
            close_gradient(parameter.grad, tensors[f"grad.{key}"], key, case["mode"])
        expected = case["grad_norms"][key]
        if key.endswith("reatten_matrix.bias") and case["mode"] == "train":
            assert float(parameter.grad.norm()) < 1e-3
        else:
            assert float(parameter.grad.norm()) == pytest.approx(expected, rel=2e-4, abs=1e-6)


@pytest.mark.parametrize("name", ["b0_train", "b1_eval_adj1", "b2_eval_noT_adj05", "b3_plain"])
def test_blocks_equal_the_authors(shared, name):
    case, tensors = _read(shared, "modules")[name], _tensors(shared, "modules", name)
    options = case["cfg"]
    dim, heads = options["dim"], options["num_heads"]
    mixes = any("reatten_matrix" in row["key"] for row in case["state"])
    gain = (dim // heads) ** -0.5 if options.get("transform_scale") else 1.0
    attention = ReAttention(dim, heads, qkv_bias=options.get("qkv_bias", False), gain=gain)
    if not mixes:
        attention = Attention(dim, heads, qkv_bias=options.get("qkv_bias", False))
    uses_scale = options.get("re_atten", True)
    block = TransformerBlock(
        attention,
        dim,
        int(dim * options["mlp_ratio"]),
        residual_scale=options.get("scale_adjustment", 1.0) if uses_scale else 1.0,
    )
    block.load_state_dict(filled_state(case["state"]))
    block.train(case["mode"] == "train")
    x = signal([case["B"], case["N"], dim], 910).requires_grad_()
    out = block(x)
    torch.testing.assert_close(out, tensors["out"], atol=2e-5, rtol=0)
    (out * signal(out.shape, 911, 0.5)).sum().backward()
    close_gradient(x.grad, tensors["grad_x"], "x", case["mode"])
    for key, parameter in block.named_parameters():
        if key.endswith("reatten_matrix.bias") and case["mode"] == "train":
            assert float(parameter.grad.norm()) < 1e-3
        else:
            assert float(parameter.grad.norm()) == pytest.approx(float(tensors[f"gradnorm.{key}"]), rel=1e-4)


def test_a_plain_twin_loads_from_timm_and_answers_like_it():
    theirs = timm.models.VisionTransformer(
        img_size=32, patch_size=4, embed_dim=64, depth=3, num_heads=4, mlp_ratio=3, num_classes=10
    ).eval()
    ours = build("vit_tiny", depth=3).eval()
    load_official_deepvit(ours, theirs.state_dict())
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(ours(images), theirs(images), atol=2e-6, rtol=0)


def test_half_the_residual_scale_doubles_the_branches():
    torch.manual_seed(0)
    halved = build("vit_tiny", depth=1).blocks[0].double()
    halved.residual_scale = 0.5
    x = torch.randn(2, 5, 64, dtype=torch.float64)
    for norm in (halved.norm1, halved.norm2):
        norm.eps = 1e-6
    out = halved(x)
    halved.residual_scale = 1.0
    for norm, last in ((halved.norm1, halved.attn.proj), (halved.norm2, halved.mlp.fc2)):
        norm.eps = 4e-6
        with torch.no_grad():
            last.weight *= 2
            last.bias *= 2
    torch.testing.assert_close(halved(x), out, atol=1e-12, rtol=1e-10)


def test_other_image_sizes_get_a_resized_position_embedding():
    network = build("deepvit_tiny", depth=2).eval()
    assert network(torch.randn(1, 3, 48, 24)).shape == (1, 10)
    larger = build("deepvit_tiny", depth=2, image_size=48)
    load_official_deepvit(larger, network.state_dict())
    assert larger.pos_embed.shape == (1, 145, 64)


def test_whole_branches_are_dropped_while_training():
    torch.manual_seed(0)
    network = build("vit_tiny", depth=2, drop_path=0.9)
    assert [block.drop_path for block in network.blocks] == [0.0, 0.9]
    x = torch.randn(64, 5, 64)
    unchanged = (network.blocks[1](x) == x).all(dim=(1, 2)).float().mean()
    assert 0.6 < unchanged < 0.95
    torch.testing.assert_close(network.eval().blocks[1](x), network.blocks[1](x))


def test_a_captured_network_takes_batches_of_any_size():
    network = build("deepvit_tiny", depth=2, blocks=[1]).eval()
    shapes = ({0: torch.export.Dim("batch")},)
    captured = torch.export.export(network, (torch.randn(4, 3, 32, 32),), dynamic_shapes=shapes).module()
    images = torch.randn(3, 3, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(captured(images), network(images), atol=1e-5, rtol=1e-5)


def test_bad_input_is_told():
    with pytest.raises(ShapeError, match=r"30x32 pixels cannot be cut into patches of 4x4.*for instance to 32x32"):
        build("vit_tiny", depth=1)(torch.randn(1, 3, 30, 32))
    with pytest.raises(ShapeError, match=r"33x33 pixels cannot be cut into patches of 4x4"):
        build("vit_tiny", depth=1, image_size=33)
    with pytest.raises(UsageError, match=r"5 heads do not divide a width of 64"):
        build("vit_tiny", heads=5)
    with pytest.raises(UsageError, match=r"there is no block 4, 7: the network has 4 blocks, numbered 0 to 3"):
        build("deepvit_tiny", depth=4, blocks=[1, 4, 7])
    with pytest.raises(ShapeError, match="a patch of 5 pixels does not go with the stem 'conv'"):
        build("deepvit", patch_size=5, stem="conv")
    with pytest.raises(UsageError, match="the weights do not fit: cls_token is missing"):
        load_official_deepvit(build("vit_tiny", depth=1), {})
