"""Augmentation of the static models' faces and audio."""

import pytest
import torch

from ava_asd.augmentation import GAIN, augment_audio, augment_faces
from core.inputs.transforms import Draws


def draws(items: int, seed: int = 0) -> Draws:
    return Draws(torch.Generator().manual_seed(seed), items)


def test_faces_change_alike_in_all_frames_and_stay_in_range():
    frame = torch.rand(6, 1, 1, 20, 16, generator=torch.Generator().manual_seed(1))
    video = frame.expand(6, 1, 5, 20, 16).contiguous()
    changed = augment_faces(video, draws(6))
    assert changed.shape == video.shape
    assert 0 <= changed.min() <= changed.max() <= 1
    assert torch.allclose(changed, changed[:, :, :1].expand_as(changed))
    assert all((changed[number] - video[number]).abs().max() > 0.05 for number in range(6))
    assert torch.equal(augment_faces(video, draws(6)), changed)
    assert not torch.equal(augment_faces(video, draws(6, seed=1)), changed)


def test_about_half_of_the_faces_are_mirrored():
    dark_left = torch.linspace(0.2, 0.8, 16).expand(200, 1, 2, 8, 16).contiguous()
    changed = augment_faces(dark_left, draws(200))
    mirrored = changed[:, 0, 0, 4, 0] > changed[:, 0, 0, 4, -1]
    assert 80 < mirrored.sum() < 120


def test_gain_shifts_the_first_coefficient_and_noise_all():
    silence = torch.zeros(400, 1, 13, 20)
    changed = augment_audio(silence, draws(400))
    deviations = changed[:, 0, 1:].flatten(1).std(dim=1)
    assert 0.18 < deviations.max() < 0.23
    assert deviations.min() < 0.01
    assert deviations.mean() == pytest.approx(0.1, abs=0.01)
    shifts = changed[:, 0, 0].mean(dim=1)
    assert 0.9 * GAIN < shifts.abs().max() < 1.3 * GAIN
    assert changed[:, 0, 1:].mean(dim=(1, 2)).abs().max() < 0.1
