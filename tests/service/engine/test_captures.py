"""What may be done on other threads while a GPU's graph is captured."""

import itertools
import threading
import time

import pytest

from service.engine.cuda import Captures


@pytest.mark.parametrize("kinds", [("others", "others"), ("loading", "others"), ("loading", "loading")])
def test_nothing_else_is_done_during_a_capture(kinds):
    captures, log = Captures(), []

    def work(kind: str) -> None:
        for _ in range(20):
            with getattr(captures, kind)(), captures.others():
                log.append((kind, "begin"))
                time.sleep(0.0005)
                log.append((kind, "end"))
            time.sleep(0.0005)

    threads = [threading.Thread(target=work, args=(kind,)) for kind in ("alone", *kinds, "alone")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
        assert not thread.is_alive()
    for (kind, what), following in itertools.pairwise(log):
        if (kind, what) == ("alone", "begin"):
            assert following == ("alone", "end")


def test_runs_do_not_wait_for_a_capture_that_waits_for_a_load():
    captures, captured = Captures(), threading.Event()

    def capture() -> None:
        with captures.alone():
            captured.set()

    with captures.loading():
        threading.Thread(target=capture).start()
        time.sleep(0.05)
        done = threading.Event()
        threading.Thread(target=lambda: captures.others().__enter__() or done.set()).start()
        assert done.wait(5)
        assert not captured.is_set()
