"""Products of activations: what they compute, cost and say of themselves."""

import pytest
import torch

from tenfold import profile
from tenfold.models import build
from tenfold.products import Product
from tenfold.quant import (
    ActivationQuantizer,
    FixedBits,
    LayerScheme,
    QuantProduct,
    activation_quantizers,
    describe,
    fix_bits,
    quantizable_layers,
    quantizable_products,
    quantize,
    quantized_layers,
    quantized_parts,
    start_levels,
)

SIGNED = LayerScheme(w_bits=3, a_bits=4, scheme="symmetric", a_scheme="symmetric", two_sided=True)
MAPS = LayerScheme(w_bits=3, a_bits=4, scheme="symmetric", a_scheme="original")


def _on_grid(values, level, steps, two_sided):
    """The formula, written once more: multiples of a step, zero among them, up to the level."""
    step = (2 if two_sided else 1) * level / steps
    return (values / step).round().mul(step).clamp(-level if two_sided else 0, level)


@pytest.mark.parametrize("layer", [SIGNED, MAPS])
def test_a_product_multiplies_both_operands_on_their_grids(layer):
    torch.manual_seed(0)
    product = QuantProduct(layer)
    with torch.no_grad():
        product.left_quantizer.alpha.fill_(1.0)
        product.right_quantizer.alpha.fill_(1.5)
    left, right = torch.randn(2, 3, 5, 4), torch.randn(2, 3, 4, 6)
    wanted = _on_grid(left, 1.0, 14 if layer.two_sided else 15, layer.two_sided) @ _on_grid(right, 1.5, 6, True)
    torch.testing.assert_close(product(left, right), wanted)
    assert product.is_signed == layer.two_sided
    assert (product.w_bits, product.a_bits) == (3, 4)


def test_gradients_reach_operands_and_levels():
    torch.manual_seed(0)
    product = QuantProduct(SIGNED)
    for parameter in product.parameters():
        parameter.data.fill_(2.0)
    left, right = torch.randn(5, 4, requires_grad=True), torch.randn(4, 6, requires_grad=True)
    product(left, right).square().sum().backward()
    assert all(one.grad.abs().sum() > 0 for one in (left, right, *product.parameters()))
    assert len(list(product.parameters())) == 2


def test_products_and_the_mixing_of_heads_stay_float_unless_they_are_named():
    network = build("deepvit_tiny", depth=2)
    assert not any("reatten_matrix" in name or "query_key" in name for name in quantizable_layers(network))
    with_mixing = quantizable_layers(network, head_mixing=True).keys() - quantizable_layers(network).keys()
    assert with_mixing == {"blocks.0.attn.reatten_matrix", "blocks.1.attn.reatten_matrix"}
    products = quantizable_products(network)
    assert list(products) == [f"blocks.{i}.attn.{name}" for i in (0, 1) for name in ("query_key", "map_value")]
    assert all(product.is_signed for product in products.values())
    plain = quantizable_products(build("vit_tiny", depth=1))
    assert [product.is_signed for product in plain.values()] == [True, False]


def test_a_quantized_product_is_described_rebuilt_given_other_bits_and_counted():
    network = build("vit_tiny", depth=1)
    before = profile(network, (3, 32, 32))
    quantize(network, {"blocks.0.attn.query_key": SIGNED, "blocks.0.attn.map_value": MAPS})
    assert describe(network) == {"blocks.0.attn.query_key": SIGNED, "blocks.0.attn.map_value": MAPS}
    twin = quantize(build("vit_tiny", depth=1), describe(network))
    twin.load_state_dict(network.state_dict())
    images = torch.randn(2, 3, 32, 32)
    torch.testing.assert_close(twin.eval()(images), network.eval()(images))
    assert dict(quantized_layers(network)) == {}
    assert len(dict(quantized_parts(network))) == 2
    assert list(activation_quantizers(network))[:2] == ["blocks.0.attn.query_key left", "blocks.0.attn.query_key right"]

    counted = profile(network, (3, 32, 32))
    assert counted.macs == before.macs
    assert counted.size_bytes == before.size_bytes  # clipping levels are folded away
    rows = {row.name: row for row in counted.layers}
    products = [rows[name] for name in describe(network)]
    assert [row.macs for row in products] == [65 * 65 * 64] * 2
    assert [row.bitops for row in products] == [65 * 65 * 64 * 3 * 4] * 2
    assert before.bitops - counted.bitops == sum(row.macs for row in products) * (32 * 32 - 3 * 4)

    fix_bits(network, {"blocks.0.attn.query_key": (5, 6)})
    product = network.blocks[0].attn.query_key
    assert (product.w_bits, product.a_bits) == (5, 6)
    assert product.right_quantizer.layer.a_bits == 5
    assert isinstance(product.right_quantizer.policy, FixedBits)


def test_levels_start_where_the_batch_is_and_norms_stay():
    network = build("deepvit_tiny", depth=2)
    quantize(network, dict.fromkeys(quantizable_products(network), SIGNED))
    norms = {key: value.clone() for key, value in network.state_dict().items() if "running" in key or "num_b" in key}
    quantizers = list(activation_quantizers(network).values())
    start_levels(network, torch.randn(8, 3, 32, 32), quantizers[:3])
    assert all(0 < quantizer.level < 8 for quantizer in quantizers[:3])
    assert all(quantizer.level == quantizer.initial_level for quantizer in quantizers)
    assert all(quantizer.level == 10 for quantizer in quantizers[3:])
    assert all(torch.equal(network.state_dict()[key], value) for key, value in norms.items())
    assert network.training


def test_a_float_product_is_the_product():
    left, right = torch.randn(5, 4), torch.randn(4, 6)
    assert torch.equal(Product()(left, right), left @ right)
    assert not any(isinstance(module, ActivationQuantizer) for module in Product().modules())
