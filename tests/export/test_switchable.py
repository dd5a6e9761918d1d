"""One file runs at every bit-width of a network, and gives what the network gives at each."""

import subprocess
import sys

import numpy as np
import onnx
import pytest
import torch
from PIL import Image
from torch import nn
from torch.nn import functional as F

from tenfold.errors import ArtifactError, ExportError, UsageError
from tenfold.export import evaluate, export_onnx, inspect_onnx, open_engine, predict
from tenfold.export.metadata import KEY, read_metadata
from tenfold.export.width_benchmark import bench_widths
from tenfold.export.width_choice import with_built_in
from tenfold.quant import LayerScheme, make_switchable, quantizable_layers, quantize, quantized_layers, set_bits

TASK = {"task": "classify", "labels": ["a", "b"], "preprocess": {"size": 12, "resize": 12, "pixels": True}}


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("TENFOLD_CACHE", str(tmp_path / "cache"))


class Mixed(nn.Module):
    """All that depends on a width: norms behind layers and on their own, grids with two sides, biases, sequences."""

    def __init__(self, width=32):
        super().__init__()
        self.stem, self.stem_norm = nn.Conv2d(3, width, 3, 2, 1, bias=False), nn.BatchNorm2d(width)
        self.deep, self.deep_norm = nn.Conv2d(width, width, 3, 1, 1, groups=width), nn.BatchNorm2d(width)
        self.flat, self.flat_norm = nn.Conv2d(width, width, 1, bias=False), nn.BatchNorm2d(width)
        self.lone_norm = nn.BatchNorm2d(width)
        self.full = nn.Conv2d(width, width, 3, 1, 1)
        self.up, self.down = nn.Linear(width, 2 * width), nn.Linear(2 * width, width, bias=False)
        self.head = nn.Linear(width, 10)

    def forward(self, x):
        x = F.relu(self.stem_norm(self.stem(x)))
        x = x + self.flat_norm(self.flat(self.deep_norm(self.deep(x))))
        x = self.full(F.relu(self.lone_norm(x))).flatten(2).transpose(1, 2)
        x = x + self.down(F.leaky_relu(self.up(x), 0.3))
        return self.head(x.mean(1))


class Small(nn.Module):
    """A convolution that may stay float, and one that is quantized."""

    def __init__(self):
        super().__init__()
        self.one, self.norm, self.two = nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Conv2d(8, 10, 3)

    def forward(self, x):
        return self.two(F.relu(self.norm(self.one(x)))).mean((2, 3))


def pixels(count=12):
    return torch.randint(0, 256, (count, 3, 12, 12), generator=torch.Generator().manual_seed(1)).float()


def switchable(network, choices, scheme="modified", float_layers=()):
    """A network with widths, whose norms and levels differ between them, as training leaves them."""
    torch.manual_seed(0)
    for module in network.modules():
        if hasattr(module, "reset_parameters"):
            module.reset_parameters()
    first, last = "stem", "head"
    names = [name for name in quantizable_layers(network) if name not in float_layers]
    schemes = {
        name: LayerScheme(
            w_bits=8,
            a_bits=8,
            scheme=scheme if name != first else "original",
            per_channel=name == "full",
            two_sided=name in ("flat", "up", "down", "head"),
            rescale="constant" if name in (last, "full") else "none",
            rescale_in_eval=name != last,
            pixels=name == first,
        )
        for name in names
    }
    network = quantize(network, schemes)
    pairs = [(bits, bits) if isinstance(bits, int) else bits for bits in choices]
    layers = {name: [(max(w, 8) if name in (first, last) else w, a) for w, a in pairs] for name in names}
    network = make_switchable(network, pairs, layers)
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = None
        norm.weight.data.uniform_(-1.5, 1.5)
        norm.bias.data.normal_(0, 0.3)
    quantizers = [layer.input_quantizer for _, layer in quantized_layers(network) if layer.input_quantizer is not None]
    hooks = [quantizer.register_forward_pre_hook(fit_level) for quantizer in quantizers]
    with torch.no_grad():
        for pair in pairs:
            set_bits(network, pair)
            network.train()(pixels())
        for hook in hooks:
            hook.remove()
        for norm in norms:
            norm.reset_running_stats()
        for pair in pairs:
            set_bits(network, pair)
            network(pixels())
    return network.eval()


