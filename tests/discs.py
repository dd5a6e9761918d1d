"""A disc, or two, that cross a textured ground at rest: frames with their exact masks."""

import numpy as np

SIZE = (96, 128)


def crossing_discs(count=10, *, second=False, step=3, start=25):
    """Frames uint8 (H, W, 3), and for each the masks of its discs."""
    rng = np.random.default_rng(0)
    ground = np.repeat(np.repeat(rng.integers(40, 200, (24, 32, 3), np.uint8), 4, 0), 4, 1)
    paint = np.repeat(np.repeat(rng.integers(0, 60, (48, 64, 1), np.uint8), 2, 0), 2, 1)
    frames, masks = [], []
    rows, columns = np.ogrid[: SIZE[0], : SIZE[1]]
    for at in range(count):
        places = [(40, start + step * at)] + ([(70, 105 - 2 * at)] if second else [])
        frame, drawn = ground.copy(), []
        for (y, x), colour in zip(places, ([190, 20, 20], [20, 20, 190]), strict=False):
            mask = np.hypot(rows - y, columns - x) <= 13
            frame[mask] = (np.roll(paint, x, 1) + np.array(colour))[mask].astype(np.uint8)
            drawn.append(mask)
        frames.append(frame)
        masks.append(drawn)
    return frames, masks


def overlap(one, other):
    """Intersection over union."""
    return (one & other).sum() / max((one | other).sum(), 1)
