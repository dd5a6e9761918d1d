"""Vision transformers under every method that sets bits, with and without quantized products of attention."""

import copy

import pytest
import torch
from torch import nn

from tenfold.cost import Budget, profile
from tenfold.errors import UsageError
from tenfold.layers.reattention import Attention
from tenfold.layers.reattention_insertion import expose_products
from tenfold.methods import QAT, SAT, AdaBits, FracBits, NormCalibration
from tenfold.models import build
from tenfold.quant import (
    FractionalBits,
    QuantProduct,
    activation_quantizers,
    available_bits,
    describe,
    describe_switch,
    make_switchable,
    quantize,
    quantized_layers,
    quantized_parts,
    restore_switch,
    set_bits,
)

LINEAR = ("qkv", "proj", "fc1", "fc2", "head")


@pytest.fixture
def images():
    return torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def _network(name="vit_tiny", depth=2):
    torch.manual_seed(0)
    return build(name, depth=depth)


def _timm():
    timm = pytest.importorskip("timm")
    torch.manual_seed(0)
    return timm.models.VisionTransformer(
        img_size=32, patch_size=8, embed_dim=32, depth=2, num_heads=4, num_classes=10, qkv_bias=True
    )


def _products(network):
    return {name: part for name, part in quantized_parts(network) if isinstance(part, QuantProduct)}


@pytest.mark.parametrize("make", [_network, lambda: _network("deepvit_tiny"), _timm])
@pytest.mark.parametrize(
    "method", [SAT(w_bits=4, a_bits=4), QAT(w_bits=4, a_bits=4), AdaBits(bits=(4,)), FracBits(like=4)]
)
def test_every_method_quantizes_what_is_linear_and_leaves_norms_and_maps_in_float(method, make, images):
    network = copy.deepcopy(method).attach(make(), None, images)
    names = dict(quantized_layers(network))
    assert len(names) == 2 * 4 + 2
    assert all(name == "patch_embed.proj" or name.rsplit(".", 1)[-1] in LINEAR for name in names)
    assert _products(network) == {}
    schemes = describe(network)
    inside = [scheme for name, scheme in schemes.items() if name.startswith("blocks")]
    assert {(s.w_bits, s.a_bits) for s in inside} <= {(4, 4), (8, 8)}  # FracBits begins at the most bits
    assert all(s.two_sided and s.a_scheme == "symmetric" for s in inside)
    assert schemes["patch_embed.proj"].pixels
    assert sum(isinstance(module, nn.LayerNorm) for module in network.modules()) == 5
    network.train()(images).square().mean().backward()
    assert all(parameter.grad is not None for parameter in network.parameters())


@pytest.mark.parametrize("make", [_network, lambda: _network("deepvit_tiny"), _timm])
def test_products_are_quantized_when_asked_for(make, images):
    plain = make()
    network = SAT(w_bits=4, a_bits=4, attention_products=True).attach(copy.deepcopy(plain), None, images)
    assert list(_products(network)) == [f"blocks.{i}.attn.{one}" for i in (0, 1) for one in ("query_key", "map_value")]
    is_mixed = any("reatten_matrix" in name for name, _ in network.named_modules())
    assert ("blocks.0.attn.reatten_matrix" in describe(network)) == is_mixed
    maps = network.blocks[0].attn.map_value
    assert (maps.layer.two_sided, maps.layer.a_scheme) == ((True, "symmetric") if is_mixed else (False, "original"))
    assert all(quantizer.level < 8 or is_mixed for quantizer in activation_quantizers(network).values())
    outputs = network.train()(images)
    outputs.square().mean().backward()
    assert all(parameter.grad is not None for parameter in network.parameters())
    assert plain.state_dict().keys() <= network.state_dict().keys()
    cost, before = profile(network, images), profile(plain, images)
    assert cost.macs == before.macs
    assert all(row.bitops < row.macs * 8 * 8 + 1 for row in cost.layers)  # nothing is left in float


def test_opened_attention_of_timm_answers_as_before(images):
    network = _timm().eval()
    names = network.state_dict().keys()
    with torch.no_grad():
        wanted = network(images)
        attentions = expose_products(network)
        torch.testing.assert_close(network(images), wanted, atol=1e-5, rtol=1e-5)
    assert network.state_dict().keys() == names
    assert all(type(attention) is Attention for attention in attentions.values())


def test_levels_fit_what_the_layers_read(images):
    network = SAT(w_bits=4, a_bits=4, attention_products=True).attach(_network(), None, images)
    attention = network.blocks[0].attn
    assert 1 < attention.qkv.input_quantizer.level < 4  # of a layer norm
    assert attention.map_value.left_quantizer.level < 0.2  # of a softmax over 65 tokens
    used = {}
    for name, quantizer in activation_quantizers(network).items():
        quantizer.register_forward_hook(lambda _, __, output, name=name: used.update({name: output.unique().numel()}))
    network.eval()(images)
    assert min(used.values()) >= 8  # of 15 or 16 levels; at the papers' starting levels there were 4


def test_a_budget_decides_the_bits_of_products_too(images):
    network = _network()
    method = SAT(attention_products=True)
    limit = int(
        profile(QAT(w_bits=5, a_bits=5, attention_products=True).attach(_network(), None, images), images).bitops
    )
    found = method.attach(network, Budget.parse(f"bitops={limit}"), images)
    assert describe(found)["blocks.0.attn.query_key"].a_bits == 5
    assert profile(found, images).bitops == limit


