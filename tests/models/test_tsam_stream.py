"""A clip that streams through TSAM: the answers are those for the whole clip, and memory does not grow."""

import pytest
import torch

from tenfold import build
from tenfold.errors import ShapeError, UsageError
from tenfold.layers.temporal_stream import ClipStream
from tenfold.models.tsam_stream import TsamStream

SMALL = {"planes": 4, "blocks": (1, 2, 1, 1), "decoder": (8, 8, 8), "stem": 8}


def _network(**options):
    torch.manual_seed(0)
    network = build("tsam_tiny", **SMALL, **options).eval()
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.bias, -0.3, 0.3)
    return network


def _clip(frames, size=(16, 24)):
    generator = torch.Generator().manual_seed(2)

    def uniform(count, channels):
        return torch.rand(1, count, channels, *size, generator=generator)

    known = (uniform(frames, 1) > 0.3).float()
    flows = [4 * uniform(frames - 1, 2) - 2 for _ in range(2)]
    invalid = [(uniform(frames - 1, 1) > 0.8).float() for _ in range(2)]
    return [uniform(frames, 3), known, known * (uniform(frames, 1) > 0.5), *flows, *invalid]


def _part(clip, start, stop):
    return [*(one[:, start:stop] for one in clip[:3]), *(one[:, max(start - 1, 0) : stop - 1] for one in clip[3:])]


@pytest.mark.parametrize("options", [{}, {"mode": "compat"}, {"edge": "self"}, {"shift": "plain"}])
@pytest.mark.parametrize("parts", [(1,) * 12, (5, 3, 4), (12,), (1, 11)])
def test_a_stream_gives_what_the_whole_clip_gives(options, parts):
    network, clip = _network(**options), _clip(sum(parts))
    stream, made, start = TsamStream(network), [], 0
    for number, count in enumerate(parts, start=1):
        made.append(stream.push(*_part(clip, start, start + count), ends=number == len(parts)))
        start += count
        if number < len(parts):
            assert sum(one.shape[1] for one in made) == max(start - stream.delay, 0)
    with torch.no_grad():
        torch.testing.assert_close(torch.cat(made, 1), network(*clip), atol=1e-5, rtol=0)


@pytest.mark.parametrize("frames", [1, 2])
def test_short_clips_stream_too(frames):
    network, clip = _network(), _clip(frames)
    with torch.no_grad():
        torch.testing.assert_close(TsamStream(network).push(*clip, ends=True), network(*clip), atol=1e-5, rtol=0)


def test_every_map_is_computed_once():
    network, clip = _network(), _clip(20)
    seen = {}

    def count(name):
        return lambda module, args, output: seen.__setitem__(name, seen.get(name, 0) + len(output))

    for name, module in network.named_modules():
        if isinstance(module, torch.nn.Conv2d):
            module.register_forward_hook(count(name))
    stream = TsamStream(network)
    for start in range(0, 20, 4):
        stream.push(*_part(clip, start, start + 4), ends=start == 16)
    assert set(seen.values()) == {20}


def test_memory_does_not_grow_with_the_clip():
    network, clip = _network(), _clip(40)
    stream, held = TsamStream(network), []
    for start in range(0, 40, 4):
        stream.push(*_part(clip, start, start + 4))
        clock = stream._clock
        kept = [memory.maps for memory in clock._memories.values()] + list(clock._flows)
        held.append(
            sum(one.numel() for one in kept) + sum(one.numel() for row in clock._waiting.values() for one in row)
        )
    assert len(set(held[4:])) == 1


def test_what_does_not_fit_is_refused():
    stream, clip = TsamStream(_network()), _clip(4)
    with pytest.raises(ShapeError, match=r"for 4 frames of a batch of 1, 3 flows; got a batch of 1 with 2, 3, 3, 3"):
        stream.push(*clip[:3], clip[3][:, :2], *clip[4:])
    stream.push(*clip)
    with pytest.raises(ShapeError, match=r"one size; got \(16, 16\) after \(16, 24\)"):
        stream.push(*(one[:, :1, :, :, :16] for one in clip))
    stream.push(*(one[:, :1] for one in clip), ends=True)
    with pytest.raises(UsageError, match="has ended; begin a new stream"):
        stream.push(*(one[:, :1] for one in clip))


def test_paths_of_different_delay_meet():
    stream, layer = ClipStream(), torch.nn.Identity()
    ahead, behind = torch.arange(5.0), torch.arange(3.0)
    assert [len(one) for one in stream.meet(layer, ahead, behind)] == [3, 3]
    first, second = stream.meet(layer, ahead[:0], 3 + behind)
    assert first.tolist() == second.tolist() == [3, 4]
