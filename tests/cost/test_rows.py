"""Bits of layers, BitOPs, and bytes."""

import math

import pytest
import torch
import torchvision
from torch import nn

from tenfold.cost import first_and_last, profile
from tenfold.cost.profiler import record
from tenfold.cost.rows import make_rows
from tenfold.errors import UsageError

# specs/sat.md section 6.4, which equals the regularizer of the official SAT code: G BitOPs and 1e6 bytes at each width.
BITS = (2, 3, 4, 5, 6, 8, 32)
TABLE = {
    "mobilenet_v2": (
        "1.8687 3.3223 5.3531 7.9612 11.1467 19.2496 307.993",
        "1.8321 2.1057 2.3793 2.6529 2.9265 3.4738 13.8830",
    ),
    "resnet18": (
        "14.3433 22.8251 34.6980 49.9621 68.6172 116.1007 1857.611",
        "3.3148 4.7095 6.1042 7.4988 8.8935 11.6829 46.7196",
    ),
    "resnet50": (
        "23.4622 43.3241 71.1244 106.8629 150.5396 261.7078 4187.325",
        "7.9228 10.8535 13.7842 16.7148 19.6455 25.5069 102.016",
    ),
}


def printed_like(value, printed):
    """The value with as many decimals as the printed one."""
    return f"{value:.{len(printed.partition('.')[2])}f}"


@pytest.mark.parametrize("name", TABLE)
def test_the_tables_of_sat_are_reproduced_to_the_printed_digit(name):
    with torch.device("meta"):
        network = torchvision.models.get_model(name, weights=None)
    recorder = record(network, ((3, 224, 224),), fake=True)  # once for all widths, to save time
    assert make_rows(recorder, network, first_and_last(4, 4)) == profile(network, (3, 224, 224), bits=(4, 4))
    for bits, bitops, size in zip(BITS, *(row.split() for row in TABLE[name]), strict=True):
        bill = make_rows(recorder, network, first_and_last(bits, bits))
        assert printed_like(bill.bitops / 1e9, bitops) == bitops
        assert printed_like(bill.size_bytes / 1e6, size) == size


def test_without_bits_all_is_float():
    network = torchvision.models.resnet18()
    bill = profile(network, (3, 64, 64))
    assert bill.bitops == bill.macs * 32 * 32
    norms = sum(p.numel() for m in network.modules() if isinstance(m, nn.BatchNorm2d) for p in m.parameters())
    assert bill.size_bytes == 4 * (bill.params - norms)


def test_first_and_last_layer_keep_eight_bits():
    policy = first_and_last(3, 5)
    layer = nn.Linear(1, 1)
    assert [policy("", layer, idx, 4) for idx in range(4)] == [(8, 8), (3, 5), (3, 5), (8, 5)]
    assert first_and_last(16, 32)("", layer, 0, 2) == (16, 32)


def test_a_function_decides_for_each_layer_in_the_order_of_execution():
    class Reversed(nn.Module):
        def __init__(self):
            super().__init__()
            self.last, self.first = nn.Linear(4, 4), nn.Linear(4, 4)

        def forward(self, x):
            return self.last(self.first(x) @ x.transpose(-1, -2) @ x)

    seen = []

    def policy(name, module, idx, count):
        seen.append((name, type(module), idx, count))
        return 2 + idx, 4

    bill = profile(Reversed(), (4, 4), bits=policy)
    assert seen == [("first", nn.Linear, 0, 2), ("last", nn.Linear, 1, 2)]
    assert [(row.name, row.w_bits, row.a_bits) for row in bill.layers] == [
        ("first", 2, 4),
        ("", 32, 32),
        ("last", 3, 4),
    ]


class Quantized(nn.Linear):
    """A stand-in for the layers of tenfold.quant: plain attributes, and quantizers with parameters of their own."""

    def __init__(self, w_bits, a_bits):
        super().__init__(8, 6)
        self.w_bits, self.a_bits = w_bits, a_bits
        self.input_quantizer = nn.Module()
        self.input_quantizer.alpha = nn.Parameter(torch.tensor(8.0))

    def forward(self, x):
        weight = torch.round(self.weight * 3) / 3 * self.weight.std()
        return nn.functional.linear(x.clamp(max=self.input_quantizer.alpha), weight, self.bias)


