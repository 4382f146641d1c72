"""A server under test: found, asked once, its senders started. Called by `loadtests.loadgen`'s commands."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

from msgspec import Struct, structs

from loadtests import disturbance
from loadtests.client import Limits, closed_loop, run
from loadtests.disturbance import Watcher
from loadtests.loadgen.library import loadgen
from loadtests.loadgen.reasons import reasons
from loadtests.loadgen.spec import Spec
from loadtests.loadgen.sut import SystemUnderTest
from loadtests.loadgen.trial import Trial, conduct
from loadtests.loadgen.wire import Image, Plan, requests_of
from loadtests.served import answering, served, unreachable
from loadtests.stats import summarise
from loadtests.target import Target, TargetError
from zoo.extras import require

# With these `zooserve eval` asks; a log of other options is judged by what was asked.
DEFAULTS: Mapping[str, Mapping[str, str]] = {
    "classify": {"top_k": "5"},
    "detect": {"score_threshold": "0.001", "iou_threshold": "0.65", "max_detections": "100"},
    "segment": {"mask": "rle"},
}
_PATIENCE = 60.0  # seconds that the senders get to be ready, beside what the server takes for each image
_PROBES, _PROBE = 3, 1.0  # seconds each
_TOLD_EVERY = 10.0  # seconds


class Setup(Struct, frozen=True):
    """How a server is asked.

    Attributes:
        images: that are sent.
        options: of every request, such as `top_k`.
        connections: the most that are open at a time, over all senders.
        senders: processes that send.
        timeout: seconds after which an answer is no longer waited for.
        logs: a folder that keeps what LoadGen writes, by test; None keeps nothing.
        quiet: seconds that a test may wait for a quiet machine.
        limits: of what counts as quiet.
    """

    images: Sequence[Image]
    options: Mapping[str, str] = {}
    connections: int = 256
    senders: int = 1
    timeout: float = 10.0
    logs: Path | None = None
    quiet: float = 0.0
    limits: disturbance.Limits = disturbance.Limits()


class Bench:
    """Tests of one server. Made by `bench`.

    Attributes:
        target: with the task and the model that are asked.
        tested: the same, with the version of the model that answered.
    """

    def __init__(
        self, target: Target, setup: Setup, say: Callable[[str], None], logs: Path, answers: Path | None
    ) -> None:
        self.target = served(target, setup.timeout).choose(target)
        self._answers = str(answers or "")
        if answers is not None:
            setup = structs.replace(setup, options={**DEFAULTS.get(self.target.task, {}), **setup.options})
        self.setup = setup
        self.logs = logs
        self._say = say
        self._requests = requests_of(self.target, setup.options, setup.images)
        self.tested = answering(self.target, self._requests[:1], setup.timeout)
        self._tests = 0
        self._watcher = Watcher(self.target, setup.limits)
        self.sut = SystemUnderTest(self._plan(max(1, setup.connections // setup.senders)), setup.senders)

    def probe(self, clients: int) -> float:
        """Return the rate that so many clients reach, each after its answer: the median of three short loads.

        Raises:
            TargetError: they reach nothing.
        """
        limits = Limits(_PROBE, timeout=self.setup.timeout)
        try:
            rates = [
                summarise(run(closed_loop(self.target, self._requests, concurrency=clients, limits=limits))).rate
                for _ in range(_PROBES)
            ]
        except OSError as error:
            raise TargetError(unreachable(self.target, error)) from error
        self._say(f"probe, {clients} clients: {', '.join(f'{rate:.1f}' for rate in rates)} per second")
        if not median(rates):
            raise TargetError(f"{self.target.url}: no image was answered with 200 in {_PROBE:g} s")
        return median(rates)

    def conduct(self, spec: Spec) -> Trial:
        """Run one test and say how it goes.

        Raises:
            TrialError: a sender ended, or the test did not end.
        """
        self._tests += 1
        told = 0.0

        def on_second(passed: float, answered: int) -> None:
            nonlocal told
            if passed - told >= _TOLD_EVERY:
                told = passed
                self._say(f"  {passed:.0f} s, {answered} answers")

        if self.setup.quiet and not self._watcher.wait_for_quiet(self.setup.quiet):
            self._say(f"  the machine was not quiet within {self.setup.quiet:g} s")
        self._say(f"test {self._tests}: {spec.scenario} at {spec.target_qps:.1f} per second")
        logs = self.logs / f"{self._tests:02}-{spec.scenario}-{spec.target_qps:.1f}"
        trial = conduct(spec, self.sut, len(self.setup.images), logs, on_second, self._watcher)
        self._say(f"  {trial.summary.rate:.1f} per second, p99 {trial.summary.p99:.1f} ms; {trial.disturbance}")
        for words in [*map(str, reasons(trial)), *trial.disturbed(self.setup.limits)]:
            self._say(f"  {words}")
        return trial

    def _plan(self, connections: int) -> Plan:
        setup = self.setup
        return Plan(self.target, dict(setup.options), list(setup.images), connections, setup.timeout, self._answers)


@contextmanager
def bench(target: Target, setup: Setup, say: Callable[[str], None], answers: Path | None = None) -> Iterator[Bench]:
    """Find the server and start the senders. What else is needed is looked for first.

    Args:
        target: the server; its task and model are chosen where they are not named.
        setup: how it is asked.
        say: told how it goes.
        answers: a file for all answers, see `wire.Plan`; then the task's `DEFAULTS` are asked for.

    Raises:
        MissingError: LoadGen, or gRPC where the target is asked over it, is not installed.
        TargetError: the server cannot be reached or does not have what was named, or does not answer an image with 200.
        SenderError: a sender could not start.
    """
    loadgen()
    if target.grpc:
        require("grpc")
    with ExitStack() as stack:
        logs = setup.logs or Path(stack.enter_context(TemporaryDirectory(prefix="loadgen-")))
        found = Bench(target, setup, say, logs, answers)
        stack.enter_context(found.sut)
        found.sut.wait(_PATIENCE + len(setup.images) * setup.timeout)
        yield found
