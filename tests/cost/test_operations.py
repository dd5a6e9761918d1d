"""Multiply-adds of single operators, against formulas written by hand and against slow obvious programs."""

import pytest
import torch
import torch.nn.functional as F
import torchvision
from torch import nn

from tenfold.cost import operations, profile, register_operation
from tenfold.errors import CountError, UsageError


class Run(nn.Module):
    """A function as a module, outside any submodule."""

    def __init__(self, function, **parameters):
        super().__init__()
        self.function = function
        for name, shape in parameters.items():
            self.register_parameter(name, nn.Parameter(torch.zeros(shape)))

    def forward(self, *inputs):
        return self.function(*inputs, **dict(self.named_parameters()))


def macs_of(function, *shapes, **parameters):
    return profile(Run(function, **parameters), tuple(torch.zeros(shape) for shape in shapes)).macs


@pytest.fixture
def own_table(monkeypatch):
    monkeypatch.setattr(operations, "_OPERATIONS", dict(operations._OPERATIONS))


@pytest.mark.parametrize(
    ("layer", "shape", "macs"),
    [
        (nn.Conv1d(4, 6, 3), (4, 10), 8 * 6 * 4 * 3),
        (nn.Conv2d(4, 6, (3, 5), padding=(1, 2)), (4, 7, 9), 7 * 9 * 6 * 4 * 15),
        (nn.Conv2d(4, 6, 3, stride=2, bias=False), (4, 9, 9), 4 * 4 * 6 * 4 * 9),
        (nn.Conv2d(4, 6, 3, groups=2), (4, 9, 9), 7 * 7 * 6 * 2 * 9),
        (nn.Conv2d(4, 8, 3, groups=4), (4, 9, 9), 7 * 7 * 8 * 9),
        (nn.Conv2d(4, 6, 3, dilation=3), (4, 9, 9), 3 * 3 * 6 * 4 * 9),
        (nn.Conv2d(4, 6, 3, padding=1, padding_mode="circular"), (4, 9, 9), 9 * 9 * 6 * 4 * 9),
        (nn.Conv3d(2, 3, 3), (2, 5, 6, 7), 3 * 4 * 5 * 3 * 2 * 27),
        (nn.ConvTranspose1d(4, 6, 3), (4, 10), 10 * 4 * 6 * 3),
        (nn.ConvTranspose2d(4, 6, 3, stride=2, output_padding=1), (4, 5, 5), 25 * 4 * 6 * 9),
        (nn.ConvTranspose2d(4, 6, 3, groups=2, dilation=2), (4, 5, 5), 25 * 4 * 3 * 9),
        (nn.Linear(5, 7), (5,), 35),
        (nn.Linear(5, 7, bias=False), (3, 2, 5), 3 * 2 * 35),
        (nn.LSTM(4, 5, num_layers=2), (3, 4), 3 * 20 * (4 + 5) + 3 * 20 * (5 + 5)),
        (nn.LSTM(4, 5, bidirectional=True), (3, 4), 2 * 3 * 20 * (4 + 5)),
        (nn.GRU(4, 5), (3, 4), 3 * 15 * (4 + 5)),
    ],
)
def test_layers_cost_what_the_formula_says(layer, shape, macs):
    if isinstance(layer, nn.RNNBase):
        layer.batch_first = True
    assert profile(layer, shape).macs == macs


