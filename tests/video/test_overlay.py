import numpy as np

from tenfold.video.overlay import drawn_over, object_colour
from tenfold.video.segment import Seen


def test_an_object_is_tinted_and_the_rest_stays():
    frame = np.full((60, 80, 3), 100, np.uint8)
    mask = np.zeros((60, 80), np.bool_)
    mask[30:50, 40:60] = True
    drawn = drawn_over(frame, {1: Seen(mask)}, {1: "object"})
    assert (frame == 100).all()
    assert (drawn[40, 50] != 100).any()
    assert tuple(drawn[40, 40]) == object_colour(1)
    assert (drawn[51:] == 100).all()
    assert (drawn[:, 61:] == 100).all()


def test_colours_of_the_first_objects_differ():
    colours = [np.array(object_colour(name), int) for name in range(1, 9)]
    assert min(np.abs(a - b).max() for at, a in enumerate(colours) for b in colours[:at]) > 40


def test_names_of_categories_are_drawn_where_there_are_several():
    frame = np.zeros((60, 80, 3), np.uint8)
    mask = np.zeros((60, 80), np.bool_)
    mask[30:50, 10:30] = True
    plain, named = (drawn_over(frame, {1: Seen(mask, 2)}, names) for names in ({2: "cat"}, {1: "dog", 2: "cat"}))
    assert (named > 0).any(2).sum() > (plain > 0).any(2).sum()


def test_labels_fit_into_frames_of_a_few_pixels():
    mask = np.ones((3, 2), np.bool_)
    assert drawn_over(np.zeros((3, 2, 3), np.uint8), {1: Seen(mask)}, {1: "object"}).shape == (3, 2, 3)