def test_layers_tell_their_bits_by_attributes():
    (row,) = profile(Quantized(3, 5), (8,)).layers
    assert (row.w_bits, row.a_bits, row.bitops) == (3, 5, 48 * 15)
    assert row.params == 48 + 6 + 1
    assert row.size_bytes == 48 * 3 // 8 + 6 * 4  # the clipping level is not counted
    assert (row.input_bytes, row.activation_bytes) == (5, math.ceil(6 * 5 / 8))


def test_a_pair_of_bits_overrules_the_attributes():
    (row,) = profile(Quantized(3, 5), (8,), bits=(2, 4)).layers
    assert (row.w_bits, row.a_bits) == (8, 8)


def test_bytes_are_whole_and_round_up():
    (row,) = profile(nn.Linear(3, 3, bias=False), (3,), bits=lambda *_: (3, 3)).layers
    assert row.size_bytes == math.ceil(27 / 8) == 4


def test_attention_is_done_with_the_activation_bits_its_module_says():
    class Attention(nn.Module):
        def __init__(self, **bits):
            super().__init__()
            vars(self).update(bits)

        def forward(self, x):
            return nn.functional.scaled_dot_product_attention(x, x, x)

    (unknown,) = profile(Attention(), (2, 5, 4), bits=(4, 4)).layers
    assert (unknown.macs, unknown.bitops) == (400, 400 * 32 * 32)
    (known,) = profile(Attention(w_bits=2, a_bits=6), (2, 5, 4)).layers
    assert (known.w_bits, known.a_bits, known.bitops) == (6, 6, 400 * 36)


def test_norms_clipping_levels_and_buffers_have_no_bytes_and_other_parameters_are_float():
    class Network(nn.Module):
        def __init__(self):
            super().__init__()
            self.norms = nn.Sequential(nn.LayerNorm(8), nn.RMSNorm(8))
            self.position = nn.Parameter(torch.zeros(8))
            self.alpha = nn.Parameter(torch.zeros(()))
            self.q_bias = nn.Parameter(torch.zeros(8))
            self.table = nn.Embedding(5, 8)
            self.table.w_bits = 4
            self.register_buffer("grid", torch.zeros(100))

        def forward(self, x):
            return self.norms(x + self.position + self.q_bias + self.table(torch.tensor(0))) * self.alpha

    bill = profile(Network(), (8,))
    assert bill.params == 16 + 8 + 8 + 1 + 8 + 40
    assert bill.size_bytes == 8 * 4 + 8 * 4 + 40 * 4 // 8
    assert {row.name: row.kind for row in bill.layers} == {
        "": "parameters",
        "table": "parameters",
        "norms.0": "norm",
        "norms.1": "norm",
    }


def test_the_peak_of_activation_memory_is_the_layer_that_reads_and_writes_most():
    network = nn.Sequential(nn.Conv2d(3, 8, 1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 2, 1))
    bill = profile(network, (3, 10, 10))
    assert [row.activation_bytes for row in bill.layers if row.macs] == [3200, 800]
    assert bill.activation_bytes == 1200 + 3200
    assert profile(network, (3, 10, 10), bits=lambda *_: (4, 4)).activation_bytes == (1200 + 3200) // 8


def test_of_several_calls_the_one_that_moves_most_sets_the_memory():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(2, 2, 1)

        def forward(self, x):
            return self.conv(self.conv(x)[..., ::2])

    (row,) = profile(Twice(), (2, 4, 4)).layers
    assert (row.macs, row.input_bytes, row.activation_bytes) == (4 * (16 + 8), 128, 128)
    assert row.output_shape == (1, 2, 4, 4)


@pytest.mark.parametrize("bits", [(4, 33), (-1, 4), (4.0, 4), (4,), [4, 4, 4], ("4", "4")])
def test_impossible_bits_are_refused(bits):
    needed = "needed are two whole numbers from 0 to 32: of weights and of inputs"
    with pytest.raises(UsageError, match=f"this network has bits .*; {needed}"):
        profile(nn.Linear(4, 4), (4,), bits=bits)
    with pytest.raises(UsageError, match=f"layer '0' has bits .*; {needed}"):
        profile(nn.Sequential(nn.Linear(4, 4)), (4,), bits=lambda *_: bits)


def test_impossible_bits_of_a_module_are_refused():
    with pytest.raises(UsageError, match=r"layer '0' has bits \(None, 8\)"):
        profile(nn.Sequential(Quantized(None, 8)), (8,))