def test_a_convolution_costs_what_a_loop_over_all_its_taps_counts():
    layer = nn.Conv2d(4, 6, 3, stride=2, dilation=2, groups=2)
    height, width = layer(torch.zeros(1, 4, 11, 13)).shape[-2:]
    taps = 0
    for _ in range(height * width):
        for channel_out in range(6):
            group = channel_out // 3
            taps += sum(9 for channel_in in range(4) if channel_in // 2 == group)
    assert profile(layer, (4, 11, 13)).macs == taps


@pytest.mark.parametrize(
    ("function", "shapes", "macs"),
    [
        (torch.matmul, [(3, 4), (4, 5)], 60),
        (torch.matmul, [(2, 1, 3, 4), (6, 4, 5)], 2 * 6 * 60),
        (torch.bmm, [(2, 3, 4), (2, 4, 5)], 120),
        (torch.baddbmm, [(2, 3, 5), (2, 3, 4), (2, 4, 5)], 120),
        (torch.addbmm, [(3, 5), (2, 3, 4), (2, 4, 5)], 120),
        (torch.addmm, [(5,), (3, 4), (4, 5)], 60),
        (torch.mv, [(3, 4), (4,)], 12),
        (torch.addmv, [(3,), (3, 4), (4,)], 12),
        (torch.dot, [(4,), (4,)], 4),
        (torch.vdot, [(4,), (4,)], 4),
        (torch.inner, [(3, 4), (5, 4)], 60),
        (lambda x, y: torch.tensordot(x, y, dims=2), [(2, 3, 4), (3, 4, 5)], 2 * 12 * 5),
        (lambda x, y: torch.einsum("bhqd,bhkd->bhqk", x, y), [(2, 3, 5, 4), (2, 3, 6, 4)], 6 * 5 * 6 * 4),
        (lambda x, y: torch.einsum("bij,bij->b", x, y), [(2, 3, 4), (2, 3, 4)], 24),
        (lambda x, y: x @ y, [(3, 4), (4, 5)], 60),
        (F.linear, [(3, 4), (5, 4)], 60),
        (F.conv2d, [(1, 4, 9, 9), (6, 4, 3, 3)], 49 * 6 * 36),
    ],
)
def test_functional_products_outside_modules_are_counted_for_the_network_itself(function, shapes, macs):
    bill = profile(Run(function), tuple(torch.zeros(shape) for shape in shapes))
    assert bill.macs == macs
    assert {layer.name for layer in bill.layers} == {""}


def test_a_product_of_complex_numbers_is_four_products():
    assert macs_of(lambda x, y: torch.complex(x, x) @ torch.complex(y, y), (3, 4), (4, 5)) == 4 * 60


@pytest.mark.parametrize("is_causal", [False, True])
@pytest.mark.parametrize("backend", ["flash", "masked", "math"])
def test_attention_is_two_products(backend, is_causal):
    heads, queries, keys, dim, dim_v = 2, 5, 5, 8, 8

    def attend(q, k, v):
        if backend == "math":
            with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
                return F.scaled_dot_product_attention(q, k, v, is_causal=is_causal)
        mask = torch.zeros(queries, keys) if backend == "masked" and not is_causal else None
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=is_causal)

    shapes = [(1, heads, queries, dim), (1, heads, keys, dim), (1, heads, keys, dim_v)]
    assert macs_of(attend, *shapes) == heads * queries * keys * (dim + dim_v)


def test_attention_over_other_keys_and_values_follows_their_sizes():
    shapes = [(1, 2, 5, 8), (1, 2, 7, 8), (1, 2, 7, 4)]
    assert macs_of(F.scaled_dot_product_attention, *shapes) == 2 * 5 * 7 * (8 + 4)


def test_grouped_query_attention_counts_every_query_head():
    shapes = [(1, 4, 5, 8), (1, 2, 5, 8), (1, 2, 5, 8)]
    assert macs_of(lambda q, k, v: F.scaled_dot_product_attention(q, k, v, enable_gqa=True), *shapes) == 4 * 5 * 5 * 16


def test_every_attention_kernel_has_a_rule():
    kernels = [
        name
        for name in dir(torch.ops.aten)
        if name.startswith("_scaled_dot_product") and not name.endswith(("backward", "attention_math"))
    ]
    assert {"_scaled_dot_product_flash_attention_for_cpu", "_scaled_dot_product_efficient_attention"} <= {*kernels}
    for name in kernels:
        (operation,) = operations._OPERATIONS[f"aten::{name}"]
        assert operation.kind == "attention"


@pytest.mark.parametrize("need_weights", [False, True])
def test_multi_head_attention_is_projections_and_two_products(need_weights):
    layer = nn.MultiheadAttention(8, 2, batch_first=True)
    tokens = torch.zeros(1, 5, 8)
    bill = profile(Call(layer, need_weights), (tokens,))
    assert bill.macs == 5 * 8 * 24 + 2 * 5 * 5 * 8 + 5 * 8 * 8
    assert bill.params == sum(p.numel() for p in layer.parameters())


class Call(nn.Module):
    def __init__(self, layer, need_weights):
        super().__init__()
        self.layer, self.need_weights = layer, need_weights

    def forward(self, x):
        return self.layer(x, x, x, need_weights=self.need_weights)


def test_a_transformer_layer_is_counted_inside_and_not_as_one_fused_operator():
    assert torch.backends.mha.get_fastpath_enabled()
    bill = profile(nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), (5, 8))
    assert bill.macs == 5 * 8 * 24 + 2 * 5 * 5 * 8 + 5 * 8 * 8 + 2 * 5 * 8 * 16
    assert {"self_attn", "linear1", "linear2"} <= {layer.name for layer in bill.layers}
    assert torch.backends.mha.get_fastpath_enabled()


@pytest.mark.parametrize(
    ("mode", "shape", "per_value"),
    [
        ("nearest", (1, 3, 4), 0),
        ("nearest-exact", (1, 3, 4, 4), 0),
        ("nearest", (1, 3, 4, 4, 4), 0),
        ("linear", (1, 3, 4), 2),
        ("bilinear", (1, 3, 4, 4), 4),
        ("trilinear", (1, 3, 4, 4, 4), 8),
        ("bicubic", (1, 3, 4, 4), 16),
        ("area", (1, 3, 4, 4), 0),
    ],
)
def test_interpolation_costs_its_taps(mode, shape, per_value):
    values = 3 * 8 ** (len(shape) - 2)
    assert macs_of(lambda x: F.interpolate(x, scale_factor=2, mode=mode), shape) == per_value * values


