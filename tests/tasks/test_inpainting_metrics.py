"""Metrics of inpainting: right by independent formulas, and the flawed ones equal to the authors' program."""

import json

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file
from scipy import linalg

from tenfold.errors import ShapeError
from tenfold.tasks.inpainting_batches import WindowTargets
from tenfold.tasks.inpainting_metrics import (
    FillingQuality,
    decibels,
    frechet_distance,
    released_psnr,
    released_ssim,
    warped,
)


@pytest.fixture(scope="module")
def released(shared):
    folder = shared / "reference" / "tsam"
    return json.loads((folder / "values.json").read_text())["metrics"], load_file(folder / "metrics.safetensors")


def test_the_released_evaluation_is_reproduced_with_its_flaws(released):
    values, tensors = released
    for number, expected in enumerate(values["frames"]):
        made, truth = tensors[f"result_{number}"], tensors["gt"]
        assert released_psnr(made, truth) == pytest.approx(expected["psnr_released_code"], abs=1e-9)
        assert released_ssim(made, truth) == pytest.approx(expected["ssim_released_code"], abs=1e-9)
        error = torch.tensor(((made / 255 - truth / 255) ** 2).mean())
        assert float(decibels(error)) == pytest.approx(expected["psnr_correct"], abs=1e-9)
        assert float(error) == pytest.approx(expected["mse"], rel=1e-9)
    assert released_psnr(tensors["gt"], tensors["gt"]) == 100


def test_our_metric_of_the_same_frames_is_the_correct_one(released):
    values, tensors = released
    for number, expected in enumerate(values["frames"]):
        made, truth = (
            torch.from_numpy(tensors[name]).permute(2, 0, 1).float()[None, None] / 255
            for name in (f"result_{number}", "gt")
        )
        found = quality(made, truth, torch.ones_like(truth[:, :, :1], dtype=torch.bool))
        assert found["psnr_frame"] == pytest.approx(expected["psnr_correct"], abs=1e-4)
        assert found["psnr_filled"] == pytest.approx(expected["psnr_correct"], abs=1e-4)


def quality(made, truth, rest, copied=None, given=None, flow=None, trusted=None):
    """Metrics of finished frames."""
    batch, frames, _, height, width = truth.shape
    nothing = torch.zeros_like(rest)
    flow = torch.zeros(batch, frames - 1, 2, height, width) if flow is None else flow
    trusted = nothing[:, 1:] if trusted is None else trusted
    metric = FillingQuality()
    given = truth if given is None else given
    copied = nothing if copied is None else copied
    zero = torch.zeros_like(truth)
    metric.update(made, WindowTargets(truth, given, zero, rest, copied, flow, trusted))
    return {name: float(value) for name, value in metric.compute().items()}


def test_fidelity_is_that_of_the_pixels_it_is_said_of():
    generator = torch.Generator().manual_seed(0)
    truth = (torch.rand(2, 3, 3, 24, 32, generator=generator) * 255).round() / 255
    made = (truth + 0.1 * torch.randn(truth.shape, generator=generator)).clamp(0, 1)
    rest = torch.zeros(2, 3, 1, 24, 32, dtype=torch.bool)
    rest[:, :, :, 4:12, 5:20] = True
    rest[1, 2] = False  # nothing to fill in this frame: it does not count
    copied = torch.zeros_like(rest)
    copied[:, :, :, 14:18, 3:9] = True
    given = torch.where(copied, (truth - 0.05).clamp(0, 1), truth)
    given = torch.where(rest, torch.full_like(truth, 0.5), given)
    found = quality(made, truth, rest, copied, given)

    def mean_psnr(frames, mask):
        values = []
        for b, t in np.ndindex(2, 3):
            if not rest[b, t].any():
                continue
            at = np.broadcast_to(mask[b, t].numpy(), (3, 24, 32))
            frame = np.rint(np.clip(frames[b, t].numpy(), 0, 1) * 255) / 255
            values.append(-10 * np.log10(((frame - truth[b, t].numpy())[at] ** 2).mean()))
        return np.mean(values)

    composed = torch.where(rest, made, given)
    everywhere = torch.ones_like(rest)
    assert found["psnr_filled"] == pytest.approx(mean_psnr(composed, rest), abs=1e-3)
    assert found["psnr_smooth"] == pytest.approx(mean_psnr(given, rest), abs=1e-3)
    assert found["psnr_hole"] == pytest.approx(mean_psnr(composed, rest | copied), abs=1e-3)
    assert found["psnr_frame"] == pytest.approx(mean_psnr(composed, everywhere), abs=1e-3)
    assert found["coverage"] == pytest.approx(float((rest | copied).float().mean()))
    assert found["never_visible"] == pytest.approx(float(rest.sum() / (rest | copied).sum()))
    assert 0 < found["ssim_filled"] < found["ssim_frame"] < 1
    perfect = quality(truth, truth, rest)
    assert perfect["psnr_filled"] == 100
    assert perfect["ssim_filled"] == pytest.approx(1)


def test_steadiness_follows_the_motion():
    truth = torch.rand(1, 1, 3, 20, 30)
    moving = torch.cat([truth, truth.roll(2, -1)], 1)
    flow = torch.zeros(1, 1, 2, 20, 30)
    flow[:, :, 0] = 2
    trusted = torch.ones(1, 1, 1, 20, 30, dtype=torch.bool)
    trusted[..., -2:] = False
    rest = torch.ones(1, 2, 1, 20, 30, dtype=torch.bool)
    assert quality(moving, moving, rest, flow=flow, trusted=trusted)["warp_error"] < 1e-2  # rounding to 8 bits
    still = quality(moving, moving, rest, flow=0 * flow, trusted=trusted)["warp_error"]
    assert still == pytest.approx(1000 / 6, rel=0.1)  # of independent uniform numbers
    assert torch.allclose(warped(moving[:, 1:], flow)[..., :-2], truth[..., :-2], atol=1e-5)


def test_frechet_distance_is_that_of_the_definition_and_of_the_released_code(released):
    values, tensors = released
    found = frechet_distance(tensors["act_real"], tensors["act_fake"])
    assert found == pytest.approx(values["frechet"], abs=1e-6)
    rng = np.random.default_rng(0)
    real, made = rng.normal(size=(60, 4)), rng.normal(0.3, 1.4, (50, 4))
    covariances = np.cov(real.T), np.cov(made.T)
    root = linalg.sqrtm(covariances[0] @ covariances[1]).real
    expected = ((real.mean(0) - made.mean(0)) ** 2).sum() + np.trace(covariances[0] + covariances[1] - 2 * root)
    assert frechet_distance(real, made) == pytest.approx(expected, rel=1e-9)


def test_frechet_distance_stands_fewer_samples_than_features():
    features = np.random.default_rng(0).normal(size=(8, 40))
    assert abs(frechet_distance(features, features[::-1])) < 1e-9
    assert frechet_distance(features, features + 1) == pytest.approx(40)
    with pytest.raises(ShapeError, match=r"features of shapes \(8, 40\) and \(1, 40\); needed are"):
        frechet_distance(features, features[:1])


def test_frames_of_other_kinds_are_refused():
    frame = np.zeros((4, 4, 3), np.uint8)
    for metric in (released_psnr, released_ssim):
        with pytest.raises(ShapeError, match="both must be uint8 of one shape"):
            metric(frame, frame.astype(float))
