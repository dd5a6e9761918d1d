"""Windows to compare an exported network on: simulated where no data is given."""

import torch

from tenfold import build
from tenfold.cli.example_windows import example_windows, takes_windows


def test_without_data_simulated_video_is_shown(capsys):
    network = build("tsam_tiny").eval()
    frames = example_windows(network, {"frame_size": [32, 48]}, None, 16)
    assert "Compared on simulated video" in capsys.readouterr().err
    assert frames.shape == (16, 11, 32, 48)
    colours, known, copied, forward, _, invalid, _ = frames.split((3, 1, 1, 2, 2, 1, 1), 1)
    assert 0 < (known == 0).float().mean() < 1
    assert colours[(known == 0).expand_as(colours)].abs().max() == 0
    assert colours.std() > 0.05
    assert copied.max() == 0
    assert forward.abs().max() > 0.1
    assert (invalid[7] == 1).all()  # the last frame of a window trusts no flow to the next window
    assert (invalid[6] == 0).any()
    assert torch.equal(example_windows(network, {"frame_size": [32, 48]}, None, 16), frames)


def test_networks_of_windows_are_known_by_their_header():
    assert takes_windows({"architecture": build("tsam_tiny").architecture.to_dict()})
    assert not takes_windows({"architecture": {"name": "resnet18", "options": {}}})
    assert not takes_windows({"architecture": None})