@pytest.mark.parametrize(("mode", "size"), [("bilinear", (5, 7)), ("bicubic", (5, 7)), ("bilinear", (29, 31))])
def test_antialiased_interpolation_costs_the_taps_of_its_filters(mode, size):
    def taps(size_in, size_out):
        """What each output reads, seen by interpolating unit impulses along a row."""
        impulses = torch.eye(size_in, dtype=torch.float64).view(size_in, 1, 1, size_in)
        return int((F.interpolate(impulses, size=(1, size_out), mode=mode, antialias=True) != 0).sum())

    height_in, width_in = 18, 22  # even, so that no tap falls on the rim of a filter and weighs nothing
    height, width = size
    macs = macs_of(lambda x: F.interpolate(x, size=size, mode=mode, antialias=True), (1, 3, height_in, width_in))
    assert macs == 3 * (height_in * taps(width_in, width) + width * taps(height_in, height))


def test_antialiasing_with_aligned_corners_and_given_factors_is_counted():
    aligned = macs_of(
        lambda x: F.interpolate(x, size=(9, 9), mode="bilinear", antialias=True, align_corners=True), (1, 1, 5, 5)
    )
    assert aligned == 2 * 5 * 9 + 2 * 9 * 9 - 5 - 9  # two taps each, save one at the far border
    halved = macs_of(lambda x: F.interpolate(x, scale_factor=0.5, mode="bilinear", antialias=True), (1, 1, 8, 8))
    assert halved == (8 + 4) * (4 * 4 - 2)  # four taps each, one fewer at either border


@pytest.mark.parametrize(("mode", "per_value"), [("bilinear", 4), ("nearest", 0), ("bicubic", 16)])
def test_grid_sampling_costs_its_taps(mode, per_value):
    sample = lambda x, grid: F.grid_sample(x, grid, mode=mode, align_corners=False)  # noqa: E731
    assert macs_of(sample, (1, 3, 8, 8), (1, 5, 6, 2)) == per_value * 3 * 5 * 6


def test_volumetric_grid_sampling_costs_eight_taps():
    sample = lambda x, grid: F.grid_sample(x, grid, align_corners=False)  # noqa: E731
    assert macs_of(sample, (1, 3, 8, 8, 8), (1, 5, 6, 7, 3)) == 8 * 3 * 5 * 6 * 7


def test_an_affine_grid_costs_a_product_a_point():
    assert macs_of(lambda theta: F.affine_grid(theta, (1, 3, 5, 6), align_corners=False), (1, 2, 3)) == 5 * 6 * 2 * 3


@pytest.mark.parametrize("groups", [1, 2])
def test_deformable_convolution_is_a_convolution_and_four_products_a_sample(groups):
    layer = torchvision.ops.DeformConv2d(4, 6, 3, groups=groups, stride=2)
    bill = profile(layer, (torch.zeros(1, 4, 9, 9), torch.zeros(1, 18, 4, 4), torch.zeros(1, 9, 4, 4)))
    convolution, sampling = 16 * 6 * 4 // groups * 9, 4 * 16 * 4 * 9
    assert {layer.kind: layer.macs for layer in bill.layers} == {"deform_conv": convolution, "interpolate": sampling}


def test_region_alignment_costs_its_samples():
    boxes = torch.tensor([[0, 0.0, 0.0, 4.0, 4.0]])
    align = torchvision.ops.roi_align
    bill = profile(Run(lambda x, rois: align(x, rois, 7, sampling_ratio=2)), (torch.zeros(1, 3, 8, 8), boxes))
    assert bill.macs == 4 * 4 * 3 * 49
    with pytest.raises(CountError, match=r"roi_align with sampling_ratio=-1.*Give the module a sampling_ratio"):
        profile(Run(lambda x, rois: align(x, rois, 7)), (torch.zeros(1, 3, 8, 8), boxes))


