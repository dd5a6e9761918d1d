"""`tenfold analyze collapse`."""

import pytest

_SMALL = ("--set", "depth=3", "--set", "patch_size=8", "--images", "6", "--batch-size", "4")


def test_json_has_all_measures(tenfold):
    done = tenfold("analyze", "collapse", "deepvit_tiny", *_SMALL, "--set", "blocks=[2]", "--json")
    assert done.code == 0, done.err
    found = done.json
    assert found["images"] == 6
    assert found["tokens"] == 17
    assert found["reattention"] == [2]
    assert len(found["maps"]["softmax, centred"]["matrix"]) == 3
    assert len(found["maps"]["used"]["ratios"]["0.9"]) == 2
    assert "drawn at random" in done.words


def test_the_table_and_the_page_show_each_block(tenfold, tmp_path):
    page = tmp_path / "collapse.html"
    done = tenfold("analyze", "collapse", "timm:vit_tiny_patch16_224", "--images", "1", "--page", page)
    assert done.code == 0, done.err
    for words in ("timm:vit_tiny_patch16_224", "1 images, 197 tokens", "Similar blocks of 12", "Entropy"):
        assert words in done.out
    drawn = page.read_text()
    assert drawn.count("<svg") == 7
    assert "block 3 and 4:" in drawn
    assert "<script" not in drawn
    assert "default-src 'none'" in drawn.replace("&#x27;", "'")


def test_the_same_weights_give_the_same_measures(tenfold, tmp_path):
    import torch
    from safetensors.torch import save_file

    from tenfold.models import build

    torch.manual_seed(5)
    network = build("vit_tiny", depth=3, patch_size=8)
    save_file(network.state_dict(), tmp_path / "weights.safetensors")
    words = ("analyze", "collapse", "vit_tiny", *_SMALL, "--json")
    from_file = tenfold(*words, "--weights", tmp_path / "weights.safetensors").json
    drawn = tenfold(*words, "--seed", "5").json
    assert from_file["maps"] == drawn["maps"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["resnet20_cifar"], "ImageClassifier is not a vision transformer that is known here"),
        (["vit_tiny", "--images", "0"], "--images is 0; allowed is a whole number from 1"),
        (["vit_tiny", "--batch-size", "0"], "--batch-size is 0; allowed is a whole number from 1"),
        (["vit_tiny", "--share", "2"], "--share is 2.0; allowed is 0 to 1"),
        (["vit_tiny", "--page", "a.png"], "the drawings are an HTML page"),
        (["vit_tiny", "--set", "heads=3"], "3 heads do not divide a width of 64"),
        (["vit_tiny", "--image-size", "30"], "cannot be cut into patches of 4x4"),
        (["vit_tiny", "--threshold", "1.5"], "a cosine is never above 1.5"),
        (["gone.safetensors", "--set", "depth=3"], "do not go with an artifact"),
    ],
)
def test_bad_input_is_told(tenfold, words, message):
    done = tenfold("analyze", "collapse", *words)
    assert done.code == 2
    assert message in done.words
