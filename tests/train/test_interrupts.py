import signal
import subprocess
import sys
import threading

import pytest

from tenfold.train.interrupts import stop_requests
from train.toy_training import call_handler


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
        call_handler(signal.SIGINT)
        assert stop
        assert stop.signal_name == "SIGINT"
        with pytest.raises(KeyboardInterrupt):
            call_handler(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is before


def test_under_a_launcher_a_repeated_signal_means_nothing():
    with stop_requests(launched=True) as stop:
        call_handler(signal.SIGTERM)
        call_handler(signal.SIGTERM)
        assert stop.signal_name == "SIGTERM"


_WAITING = """
import signal, time
from tenfold.train.interrupts import stop_requests
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell lets programs in its background ignore it
with stop_requests() as stop:
    print("ready", flush=True)
    while not stop:
        time.sleep(0.01)
print(stop.signal_name, flush=True)
time.sleep(60)
"""


@pytest.mark.slow  # starts a process that imports torch
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_that_was_sent_arrives_and_later_ones_end_the_process(number):
    with subprocess.Popen(
        [sys.executable, "-c", _WAITING], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as process:
        assert process.stdout.readline() == b"ready\n"
        process.send_signal(number)
        assert process.stdout.readline() == f"{number.name}\n".encode()
        process.send_signal(number)
        assert process.wait(30) == -number


def test_other_threads_train_without_handlers():
    seen = []

    def work():
        with stop_requests() as stop:
            seen.append(bool(stop))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [False]