def fit_level(quantizer, inputs):
    share = 3 + quantizer.policy.slot
    quantizer.alpha.data[quantizer.policy.slot] = share * float(inputs[0].abs().mean()) + 0.1


def run(network, bits):
    set_bits(network, bits)
    with torch.no_grad():
        return network(pixels()).numpy()


def deviation(found, wanted):
    return np.sqrt(np.square(found - wanted).mean()) / wanted.std()


@pytest.fixture(scope="module", params=[((8, 4, 2), "centered"), (((4, 8), 8, 6, 5), "modified")], ids=str)
def exported(request, tmp_path_factory):
    """A network, its switchable file, the report, and its widths."""
    choices, scheme = request.param
    network = switchable(Mixed(), choices, scheme)
    path = tmp_path_factory.mktemp("switchable") / "net.onnx"
    set_bits(network, choices[-1])  # where the switch stands makes no difference
    report = export_onnx(network, path, example=pixels(), profile="switchable", task=TASK)
    return network, path, report, choices


def test_every_width_equals_the_network(exported):
    network, path, report, choices = exported
    # A value on a tie may fall to the other side, here as in any two computations in float.
    assert [(width.w_bits, width.a_bits) for width in report.widths] == [
        (one, one) if isinstance(one, int) else one for one in choices
    ]
    assert all(width.exact_codes > 0.999 for width in report.widths)
    assert all(width.top1_agreement > 0.9 for width in report.widths)
    outputs = [run(network, bits) for bits in choices]
    for name in ("onnxruntime", "openvino"):
        any_width = open_engine(path, name, threads=1)
        for bits, wanted in zip(choices, outputs, strict=True):
            assert deviation(open_engine(path, name, threads=1, bits=bits).run(pixels().numpy()), wanted) < 0.02
            assert deviation(any_width.run(pixels().numpy(), bits=bits), wanted) < 0.02
    assert min(deviation(one, outputs[0]) for one in outputs[1:]) > 0.02  # else nothing would have been switched


def test_the_widest_is_the_default_and_calls_do_not_disturb_each_other(exported):
    network, path, _, choices = exported
    engine = open_engine(path, "onnxruntime", threads=1)
    widest = max((one, one) if isinstance(one, int) else one for one in choices)
    assert engine.widths[engine.widths.index(widest)] == widest
    before = engine.run(pixels().numpy())
    other = engine.run(pixels().numpy()[:3], bits=choices[-1])
    assert deviation(before, run(network, widest)) < 0.02
    assert np.array_equal(engine.run(pixels().numpy()), before)
    assert np.array_equal(engine.run(pixels().numpy()[:3], bits=choices[-1]), other)


def test_weights_are_stored_once(exported):
    network, path, report, choices = exported
    layers = [layer for _, layer in quantized_layers(network)]
    weights, channels = sum(layer.weight.numel() for layer in layers), sum(len(layer.weight) for layer in layers)
    stored = inspect_onnx(path).weights
    assert weights <= stored["UINT8"] + stored.get("INT8", 0) < weights + 100  # with tables of masks and highest codes
    assert stored["FLOAT"] < 2 * (channels + 32) * len(choices) + 100  # scales and biases; one norm stands alone
    assert report.file_bytes == path.stat().st_size < weights + 4 * stored["FLOAT"] + 1000 * len(layers)


def test_a_file_tells_what_it_is(exported):
    _, path, report, choices = exported
    noted = read_metadata(path)
    assert noted["profile"] == "switchable"
    assert [tuple(width) for width in noted["widths"]] == [(width.w_bits, width.a_bits) for width in report.widths]
    assert noted["predicted_bytes"] == report.predicted_bytes
    assert [one["top1_agreement"] for one in noted["fidelity"]] == [width.top1_agreement for width in report.widths]
    assert noted["refused_by"] == []
    model = onnx.load(path)
    onnx.checker.check_model(model, full_check=True)
    assert [value.name for value in model.graph.input] == ["input", "bits"]
    assert len(model.graph.input[1].type.tensor_type.shape.dim) == 0
    assert report.layers[0].w_bits == 8  # those of the widest, wherever the switch stands
    assert len(choices) == len(noted["fidelity"])