def test_adabits_switches_products(images):
    network = AdaBits(bits=(8, 4), attention_products=True).attach(_network("deepvit_tiny"), None, images).eval()
    assert available_bits(network) == ((8, 8), (4, 4))
    product = network.blocks[1].attn.map_value
    costs, outputs = [], []
    for bits in (8, 4):
        set_bits(network, bits)
        assert (product.w_bits, product.a_bits) == (bits, bits)
        costs.append(profile(network, images).bitops)
        outputs.append(network(images).detach())
    assert costs[0] > 3 * costs[1]
    assert not torch.allclose(*outputs)
    assert product.left_quantizer.alpha.shape == (2,)
    twin = quantize(_network("deepvit_tiny"), describe(network))
    restore_switch(twin, describe_switch(network))
    twin.load_state_dict(network.state_dict())
    set_bits(twin, 4)
    torch.testing.assert_close(twin.eval()(images), outputs[1])
    with pytest.raises(UsageError, match="several bit-widths already"):
        make_switchable(network, [(8, 8)], {})


def test_norm_calibration_measures_every_width(images):
    network = AdaBits(bits=(8, 4)).attach(_network("deepvit_tiny"), None, images)
    set_bits(network, 4)
    NormCalibration(batches=1).prepare_evaluation(network, iter([images, images]))
    norms = network.blocks[0].attn.var_norm.choices
    assert [int(norm.num_batches_tracked) for norm in norms] == [1, 1]
    assert not torch.equal(norms[0].running_var, norms[1].running_var)
    assert network.blocks[0].attn.qkv.w_bits == 4


class _Run:
    """What FracBits asks of a run."""

    def __init__(self, network, step, total):
        self.network, self.average = network, None
        self.step, self.steps_per_epoch, self.total_steps = step, 10, total


@pytest.mark.parametrize("name", ["vit_tiny", "deepvit_tiny"])
def test_fracbits_learns_the_bits_of_products_and_keeps_the_budget(name, images):
    method = FracBits(like=4, attention_products=True, bits_rate=20.0)
    network = method.attach(_network(name), None, images)
    policies = [quantizer.policy for quantizer in activation_quantizers(network).values()]
    assert all(isinstance(policy, FractionalBits) for policy in policies)
    limit = method._search.limits["bitops"]
    uniform = profile(QAT(w_bits=4, a_bits=4, attention_products=True).attach(_network(name), None, images), images)
    assert limit == uniform.bitops
    optimizer = torch.optim.SGD([policy.value for policy in policies], lr=0.5)
    for step in range(1, 4):
        optimizer.zero_grad()
        (network.train()(images).logsumexp(1).mean() + method.penalty(network)).backward()
        assert all(policy.value.grad is not None for policy in policies)
        optimizer.step()
        method.step_end(_Run(network, step, 10))
    finished = method.finish(network, iter([images]))
    found = profile(finished, images)
    assert found.bitops <= limit
    assert found.bitops == pytest.approx(float(method._search.costs()["bitops"]))
    assert found.bitops > 0.9 * limit
    assert all(isinstance(product.w_bits, int) for product in _products(finished).values())


@pytest.mark.parametrize("name", ["mobilenet_v2_tiny", "resnet20_cifar"])
def test_a_network_without_attention_is_refused_in_one_message(name, images):
    with pytest.raises(UsageError, match=r"attention_products cannot be quantized: .* no self-attention") as caught:
        SAT(w_bits=4, a_bits=4, attention_products=True).attach(build(name, num_classes=10), None, images)
    assert "leave attention_products out" in str(caught.value)


def test_an_attention_that_hides_its_products_is_refused(images):
    class Hidden(nn.Module):
        def __init__(self):
            super().__init__()
            self.attn = nn.MultiheadAttention(8, 2, batch_first=True)

    with pytest.raises(UsageError, match="attn cannot be opened: it is MultiheadAttention"):
        QAT(w_bits=4, a_bits=4, attention_products=True).attach(Hidden(), None, images)


@pytest.mark.parametrize(
    "make",
    [
        lambda: SAT(w_bits=4, a_bits=32, attention_products=True),
        lambda: QAT(w_bits=32, a_bits=32, attention_products=True),
        lambda: FracBits(weight_only=True, attention_products=True),
    ],
)
def test_products_cannot_be_quantized_where_activations_are_not(make):
    with pytest.raises(UsageError, match="activations of this training stay in float"):
        make()


@pytest.mark.parametrize(
    "make",
    [
        lambda: SAT(w_bits=1, a_bits=1, attention_products=True),
        lambda: AdaBits(bits=(4, 1), attention_products=True),
        lambda: FracBits(a_range=(1, 8), attention_products=True),
    ],
)
def test_products_need_two_bits(make):
    with pytest.raises(UsageError, match="at least 2 bits"):
        make()


def test_one_bit_inputs_have_a_grid_without_zero(images):
    for method in (SAT(w_bits=1, a_bits=1), AdaBits(bits=(2, 1)), FracBits(like=2, w_range=(1, 8), a_range=(1, 8))):
        network = method.attach(_network(), None, images)
        assert {scheme.a_scheme for scheme in describe(network).values()} == {"original"}
        assert network(images).isfinite().all()
