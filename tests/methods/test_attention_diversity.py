"""The regulariser of attention maps, and batch norms measured anew."""

import json

import pytest
import torch
from safetensors.torch import load_file
from torch.nn import functional as F

from tenfold.errors import UnknownNameError, UsageError
from tenfold.layers.reattention import ReAttention
from tenfold.methods import AttentionDiversity, NormCalibration, create, neighbour_similarity
from tenfold.models import build, load_official_deepvit
from tenfold.quant import measure_norms
from waves import close_gradient, filled_state, signal


def _folder(shared):
    return shared / "reference" / "deepvit"


@pytest.mark.parametrize("count", [1, 3, 5])
def test_the_loss_equals_the_authors(shared, count):
    tensors = load_file(_folder(shared) / "similarity.safetensors")
    maps = list(tensors["s0.maps"])
    alike = neighbour_similarity(maps[: count + 1], "head")
    loss = F.cross_entropy(signal([2, 7], 1200), signal([2, 7], 1201, 2.0).softmax(1))
    torch.testing.assert_close(loss, tensors["cosreg.ce"][0], atol=1e-5, rtol=0)
    torch.testing.assert_close(loss + 0.1 * alike, tensors[f"cosreg.n{count}"][0], atol=1e-5, rtol=0)


def test_a_regularised_step_equals_the_authors(shared):
    case = json.loads((_folder(shared) / "tiny_models.json").read_text())["t2_cosreg_train"]
    tensors = load_file(_folder(shared) / "tiny_models.safetensors")
    network = build(
        "deepvit", image_size=32, patch_size=8, dim=48, depth=4, heads=6, blocks=[2, 3], num_classes=10
    ).train()
    load_official_deepvit(network, filled_state(case["state"]))
    method = AttentionDiversity(count=case["cos_reg_n"])
    method.attach(network, None, torch.zeros(1, 3, 32, 32))
    (one,) = method.passes(network)
    with method.batch(network):
        one.enter()
        logits = network(signal([case["B"], 3, 32, 32], 920))
        loss = one.adjust(logits, F.cross_entropy(logits, signal([case["B"], 10], 921, 2.0).softmax(1)))
        loss.backward()
    torch.testing.assert_close(loss, tensors["t2_cosreg_train.loss"][0], atol=2e-5, rtol=0)
    for key, parameter in network.named_parameters():
        if f"t2_cosreg_train.grad.{key}" in tensors:
            close_gradient(parameter.grad, tensors[f"t2_cosreg_train.grad.{key}"], key, "train")
        if not key.endswith("reatten_matrix.bias"):
            assert float(parameter.grad.norm()) == pytest.approx(case["grad_norms"][key], rel=2e-4, abs=1e-6)
    assert network.blocks[2].attn.observer is None
    assert method.status() == {"map similarity": f"{method._similarity:.3f}"}


@pytest.mark.parametrize("axis", ["head", "key", "query"])
def test_equal_maps_have_similarity_one_along_any_axis(axis):
    maps = torch.rand(2, 3, 5, 5).softmax(-1)
    assert float(neighbour_similarity([maps, 2 * maps], axis)) == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize(
    ("pairs", "count", "expected"), [("first", 1, (0, 1)), ("last", 1, (1, 2)), ("first", 0, None)]
)
def test_the_chosen_pairs_are_compared(pairs, count, expected):
    torch.manual_seed(0)
    method = AttentionDiversity(pairs=pairs, count=count)
    maps = [torch.rand(1, 2, 3, 3) for _ in range(3)]
    for number, one in enumerate(maps):
        method._see(number, one, one)
    got = float(method._with_similarity(torch.zeros(1), torch.zeros(())))
    chosen = maps if expected is None else [maps[number] for number in expected]
    assert got == pytest.approx(0.1 * float(neighbour_similarity(chosen)))


def test_training_with_it_makes_maps_less_alike():
    torch.manual_seed(0)
    network = build("vit_tiny", depth=3, patch_size=8)
    images = torch.randn(8, 3, 32, 32)
    method = AttentionDiversity(weight=1.0, count=2, axis="key")
    optimizer = torch.optim.AdamW(network.parameters(), lr=3e-3)
    found = []
    for _ in range(12):
        (one,) = method.passes(network)
        with method.batch(network):
            one.enter()
            outputs = network(images)
            optimizer.zero_grad()
            one.adjust(outputs, 0 * outputs.sum()).backward()
        optimizer.step()
        found.append(method._similarity)
    assert found[-1] < found[0] - 0.05


def test_norms_measured_anew_equal_the_authors(shared):
    case = json.loads((_folder(shared) / "modules.json").read_text())["m0_train"]
    tensors = load_file(_folder(shared) / "similarity.safetensors")
    module = ReAttention(48, 6)
    module.load_state_dict(filled_state(case["state"]))
    measure_norms(module.eval(), [signal([2, 10, 48], 1300 + number) for number in range(3)])
    for name in ("running_mean", "running_var"):
        torch.testing.assert_close(getattr(module.var_norm, name), tensors[f"bncal.{name}"], atol=1e-6, rtol=1e-5)
    assert module.var_norm.momentum == 0.1
    assert not module.training


def test_norm_calibration_measures_before_an_evaluation_and_in_the_end():
    torch.manual_seed(0)
    network = build("deepvit_tiny", depth=2, patch_size=8)
    norm = network.blocks[1].attn.var_norm
    method, images = NormCalibration(batches=2), [torch.randn(4, 3, 32, 32) for _ in range(4)]
    batches = iter(images)
    method.prepare_evaluation(network, batches)
    assert len(list(batches)) == 2
    first = norm.running_var.clone()
    assert (first != 1).all()
    assert method.finish(network, iter(images[2:])) is network
    assert not torch.equal(norm.running_var, first)


def test_bad_options_are_told():
    with pytest.raises(UnknownNameError, match="unknown pairs of attention_diversity 'middle'"):
        create("attention_diversity", pairs="middle")
    with pytest.raises(UnknownNameError, match="unknown axis of attention_diversity 'row'"):
        create("attention_diversity", axis="row")
    with pytest.raises(UsageError, match="weight is 0; allowed is a number above 0"):
        create("attention_diversity", weight=0)
    with pytest.raises(UsageError, match="count is -1; allowed is a whole number from 1, or 0 for all pairs"):
        create("attention_diversity", count=-1)
    with pytest.raises(UsageError, match="compares 12 pairs of neighbouring blocks, but the network has 3"):
        AttentionDiversity().attach(build("vit_tiny", depth=4), None, torch.zeros(1))
    with pytest.raises(UsageError, match="ImageClassifier is not a vision transformer"):
        AttentionDiversity().attach(build("resnet20_cifar"), None, torch.zeros(1))
    with pytest.raises(UsageError, match="batches is 0; allowed is a whole number from 1"):
        create("norm_calibration", batches=0)