def test_widths_that_a_file_does_not_have_are_named(exported, tmp_path):
    _, path, _, choices = exported
    names = "8, 4, 2" if len(choices) == 3 else "4/8, 8, 6, 5"
    with pytest.raises(UsageError, match=f"has no width of 3 bits; it has {names}"):
        open_engine(path, "onnxruntime", bits=3)
    with pytest.raises(UsageError, match=f"has no width of 8/4 bits; it has {names}"):
        open_engine(path, "onnxruntime").run(pixels().numpy(), bits=(8, 4))
    model = onnx.load(path)
    entry = next(entry for entry in model.metadata_props if entry.key == KEY)
    text = entry.value
    entry.value = text.replace('"widths":[[', '"widths":["x",[')
    onnx.save(model, tmp_path / "damaged.onnx")
    with pytest.raises(ArtifactError, match="its list of bit-widths is no list of pairs"):
        open_engine(tmp_path / "damaged.onnx", "onnxruntime")


def test_files_that_another_program_has_rewritten_still_switch(exported, tmp_path):
    network, path, _, choices = exported
    model = onnx.load(path)
    model.graph.input[1].doc_string = "index of the width"
    onnx.save(model, tmp_path / "rewritten.onnx")
    assert with_built_in((tmp_path / "rewritten.onnx").read_bytes(), 0) is None
    engine = open_engine(tmp_path / "rewritten.onnx", "onnxruntime", bits=choices[1])
    assert deviation(engine.run(pixels().numpy()), run(network, choices[1])) < 0.02
    assert deviation(engine.run(pixels().numpy(), choices[0]), run(network, choices[0])) < 0.02


def test_answers_accuracy_and_timings_take_a_width(exported, tmp_path):
    network, path, _, choices = exported
    Image.fromarray(pixels()[0].permute(1, 2, 0).numpy().astype(np.uint8)).save(tmp_path / "a.png")
    for bits in choices:
        (found,) = predict(path, [tmp_path / "a.png"], bits=bits, engine="onnxruntime", top=1)
        wanted = torch.softmax(torch.from_numpy(run(network, bits)[0]), 0)
        assert found.answers[0][1] == pytest.approx(float(wanted.max()), rel=0.02)
        right = run(network, bits).argmax(1)
        assert evaluate(path, [(pixels().numpy(), right)], bits=bits, engine="onnxruntime").metrics["top1"] > 0.9
    rows = bench_widths([path], [(8, 8)], rounds=1, engine="onnxruntime", threads=1)
    assert [(row.bits, row.engine) for row in rows] == [((8, 8), "onnxruntime")]
    assert rows[0].to_dict()["bits"] == (8, 8)


