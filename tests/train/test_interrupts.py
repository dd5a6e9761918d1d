import signal
import threading

import pytest

from tenfold.train.interrupts import stop_requests


@pytest.fixture
def interruptible():
    """What Ctrl-C does in a terminal; a shell lets programs in its background ignore it."""
    inherited = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, inherited)


@pytest.mark.usefixtures("interruptible")
def test_the_first_signal_is_a_request_and_the_second_acts_as_before():
    before = signal.getsignal(signal.SIGINT)
    with stop_requests() as stop:
        assert not stop
        signal.raise_signal(signal.SIGINT)
        assert stop
        assert stop.signal_name == "SIGINT"
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is before


def test_under_a_launcher_a_repeated_signal_means_nothing():
    with stop_requests(launched=True) as stop:
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGTERM)
        assert stop.signal_name == "SIGTERM"


def test_other_threads_train_without_handlers():
    seen = []

    def work():
        with stop_requests() as stop:
            seen.append(bool(stop))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [False]
