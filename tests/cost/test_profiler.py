"""What whole networks cost, and that counting leaves no trace in them."""

import copy
import json

import pytest
import timm
import torch
import torch.nn.functional as F
import torchvision
from torch import nn
from torch.nn.utils import prune

from tenfold.cost import profile
from tenfold.errors import CountError, ShapeError, UsageError


def counted_by_hooks(network, shape):
    """Multiply-adds of convolutions and linear layers: an independent count, from the shapes that the layers see."""
    total = 0

    def hook(layer, inputs, output):
        nonlocal total
        total += output.numel() * layer.weight[0].numel()

    network = copy.deepcopy(network).to("meta").eval()
    for layer in network.modules():
        if isinstance(layer, (nn.Conv2d, nn.Linear)):
            layer.register_forward_hook(hook)
    network(torch.empty(1, *shape, device="meta"))
    return total


@pytest.mark.parametrize(
    ("name", "macs", "params"),
    [
        ("resnet18", 1_814_073_344, 11_689_512),
        ("resnet50", 4_089_184_256, 25_557_032),
        ("mobilenet_v2", 300_774_272, 3_504_872),
    ],
)
def test_published_networks_cost_what_is_published(name, macs, params):
    bill = profile(torchvision.models.get_model(name, weights=None), (3, 224, 224))
    assert (bill.macs, bill.params) == (macs, params)


@pytest.mark.parametrize(
    "name",
    ["efficientnet_b0", "mobilenetv3_small_100", "convnext_atto", "mixer_s32_224", "repvgg_a0", "hrnet_w18_small"],
)
def test_networks_of_layers_cost_what_their_layers_see(name):
    with torch.device("meta"):  # random weights take longer than the count
        network = timm.create_model(name)
    bill = profile(network, (3, 224, 224))
    assert bill.macs == counted_by_hooks(network, (3, 224, 224))
    assert bill.params == sum(parameter.numel() for parameter in network.parameters())


@pytest.mark.parametrize(
    "name",
    ["deit_tiny_distilled_patch16_224", "levit_128s", "coatnet_nano_rw_224", "mobilevit_xxs", "efficientvit_b0"],
)
def test_networks_with_attention_cost_their_layers_and_the_products_of_activations(name):
    with torch.device("meta"):  # random weights take longer than the count
        network = timm.create_model(name)
    shape = network.default_cfg["input_size"]
    bill = profile(network, shape)
    layers = sum(layer.macs for layer in bill.layers if layer.kind in {"conv", "linear"})
    products = sum(layer.macs for layer in bill.layers if layer.kind in {"attention", "matmul"})
    assert layers == counted_by_hooks(network, shape)
    assert products > 0
    assert bill.macs == layers + products
    assert bill.params == sum(parameter.numel() for parameter in network.parameters())


def test_vit_small_costs_what_its_formula_says():
    tokens, dim, depth = 14 * 14 + 1, 384, 12
    layer = tokens * (3 * dim * dim + dim * dim + 2 * dim * 4 * dim)
    attention = 2 * tokens * tokens * dim
    total = 14 * 14 * dim * 3 * 16 * 16 + depth * (layer + attention) + dim * 1000
    bill = profile(timm.create_model("vit_small_patch16_224"), (3, 224, 224))
    assert bill.macs == total
    assert [row.macs for row in bill.layers if row.kind == "attention"] == [attention] * depth


def test_torchvision_attention_is_counted_though_it_fuses_by_itself():
    tokens, dim, depth = 197, 768, 12
    layer = tokens * 12 * dim * dim + 2 * tokens * tokens * dim
    bill = profile(torchvision.models.vit_b_16(), (3, 224, 224))
    assert bill.macs == 14 * 14 * dim * 768 + depth * layer + dim * 1000


def test_segmentation_counts_its_upsampling():
    network = torchvision.models.segmentation.lraspp_mobilenet_v3_large(weights=None, weights_backbone=None)
    bill = profile(network, (3, 64, 64))
    upsampling = sum(row.macs for row in bill.layers if row.kind == "interpolate")
    assert upsampling == 4 * (21 * 64 * 64 + 128 * 8 * 8)  # classes to the image, features to half of it
    assert bill.macs == upsampling + counted_by_hooks(network, (3, 64, 64))


