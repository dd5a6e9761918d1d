"""`tenfold profile`."""

import pytest

from tenfold.cli.profile import bar, cost_table
from tenfold.cost import LayerCost, Profile
from tenfold.errors import UsageError


def test_json_has_the_totals_as_exact_integers(tenfold):
    done = tenfold("profile", "mobilenet_v2", "--input", "3x224x224", "--bits", "4/4", "--json")
    assert done.code == 0, done.err
    result = done.json
    # sat.md section 6.4: 300.774 M MACs; 5.3531 G BitOPs and 2.3793 MB at 4 bits.
    assert result["macs"] == 300_774_272
    assert f"{result['bitops'] / 1e9:.4f}" == "5.3531"
    assert f"{result['bytes'] / 1e6:.4f}" == "2.3793"
    assert all(type(result[key]) is int for key in ("macs", "params", "bytes", "bitops"))
    assert sum(layer["macs"] for layer in result["layers"]) == result["macs"]


def test_the_table_names_the_network_and_its_totals(tenfold):
    done = tenfold("profile", "resnet20_cifar", "--bits", "4")
    assert done.code == 0, done.err
    for words in ("resnet20_cifar", "3x32x32", "40.6 M", "4/4", "8/8", "classifier", "Total", "━"):
        assert words in done.out


@pytest.mark.parametrize(
    ("model", "shape", "needed"),
    [
        ("resnet18", "224", "channels, height and width, such as 3x224x224"),
        ("resnet18", "1x3x224x224", "channels, height and width"),
        ("compfeat_tiny", "4x64x64", "3 channels, height and width, such as 3x240x432"),
    ],
)
def test_an_input_that_the_network_does_not_take_is_refused(tenfold, model, shape, needed):
    done = tenfold("profile", model, "--input", shape)
    assert done.code == 2
    assert f"{model} takes {needed}" in done.words
    assert f"got {shape}" in done.words


def test_options_of_the_model_can_be_set(tenfold):
    wide = tenfold("profile", "mobilenet_v2_tiny", "--json").json
    narrow = tenfold("profile", "mobilenet_v2_tiny", "--set", "width=0.5", "--set", "num_classes=3", "--json").json
    assert narrow["macs"] < wide["macs"]
    assert narrow["layers"][-1]["output_shape"][-1] == 3


def test_another_number_of_channels_fits_the_network_to_it(tenfold):
    result = tenfold("profile", "resnet20_cifar", "--input", "1x28x28", "--json").json
    assert result["layers"][0]["macs"] == 16 * 9 * 28 * 28


def test_a_code_describes_a_multi_resolution_network(tenfold):
    code = "16_64-1_1_3_128-3_2_3_3_32_48-2_3_2_3_2_16_32_16-1_4_2_4_1_1_96_112_48_80-112"
    result = tenfold("profile", "multires", "--code", code, "--input", "3x128x128", "--json").json
    assert (result["macs"], result["params"]) == (2_008_094_176, 3_422_530)  # ncp.md section 3.1
    refused = tenfold("profile", "multires", "--code", "1 2 3")
    assert refused.code == 2
    assert "has 3 numbers; it takes 27" in refused.words
    assert "unknown option of model" in tenfold("profile", "resnet18", "--code", code).words


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--input", "3x224xx"], "is not a shape. Write CHANNELSxHEIGHTxWIDTH"),
        (["--bits", "9/4"], "is not allowed. Write WEIGHTS/ACTIVATIONS"),
        (["--bits", "4/4/4"], "is not allowed. Write WEIGHTS/ACTIVATIONS"),
        (["--set", "width"], "is not NAME=VALUE"),
        (["--set", "widht=1"], "unknown option of model"),
    ],
)
def test_wrong_values_say_how_to_write_them(tenfold, words, message):
    done = tenfold("profile", "mobilenet_v2_tiny", *words)
    assert done.code == 2
    assert message in done.words


def test_a_missing_file_is_told_from_an_unknown_model(tenfold):
    assert "there is no artifact at gone.safetensors" in tenfold("profile", "gone.safetensors").words
    assert tenfold("profile", "gone.safetensors").code == 1


def test_a_run_folder_is_profiled_by_its_name_alone(tenfold, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "adabits").mkdir()
    assert "unknown model 'adabits'" in tenfold("profile", "adabits").words
    (tmp_path / "adabits" / "artifact.safetensors").write_bytes(b"PK\x03\x04 no")
    assert "pickle" in tenfold("profile", "adabits").words


def test_a_pickle_is_refused(tenfold, tmp_path):
    (tmp_path / "net.safetensors").write_bytes(b"PK\x03\x04 no")
    done = tenfold("profile", tmp_path / "net.safetensors")
    assert done.code == 1
    assert "pickle" in done.words


def test_many_layers_are_shown_by_block_and_norms_go_with_the_layer_before():
    def row(name, macs):
        return LayerCost(
            name=name,
            kind="conv" if macs else "norm",
            macs=macs,
            params=10,
            w_bits=32,
            a_bits=32,
            bitops=macs * 1024,
            size_bytes=40,
            input_bytes=4,
            activation_bytes=4,
            output_shape=(1, 2, 3, 4),
        )

    rows = [row(f"stage.{i}.{part}", macs) for i in range(30) for part, macs in (("conv", 5), ("bn", 0), ("conv2", 6))]
    table = cost_table(Profile(tuple(rows)), title="net", image=(3, 8, 8))
    assert table.row_count == 30
    assert next(iter(table.columns[0].cells)) == "stage.0"
    assert next(iter(table.columns[1].cells)) == "2 conv"
    assert cost_table(Profile(tuple(rows)), title="net", image=(3, 8, 8), every_layer=True).row_count == 90


def test_a_narrow_screen_loses_columns_but_no_digits(capsys):
    from rich.console import Console

    rows = [
        LayerCost(
            name=f"stage{i}.0.conv1.conv",
            kind="conv",
            macs=118_013_952,
            params=2_359_296,
            w_bits=4,
            a_bits=4,
            bitops=1_888_223_232,
            size_bytes=1_179_648,
            input_bytes=4,
            activation_bytes=4,
            output_shape=(1, 512, 112, 112),
        )
        for i in range(4)
    ]
    Console(width=80).print(cost_table(Profile(tuple(rows)), title="net", image=(3, 8, 8), width=80))
    shown = capsys.readouterr().out
    assert "…" not in shown
    for words in ("118 M", "2.36 M", "1.18 MB", "1.89 G", "25.0%", "4/4"):
        assert shown.count(words) == 4
    assert "512x112x112" not in shown


def test_a_bar_is_full_for_the_largest_and_never_empty_for_something():
    assert bar(10, 10, cells=4) == "━━━━"
    assert bar(0, 10, cells=4) == "    "
    assert bar(1e-9, 10, cells=4).strip() == "╸"
    assert len(bar(3, 7, cells=9)) == 9


def test_set_does_not_go_with_an_artifact():
    from tenfold.cli.profile import profile

    with pytest.raises(UsageError, match="do not go with an artifact"):
        profile("x.safetensors", settings=("width=1",))
