"""Similarity of maps and features: the reference values, and what must hold for any maps."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file

from tenfold.analysis.similarity import FeatureSimilarity, MapEntropy, MapSimilarity
from tenfold.errors import ShapeError, UnknownNameError, UsageError

RATIOS = (0.5, 0.8, 0.9, 0.95)


def _close(got, expected, tolerance=1e-6):
    torch.testing.assert_close(torch.as_tensor(got).double(), expected.double(), atol=tolerance, rtol=0)


@pytest.mark.parametrize("case", ["s0", "s1"])
@pytest.mark.parametrize("axis", ["key", "query"])
def test_measures_equal_the_reference(shared, case, axis):
    tensors = load_file(shared / "reference" / "deepvit" / "similarity.safetensors")
    found = MapSimilarity(axis=axis)
    for image in range(tensors[f"{case}.maps"].shape[1]):  # as a stream
        found.add(list(tensors[f"{case}.maps"][:, image : image + 1]))
    _close(found.matrix(), tensors[f"{case}.{axis}.matrix"])
    _close(found.heads(), tensors[f"{case}.{axis}.heads"])
    for ratio in RATIOS:
        _close(found.ratio(ratio), tensors[f"{case}.{axis}.ratio_{ratio}"])
    features = FeatureSimilarity()
    features.add(list(tensors[f"{case}.feats"]))
    _close(features.to_last(), tensors[f"{case}.feat_last"])


def _softmax_maps(seed, depth=3, tokens=5):
    generator = torch.Generator().manual_seed(seed)
    return list(torch.randn(depth, 2, 2, tokens, tokens, generator=generator).double().mul(2).softmax(-1))


def _measured(maps, **options):
    found = MapSimilarity(**options)
    found.add(maps)
    return found


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 99), axis=st.sampled_from(["key", "query"]), centred=st.booleans())
def test_what_holds_for_all_maps(seed, axis, centred):
    maps = _softmax_maps(seed)
    matrix = torch.tensor(_measured(maps, axis=axis, centred=centred).matrix())
    _close(matrix.diagonal(), torch.ones(3))
    _close(matrix, matrix.T)
    assert matrix.abs().max() <= 1 + 1e-9
    if not centred:
        assert matrix.min() >= 0
    scaled = [maps[0] * 3, maps[1], maps[2] * 0.1]
    _close(_measured(scaled, axis=axis, centred=centred).matrix(), matrix)
    order = torch.randperm(5, generator=torch.Generator().manual_seed(seed))
    permuted = [one[:, :, order][:, :, :, order] for one in maps]
    _close(_measured(permuted, axis=axis, centred=centred).matrix(), matrix)


def test_columns_and_rows_agree_on_symmetric_maps():
    maps = [one + one.transpose(2, 3) for one in _softmax_maps(3)]
    _close(_measured(maps, axis="key").matrix(), torch.tensor(_measured(maps, axis="query").matrix()))


def test_uniform_maps_are_alike_and_only_the_entropy_and_the_centre_tell_why():
    generator = torch.Generator().manual_seed(0)
    nearly = list((0.05 * torch.randn(3, 2, 2, 20, 20, generator=generator).double()).softmax(-1))
    raw, centred = _measured(nearly), _measured(nearly, centred=True)
    assert min(map(min, raw.matrix())) > 0.99
    assert centred.matrix()[0][1] < 0.2
    entropy = MapEntropy()
    entropy.add(nearly)
    assert min(entropy.mean()) > 0.999
    sharp = MapEntropy()
    sharp.add([torch.eye(4).expand(1, 1, 4, 4)] * 2)
    assert sharp.mean() == [0, 0]


def test_a_repeated_map_is_similar_to_itself():
    maps = _softmax_maps(5)
    found = _measured([maps[0], maps[0], maps[1]])
    assert found.ratio(0.9)[0] == 1
    assert found.similar_blocks(0.9, 0.5) >= 1
    assert found.similar_blocks(0.9, 1.0) == 0


def test_heads_are_compared_pair_by_pair():
    maps = _softmax_maps(6)
    first, second = (maps[0][:, head] for head in (0, 1))
    expected = torch.cosine_similarity(first, second, dim=1).mean()
    assert _measured(maps).heads()[0] == pytest.approx(float(expected))
    assert math.isnan(_measured([one[:, :1] for one in maps]).heads()[0])


def test_features_ignore_their_scale_and_count_pairs_of_tokens():
    features = list(torch.randn(3, 2, 4, 6).double())
    found, scaled = FeatureSimilarity(), FeatureSimilarity()
    found.add(features)
    scaled.add([features[0] * 5, features[1], features[2] * 0.2])
    _close(found.to_last(), torch.tensor(scaled.to_last()))
    assert found.to_last()[-1] == pytest.approx(1)
    assert found.to_next()[-1] == pytest.approx(found.to_last()[1])
    unit = features[0] / features[0].norm(dim=2, keepdim=True)
    cosines = unit @ unit.transpose(1, 2)
    expected = (cosines.sum((1, 2)) - 4).mean() / 12
    assert found.between_tokens()[0] == pytest.approx(float(expected))


def test_bad_input_is_told():
    with pytest.raises(UnknownNameError, match="unknown axis 'row'"):
        MapSimilarity(axis="row")
    with pytest.raises(UsageError, match=r"a cosine is never above 1.5; allowed thresholds are -1 to 1"):
        MapSimilarity(thresholds=[1.5])
    with pytest.raises(UsageError, match="no similarity of no images"):
        MapSimilarity().matrix()
    with pytest.raises(ShapeError, match="maps of 1 blocks"):
        MapSimilarity().add(_softmax_maps(0)[:1])
    with pytest.raises(ShapeError, match="the same tokens and heads"):
        MapSimilarity().add([torch.ones(1, 1, 2, 2), torch.ones(1, 1, 3, 3)])