def test_the_command_line_takes_a_width_without_torch(exported, tmp_path):
    _, path, _, choices = exported
    if len(choices) > 3:
        pytest.skip("one network is enough")
    for label in "ab":
        (tmp_path / "images" / label).mkdir(parents=True)
        for index in range(5):
            Image.new("RGB", (12, 12), (index, 9, 200)).save(tmp_path / "images" / label / f"{index}.png")
    file, image, data = str(path), str(tmp_path / "images" / "a" / "0.png"), str(tmp_path / "images")
    program = f"""
import sys
from tenfold.cli.main import run
engine = ["--engine", "onnxruntime"]
assert run(["predict", {file!r}, {image!r}, "--bits", "4", *engine]) == 0
assert run(["eval", {file!r}, "--data", {data!r}, "--bits", "2", *engine]) == 0
assert run(["bench", {file!r}, "--bits", "8,4", "--rounds", "1", *engine]) == 0
assert run(["predict", {file!r}, {image!r}, "--bits", "3", *engine]) == 2
assert "torch" not in sys.modules and "onnx" not in sys.modules
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "net.onnx at 8 bits" in done.stdout
    assert "net.onnx at 4 bits" in done.stdout


def test_an_artifact_takes_a_width_on_the_command_line(monkeypatch, tmp_path, capsys):
    from tenfold.cli import artifacts
    from tenfold.cli.main import run as tenfold

    network = switchable(Small(), (8, 3))
    monkeypatch.setattr(artifacts, "open_artifact", lambda _: (network, {"task": TASK}))
    Image.new("RGB", (12, 12)).save(tmp_path / "a.png")
    for bits in (3, 8):
        assert tenfold(["predict", "net.safetensors", str(tmp_path / "a.png"), "--bits", str(bits)]) == 0
        assert network.two.w_bits == bits
    assert tenfold(["predict", "net.safetensors", str(tmp_path / "a.png"), "--bits", "5"]) == 2
    assert "no width of 5 bits" in capsys.readouterr().err


def test_one_width_is_exported_by_its_bits(monkeypatch, tmp_path, capsys):
    from tenfold.cli import export
    from tenfold.cli.main import run as tenfold

    network = switchable(Small(), (8, 3, (4, 8)))
    monkeypatch.setattr(export, "open_artifact", lambda _: (network, {"task": TASK}))
    artifact, words = str(tmp_path / "a.safetensors"), ["--images", "4"]
    assert tenfold(["export", artifact, "--bits", "4/8", "--profile", "compact", *words]) == 0
    weights = inspect_onnx(tmp_path / "compact-4-8bit.onnx").weights
    assert weights["INT4"] == sum(layer.weight.numel() for _, layer in quantized_layers(network))
    assert read_metadata(tmp_path / "compact-4-8bit.onnx")["bits"] == {"4/8": 2}
    for bits, profile, message in (
        ("5", "compact", "no width of 5 bits; it was trained at 8, 3, 4/8"),
        ("8,3", "compact", "--bits '8,3' is not allowed"),
        ("3", "switchable", "chooses one bit-width, and a switchable file holds all"),
    ):
        capsys.readouterr()
        assert tenfold(["export", artifact, "--bits", bits, "--profile", profile, *words]) == 2
        assert message in " ".join(capsys.readouterr().err.replace("│", "").split())


def test_four_bit_weights_are_stored_packed(tmp_path):
    network = switchable(Small(), (4, 2), "centered", float_layers=("one",))
    report = export_onnx(network, tmp_path / "a.onnx", example=pixels(), profile="switchable")
    # The exporter folds the norm behind a float convolution into it, so this was captured anew at each width.
    assert inspect_onnx(tmp_path / "a.onnx").weights["UINT4"] == network.two.weight.numel()
    assert all(width.relative_error < 0.02 for width in report.widths)


@pytest.mark.parametrize("scheme", ["original", "symmetric"])
def test_codes_that_do_not_nest_are_refused(scheme, tmp_path):
    network = switchable(Small(), (8, 4), scheme)
    with pytest.raises(ExportError, match=rf'8, 4 bits .* "{scheme}" do not nest.*--profile compact --bits 4'):
        export_onnx(network, tmp_path / "a.onnx", example=pixels(), profile="switchable")
    assert not list(tmp_path.iterdir())


def test_networks_without_widths_and_widths_without_integers_are_refused(tmp_path):
    path, options = tmp_path / "a.onnx", {"example": pixels(), "profile": "switchable"}
    with pytest.raises(UsageError, match="holds several bit-widths, and this network has one only"):
        export_onnx(Small().eval(), path, **options)
    with pytest.raises(ExportError, match="the weights of one are to have 32 bits at one width and 4 at another"):
        export_onnx(switchable(Small(), (32, 4)), path, **options)
    value = onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [1])
    graph = onnx.helper.make_graph([onnx.helper.make_node("Identity", ["x"], ["y"])], "g", [value], [value])
    onnx.save(onnx.helper.make_model(graph), path)
    for engine in ("onnxruntime", "openvino"):
        with pytest.raises(UsageError, match="has one bit-width only, so 4 bits cannot be chosen"):
            open_engine(path, engine, bits=4)
    with pytest.raises(UsageError, match="none of these 1 files has several bit-widths"):
        bench_widths([path], [(4, 4)])


def test_a_wrong_table_is_found_at_its_width(tmp_path, monkeypatch):
    from tenfold.export import switchable as profile

    honest = profile._Tables.value

    def wrong(self, rows):
        rows = [np.asarray(row) for row in rows]
        return honest(self, [*rows[:-1], rows[-1] * 3] if rows[0].dtype == np.float32 and rows[0].ndim else rows)

    monkeypatch.setattr(profile._Tables, "value", wrong)
    with pytest.raises(ExportError, match=r"would be wrong at 3 bits, so it was not written: the .* has an error of"):
        export_onnx(switchable(Small(), (8, 3)), tmp_path / "a.onnx", example=pixels(), profile="switchable")
    assert not list(tmp_path.iterdir())
