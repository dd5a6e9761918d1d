"""Jobs in processes: the lost are tried again, the others go on, and none outlives the one that asked."""

import multiprocessing
import os
import signal
import sys
import threading
import time
from types import SimpleNamespace

import pytest

import dying_worker
from tenfold.errors import MissingExtraError, TenfoldError, UsageError
from tenfold.jobs import Processes, RayCluster, run_jobs


def test_a_job_whose_worker_is_lost_is_tried_again_and_no_other_suffers(tmp_path):
    deaths = {"a": 0, "killed": 1, "asked to end": 1, "hopeless": 9}
    kinds = {"asked to end": (signal.SIGTERM,)}
    orders = {name: (name, times, str(tmp_path), *kinds.get(name, ())) for name, times in deaths.items()}
    results = dict(run_jobs(dying_worker.work, orders, Processes(2)))
    assert results == {"a": 0, "killed": 1, "asked to end": 1, "hopeless": None}
    assert (tmp_path / "hopeless").read_text() == "xxx"
    assert not multiprocessing.active_children()


def test_whoever_stops_listening_ends_what_runs(tmp_path):
    def interrupt():
        while not ((tmp_path / "pid").exists() and (tmp_path / "pid").read_text()):
            time.sleep(0.02)
        signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)

    handler = signal.signal(signal.SIGINT, signal.default_int_handler)  # shells let what is in the background ignore it
    threading.Thread(target=interrupt).start()
    try:
        with pytest.raises(KeyboardInterrupt):
            list(run_jobs(dying_worker.wait_for_ever, {0: (str(tmp_path),)}, Processes()))
    finally:
        signal.signal(signal.SIGINT, handler)
    assert (tmp_path / "ended").exists()  # it had time to tidy up
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)


def test_what_the_work_raises_is_raised():
    with pytest.raises(ValueError, match="no such thing"):
        list(run_jobs(dying_worker.fail, {0: ("no such thing",)}, Processes()))
    with pytest.raises(UsageError, match="jobs is 0; allowed are whole numbers from 1"):
        Processes(0)
    assert list(run_jobs(dying_worker.fail, {}, Processes(4))) == []


def test_without_ray_it_says_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'tenfold\[ray\]'"):
        list(run_jobs(dying_worker.work, {0: ()}, RayCluster()))


@pytest.mark.slow  # starts a cluster
@pytest.mark.filterwarnings("ignore")  # of Ray's own
def test_a_job_whose_worker_is_lost_is_tried_again_on_ray(tmp_path, monkeypatch):
    ray = pytest.importorskip("ray", reason="needs the extra ray")
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(sys.path))  # for the workers
    orders = {name: (name, times, str(tmp_path)) for name, times in {"a": 0, "killed": 1, "hopeless": 9}.items()}
    try:
        assert dict(run_jobs(dying_worker.work, orders, RayCluster())) == {"a": 0, "killed": 1, "hopeless": None}
    finally:
        ray.shutdown()


def test_a_cluster_that_is_lost_is_told_and_not_replaced(monkeypatch):
    """As Ray's client does it when the other side is gone: each call raises, and another would start a new cluster."""

    class Ray:
        exceptions = SimpleNamespace(
            WorkerCrashedError=KeyError, NodeDiedError=KeyError, OutOfMemoryError=KeyError, RayTaskError=KeyError
        )
        asked = 0

        def is_initialized(self):
            return True

        def remote(self, **options):
            return lambda work: SimpleNamespace(remote=lambda *order: order)

        def wait(self, running, num_returns):
            self.asked += 1
            raise ConnectionError("gone")

        cancel = None  # must not be called

    ray = Ray()
    monkeypatch.setitem(sys.modules, "ray", ray)
    with pytest.raises(TenfoldError, match=r"was lost \(ConnectionError\); jobs waiting or at work: 2"):
        list(run_jobs(dying_worker.work, {0: (1,), 1: (2,)}, RayCluster()))
    assert ray.asked == 1