class Selects(nn.Module):
    """What it does depends on its input: it keeps the pixels above zero."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(3, 5)

    def forward(self, x):
        return self.linear(x[x.sum(-1) > 0])


def test_work_that_depends_on_values_needs_values():
    pixels = torch.tensor([[[1.0, 1, 1], [-1, -1, -1], [2, 2, 2]]])
    assert profile(Selects(), pixels).macs == 2 * 3 * 5
    with pytest.raises(CountError, match=r"cannot count from a shape alone: .*Give a real batch as the example."):
        profile(Selects(), (3, 3))


def test_a_network_that_leaves_torch_for_a_while_needs_values():
    class ToNumpy(nn.Module):
        def forward(self, x):
            return torch.from_numpy(x.numpy() + 1) @ torch.zeros(3, 4)

    assert profile(ToNumpy(), torch.zeros(1, 2, 3)).macs == 2 * 3 * 4


# Attribution


class Shared(nn.Module):
    """One layer called twice, tied weights, a parameter and a product of its own, an idle layer."""

    def __init__(self):
        super().__init__()
        self.twice = nn.Linear(8, 8)
        self.tied = nn.Linear(8, 8, bias=False)
        self.tied.weight = self.twice.weight
        self.own = nn.Parameter(torch.zeros(8, 3))
        self.idle = nn.Linear(8, 5)
        self.register_buffer("table", torch.zeros(8))

    def forward(self, x):
        x = self.tied(self.twice(self.twice(x))) + self.table
        return (x @ self.own).transpose(-1, -2) @ x


def test_costs_are_put_down_to_the_module_that_causes_them():
    bill = profile(Shared(), (4, 8))
    rows = {(row.name, row.kind): row for row in bill.layers}
    assert rows["twice", "linear"].macs == 2 * 4 * 64
    assert rows["tied", "linear"].macs == 4 * 64
    assert rows["", "linear"].macs == 4 * 8 * 3
    assert rows["", "matmul"].macs == 3 * 4 * 8
    assert rows["idle", "parameters"].macs == 0
    assert [row.name for row in bill.layers] == ["twice", "tied", "", "", "idle"]


def test_tied_weights_count_once():
    bill = profile(Shared(), (4, 8))
    rows = {(row.name, row.kind): row for row in bill.layers}
    assert (rows["twice", "linear"].params, rows["tied", "linear"].params) == (72, 0)
    assert bill.params == 64 + 8 + 24 + 45
    assert bill.size_bytes == 4 * bill.params


def test_a_shared_module_has_one_row():
    layer = nn.Linear(8, 8)
    (row,) = profile(nn.Sequential(layer, nn.ReLU(), layer), (8,)).layers
    assert (row.name, row.macs, row.params) == ("0", 128, 72)


def test_output_shapes_are_those_of_the_modules():
    bill = profile(nn.Sequential(nn.Conv2d(3, 8, 3, stride=2), nn.Flatten(2), nn.Linear(16, 5)), (3, 9, 9))
    assert [row.output_shape for row in bill.layers] == [(1, 8, 4, 4), (1, 8, 5)]


def test_a_weight_made_by_other_operators_is_still_a_weight():
    network = nn.utils.parametrizations.weight_norm(nn.Linear(8, 8))
    (row,) = profile(network, (8,)).layers
    assert (row.kind, row.params) == ("linear", 64 + 8 + 8)


def test_a_kernel_made_of_the_input_is_no_weight():
    class Dynamic(nn.Module):
        def __init__(self):
            super().__init__()
            self.experts = nn.Parameter(torch.zeros(3, 4 * 2 * 9))

        def forward(self, x):
            choice = x.mean((2, 3)) @ torch.zeros(2, 3)
            kernel = torch.zeros(4, 2, 3, 3)
            kernel[:] = (choice @ self.experts).view(4, 2, 3, 3)  # written into a constant, through a view
            return F.conv2d(x, kernel)

    rows = profile(Dynamic(), (2, 5, 5), bits=(4, 4)).layers
    assert {(row.kind, row.macs, row.params, row.w_bits) for row in rows} == {
        ("matmul", 6, 0, 32),
        ("linear", 3 * 72, 216, 8),
        ("conv", 9 * 72, 0, 32),
    }


# The network and the world around it stay as they were


class Busy(nn.Module):
    """Does in forward all that a module should not do, and fails on request."""

    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm2d(3, momentum=0.5)
        self.conv = nn.Conv2d(3, 4, 3)
        self.dropout = nn.Dropout()
        self.register_buffer("calls", torch.zeros(1))
        self.cache = {}
        self.fails = False

    def forward(self, x):
        self.calls += 1
        self.cache["last"] = x
        self.latest = x
        with torch.no_grad():
            self.conv.weight.mul_(2)
        x = self.conv(self.norm(x) + torch.rand(1))
        if self.fails:
            raise ZeroDivisionError("the network's own error")
        return self.dropout(x)


def snapshot(network):
    return (
        {name: tensor.clone() for name, tensor in network.state_dict().items()},
        [(name, module.training, len(module._forward_hooks), len(module._forward_pre_hooks))
         for name, module in network.named_modules()],
        sorted(vars(network)),
        dict(network.cache),
        torch.get_rng_state(),
        torch.is_grad_enabled(),
        torch.backends.mha.get_fastpath_enabled(),
    )  # fmt: skip


@pytest.mark.parametrize("fails", [False, True])
@pytest.mark.parametrize("example", [(3, 8, 8), torch.zeros(2, 3, 8, 8)], ids=["shape", "tensor"])
def test_the_network_is_left_exactly_as_it_was(fails, example):
    network = Busy()
    network.norm.eval()
    network.fails = fails
    before = snapshot(network)
    if fails:
        with pytest.raises(ZeroDivisionError, match="the network's own error"):
            profile(network, example)
    else:
        assert profile(network, example).macs == 36 * 4 * 27
    after = snapshot(network)
    torch.testing.assert_close(after[0], before[0], rtol=0, atol=0)
    assert after[1:4] == before[1:4]
    assert torch.equal(after[4], before[4])
    assert after[5:] == before[5:]


def test_a_real_run_leaves_the_network_too():
    class Reads(Busy):
        def forward(self, x):
            return super().forward(x if x.sum().item() > 0 else -x)

    network, example = Reads(), torch.rand(1, 3, 8, 8)
    before = snapshot(network)
    assert profile(network, example).macs == 36 * 4 * 27
    after = snapshot(network)
    torch.testing.assert_close(after[0], before[0], rtol=0, atol=0)
    assert after[1:4] == before[1:4]
    assert torch.equal(after[4], before[4])


def test_hooks_of_the_user_run_and_count():
    network = nn.Sequential(nn.Linear(4, 4))
    product = torch.zeros(4, 4)
    network[0].register_forward_hook(lambda module, inputs, output: output @ product)
    assert profile(network, (4,)).macs == 32


def test_an_error_caught_inside_forward_does_not_confuse_the_attribution():
    class Tries(nn.Module):
        def __init__(self):
            super().__init__()
            self.wrong, self.right = nn.Linear(5, 5), nn.Linear(4, 4)

        def forward(self, x):
            try:
                return self.wrong(x)
            except RuntimeError:
                return self.right(x) @ torch.zeros(4, 2)

    rows = profile(Tries(), (4,)).layers
    assert {row.name: row.macs for row in rows if row.macs} == {"right": 16, "": 8}


# Examples and surroundings


def test_costs_are_those_of_one_image():
    network = nn.Sequential(nn.Conv2d(3, 8, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 2))
    assert profile(network, torch.zeros(16, 3, 9, 9)) == profile(network, (3, 9, 9))


def test_several_inputs_are_given_as_a_tuple_of_tensors():
    bill = profile(Two(), (torch.zeros(1, 4), torch.zeros(1, 4)))
    assert bill.macs == 16


class Two(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(4, 4)

    def forward(self, x, y):
        return self.linear(x + y)


@pytest.mark.parametrize("surroundings", [torch.inference_mode, torch.no_grad, torch.enable_grad])
def test_counting_works_under_any_gradient_mode(surroundings):
    network = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
    expected = profile(network, (5, 8))
    with surroundings():
        assert profile(network, (5, 8)) == expected


def test_operators_that_arrive_undivided_are_divided():
    class Frozen(nn.Linear):
        def forward(self, x):
            with torch.inference_mode():  # here matmul and einsum reach the counter whole
                return torch.einsum("bij,bkj->bik", super().forward(x).matmul(torch.zeros(8, 4)), x[..., :4])

    assert profile(Frozen(8, 8), (5, 8)).macs == 5 * 64 + 5 * 8 * 4 + 5 * 5 * 4


def test_networks_without_storage_or_in_half_precision_cost_the_same():
    network = torchvision.models.resnet18()
    expected = profile(network, (3, 64, 64))
    assert profile(network.half(), (3, 64, 64)) == expected
    assert profile(network.to("meta"), (3, 64, 64)) == expected


def test_pruned_networks_whose_weight_is_a_result_are_counted():
    layer = prune.l1_unstructured(nn.Linear(4, 5), "weight", 0.5)
    assert (profile(layer, (4,)).macs, profile(layer, (4,)).params) == (20, 25)


def test_compiled_networks_are_counted_as_what_they_wrap():
    network = nn.Sequential(nn.Linear(4, 5))
    expected = profile(network, (4,))
    assert profile(torch.compile(network), (4,)) == expected
    network.compile()
    assert profile(network, (4,)) == expected


def test_attributes_that_cannot_be_copied_are_shared():
    network = nn.Sequential(nn.Linear(4, 5))
    network.generator = (number for number in range(3))
    assert profile(network, (4,)).macs == 20


def test_a_network_that_forbids_copying_is_refused():
    class Single(nn.Linear):
        def __deepcopy__(self, memo):
            raise TypeError("there is only one")

    with pytest.raises(
        UsageError,
        match=r"cannot copy this Single in order to count it \(TypeError: there is only one\). Give a network that",
    ):
        profile(Single(4, 5), (4,))


@pytest.mark.filterwarnings("ignore:.*torch.jit:FutureWarning", "ignore:.*torch.jit:DeprecationWarning")
def test_scripted_networks_are_refused():
    scripted = torch.jit.script(nn.Linear(4, 5))
    with pytest.raises(
        UsageError, match=r"cannot count a scripted or traced network. Give the network that it was made"
    ):
        profile(scripted, (4,))


@pytest.mark.filterwarnings("ignore:Lazy modules")
def test_lazy_networks_are_refused():
    with pytest.raises(UsageError, match=r"parameters have no shape yet \(lazy layers\). Run it once first."):
        profile(nn.LazyLinear(4), (3,))


def test_tensors_of_hidden_layout_are_refused():
    network = nn.Linear(4, 4, bias=False)
    sparse = torch.eye(4).to_sparse()
    network.register_forward_hook(lambda module, inputs, output: sparse @ output)
    with pytest.raises(CountError, match=r"cannot count with a tensor of layout torch.sparse_coo.*plain dense tensors"):
        profile(network, (torch.zeros(4, 4),))


@pytest.mark.parametrize("example", [(), (3, 0, 8), (3, -1), (3, 2.5), (True, 3), "3x8x8", (3, torch.zeros(1))])
def test_what_is_no_example_is_refused(example):
    with pytest.raises(ShapeError, match=r"is neither a tensor nor the shape of one image, such as \(3, 224, 224\)"):
        profile(nn.Linear(4, 4), example)


@pytest.mark.parametrize("example", [torch.zeros(0, 3), torch.zeros(())])
def test_an_empty_batch_is_refused(example):
    with pytest.raises(ShapeError, match=r"the example has shape .*; give a batch \(B, ...\) of at least one image"):
        profile(nn.Linear(4, 4), example)


def test_an_error_of_the_network_comes_through(caplog):
    with pytest.raises(RuntimeError, match="must have same reduction dim"):
        profile(nn.Linear(4, 4), (5,))
    with pytest.raises(RuntimeError, match="mat1 and mat2 shapes cannot be multiplied"):
        profile(nn.Linear(4, 4), torch.zeros(1, 5))
    assert not caplog.records  # torch logs the traceback of a failing shape; the error itself says enough


def test_a_network_that_computes_nothing_costs_nothing():
    bill = profile(nn.Sequential(nn.ReLU()), (4,))
    assert bill.to_dict() == {"macs": 0, "params": 0, "bitops": 0, "bytes": 0, "activation_bytes": 0, "layers": []}


def test_a_bill_is_json():
    bill = profile(nn.Conv2d(3, 8, 3), (3, 10, 10), bits=(4, 2))
    assert json.loads(json.dumps(bill.to_dict())) == {
        "macs": 64 * 216,
        "params": 224,
        "bitops": 64 * 216 * 64,
        "bytes": 216 + 32,
        "activation_bytes": 300 + 512,
        "layers": [
            {
                "name": "",
                "kind": "conv",
                "macs": 64 * 216,
                "params": 224,
                "w_bits": 8,
                "a_bits": 8,
                "bitops": 64 * 216 * 64,
                "bytes": 216 + 32,
                "input_bytes": 300,
                "activation_bytes": 512,
                "output_shape": [1, 8, 8, 8],
            }
        ],
    }