@pytest.mark.parametrize(
    "function",
    [
        lambda x: F.softmax(F.relu(x) * 2 + x.exp(), dim=-1),
        lambda x: F.layer_norm(F.batch_norm(x, torch.zeros(4), torch.ones(4)), (8,)),
        lambda x: F.group_norm(x, 2).permute(0, 2, 1).reshape(-1).unsqueeze(0),
        lambda x: F.max_pool2d(F.adaptive_avg_pool2d(x, 4), 2),
        lambda x: F.pad(x, (1, 1), mode="reflect").mean(-1).std(),
        lambda x: torch.cat([x, torch.zeros_like(x)], dim=1)[:, ::2].topk(3).values.cumsum(-1),
        lambda x: x[..., torch.arange(2)].add_(1).relu_().sort().values.roll(1, -1),
        lambda x: F.hardswish(F.gelu(F.silu(F.mish(F.leaky_relu(x))))).half().float(),
        lambda x: F.dropout(F.prelu(x, torch.ones(1)), training=True) + torch.rand(8),
        lambda x: F.pixel_shuffle(x.unsqueeze(0), 2) if x.shape[-1] == 4 else F.glu(x, -1),
        lambda x: F.unfold(x.unsqueeze(0), 2),
        lambda x: torch.where(x > 0, x, x.flip(-1)).tril().logsumexp(-1),
    ],
)
def test_work_without_products_costs_nothing(function):
    assert macs_of(function, (1, 4, 8)) == 0


@pytest.mark.parametrize(
    ("function", "operator"),
    [
        (torch.fft.rfft2, "aten::_fft_r2c"),
        (lambda x: torch.cdist(x, x), "aten::_cdist_forward"),
        (torch.linalg.inv, "aten::linalg_inv_ex"),
        (lambda x: F.bilinear(x, x, torch.zeros(3, 4, 4)), "aten::_trilinear"),
        (torch.matrix_exp, "aten::linalg_matrix_exp"),
    ],
)
def test_products_without_a_rule_stop_the_count(function, operator):
    with pytest.raises(CountError, match=f"cannot count the operator {operator} in the network itself"):
        macs_of(function, (1, 4, 4))


def test_control_flow_operators_stop_the_count():
    choose = lambda x: torch.cond(x.sum() > 0, lambda x: x @ x, lambda x: x, (x,))  # noqa: E731
    with pytest.raises(CountError, match=r"the operator cond in .*write this part with plain operators"):
        macs_of(choose, (4, 4))


@torch.library.custom_op("tenfold_test::square_product", mutates_args=())
def square_product(x: torch.Tensor) -> torch.Tensor:
    return x @ x


@square_product.register_fake
def _(x):
    return torch.empty_like(x)


@torch.library.custom_op("tenfold_test::no_shapes", mutates_args=())
def no_shapes(x: torch.Tensor) -> torch.Tensor:
    return x + 1


@torch.library.custom_op("tenfold::quantize_for_test", mutates_args=())
def quantize_for_test(x: torch.Tensor) -> torch.Tensor:
    return x.round()


@quantize_for_test.register_fake
def _(x):
    return torch.empty_like(x)


def test_an_unknown_custom_operator_is_named_with_its_module_and_the_way_out():
    network = nn.Sequential(nn.Linear(4, 4), nn.Sequential(Run(square_product)))
    with pytest.raises(
        CountError,
        match=r"operator tenfold_test::square_product in module '1.0': its cost is unknown, and zero would be a guess. "
        r"Add a rule with tenfold.cost.register_operation\('tenfold_test::square_product', macs=lambda call: ...\), or "
        r"macs=0 if it multiplies nothing.",
    ):
        profile(network, (4, 4))


@pytest.mark.usefixtures("own_table")
def test_a_registered_rule_is_used():
    name = "tenfold_test::square_product"
    register_operation(name, macs=lambda call: call["x"].numel() * call["x"].shape[-1], kind="square", operands=["x"])
    (layer,) = profile(Run(square_product), (torch.zeros(4, 4),)).layers
    assert (layer.kind, layer.macs) == ("square", 64)


@pytest.mark.usefixtures("own_table")
def test_an_operator_that_gives_no_shapes_is_run_for_real():
    register_operation("tenfold_test::no_shapes", macs=0)
    network = nn.Sequential(Run(no_shapes), nn.Linear(4, 5))
    assert profile(network, torch.zeros(2, 4)).macs == 20
    with pytest.raises(RuntimeError, match="no fake impl registered") as failure:
        profile(network, (4,))
    assert failure.value.__notes__ == [
        "This was a run without arithmetic, to count cost. A real batch as the example allows a real run."
    ]


def test_quantizers_of_the_house_are_free():
    assert macs_of(quantize_for_test, (4, 4)) == 0


@pytest.mark.parametrize("name", ["square", "a::b::c", "::b", "a::b.default"])
def test_a_rule_needs_a_full_name(name):
    with pytest.raises(UsageError, match="the name has the form namespace::operator, such as aten::mm"):
        register_operation(name, macs=0)


def test_a_second_rule_is_refused():
    with pytest.raises(UsageError, match="operator 'aten::mm' has a rule already"):
        register_operation("aten::mm", macs=0)


def test_a_rule_is_zero_or_a_function():
    with pytest.raises(UsageError, match="macs=5 is neither 0 nor a function of the call"):
        register_operation("tenfold_test::five", macs=5)
