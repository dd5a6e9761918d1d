"""The weights that come with Tenfold: small, described, and what their networks take."""

from pathlib import Path

import pytest
import torch

from tenfold import build, load
from tenfold.errors import MissingDataError, UsageError
from tenfold.models import facts, list_packaged, packaged_weights
from tenfold.models.packaged import load_packaged

CARDS = Path(__file__).parents[2] / "docs" / "models"


def test_weights_of_a_network_for_video_come_with_the_package():
    assert "tsam_tiny" in list_packaged()
    assert packaged_weights("tsam") is None


@pytest.mark.parametrize("name", list_packaged())
def test_packaged_weights_are_small_rebuild_their_network_and_have_a_card(name):
    path = packaged_weights(name)
    assert path.stat().st_size <= 10e6
    network = load(path)
    assert network.architecture.name == name
    assert all(bool(value.isfinite().all()) for value in network.state_dict().values() if value.is_floating_point())
    card = (CARDS / f"{path.name.removesuffix('.safetensors').replace('.', '_')}.md").read_text(encoding="utf-8")
    for part in ("Data", "Licence", "Seed", "Time", "Limits"):
        assert f"| {part}" in card


def test_a_network_is_built_with_them_and_its_answer_is_not_nothing():
    network = build("tsam_tiny", corrects=True, pretrained=True).eval()
    assert network.architecture.to_dict()["options"]["corrects"] is True
    inputs = network.example_inputs((3, 32, 40), 3)
    known = torch.ones_like(inputs.known)
    known[..., 10:20, 10:30] = 0
    with torch.no_grad():
        answer = network(*inputs._replace(frames=torch.rand(inputs.frames.shape), known=known))
    assert 1e-3 < answer.abs().mean() < 0.5
    assert facts("tsam_tiny").params == sum(p.numel() for p in build("tsam_tiny").parameters())


def test_weights_that_are_not_there_or_do_not_fit_are_refused():
    with pytest.raises(
        MissingDataError, match=r"no weights come with Tenfold for 'tsam_small'; there are some for .*tsam"
    ):
        load_packaged(build("tsam_small"), "tsam_small")
    with pytest.raises(UsageError, match=r"weights that come for 'tsam_tiny' are of the network with .*corrects=True"):
        build("tsam_tiny", pretrained=True)
