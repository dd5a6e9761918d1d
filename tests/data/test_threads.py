"""Threads work ahead without changing order, results or errors."""

import threading
import time

import pytest

from tenfold.data import prefetch


@pytest.mark.parametrize("workers", [0, 1, 2, 5])
def test_results_come_in_order(workers):
    def make(item):
        time.sleep(0.002 * (item % 3))
        return item * item

    assert list(prefetch(make, range(20), workers)) == [item * item for item in range(20)]


def test_an_error_comes_at_the_place_of_its_item():
    def make(item):
        if item == 3:
            raise ValueError("the third")
        return item

    results = prefetch(make, range(10), 2)
    assert [next(results) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(ValueError, match="the third"):
        next(results)


def test_no_more_than_two_results_a_worker_are_held():
    made = []
    results = prefetch(lambda item: made.append(item), range(100), 2)
    next(results)
    time.sleep(0.05)
    assert len(made) <= 6


def test_stopping_early_ends_the_threads():
    results = prefetch(lambda item: item, range(100), 3)
    next(results)
    results.close()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("tenfold-data")]
