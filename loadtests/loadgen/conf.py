"""LoadGen's configuration files: `user.conf`, and files with the keys of MLPerf's `mlperf.conf`.

LoadGen reads them itself; it ignores what it does not know, so their keys are checked here first. A line is
`model.scenario.key = value`, with `*` for any model or scenario.
"""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

SCENARIOS = ("SingleStream", "MultiStream", "Server", "Offline")
# Those that LoadGen 6 reads, and those that its mlperf.conf holds although nothing reads them any more.
KEYS = frozenset(
    (
        "accuracy_log_probability",
        "accuracy_log_rng_seed",
        "accuracy_log_sampling_target",
        "accuracy_sample_count_override",
        "coalesce_queries",
        "infer_token_latencies",
        "max_async_queries",
        "max_duration",
        "max_query_count",
        "min_duration",
        "min_query_count",
        "mode",
        "performance_issue_same",
        "performance_issue_same_index",
        "performance_issue_unique",
        "performance_sample_count_override",
        "print_timestamps",
        "qsl_rng_seed",
        "sample_concatenate_permutation",
        "sample_index_rng_seed",
        "samples_per_query",
        "schedule_rng_seed",
        "target_duration",
        "target_latency",
        "target_latency_percentile",
        "target_qps",
        "test05",
        "test05_qsl_rng_seed",
        "test05_sample_index_rng_seed",
        "test05_schedule_rng_seed",
        "token_latency_scaling_factor",
        "tpot_latency",
        "ttft_latency",
        "use_token_latencies",
    )
)
_LINE = re.compile(r"(?P<model>\S+)\.(?P<scenario>[^.\s]+)\.(?P<key>[^.\s]+)\s+=\s+(?P<value>\S+)")


class ConfError(ValueError):
    """A configuration file that LoadGen cannot read as it is meant, with its line."""


def check(path: Path) -> None:
    """Check that LoadGen reads every line of a file.

    Raises:
        ConfError: the file cannot be read, or a line is none that LoadGen knows.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfError(f"{path} cannot be read: {error}") from error
    for number, line in enumerate(lines, 1):
        text = line.strip()
        if not text or text.split()[0] == "#":
            continue
        found = _LINE.fullmatch(text)
        if found is None:
            raise ConfError(
                f"{path}, line {number}: `{text}`: "
                "expected `model.scenario.key = value` and no more; `# ` begins a comment"
            )
        if found["scenario"] not in ("*", *SCENARIOS):
            raise ConfError(f"{path}, line {number}: no scenario {found['scenario']}; there are {', '.join(SCENARIOS)}")
        if found["key"] not in KEYS:
            raise ConfError(f"{path}, line {number}: LoadGen knows no key {found['key']}")
        try:
            float(int(found["value"], 0)) if found["value"].startswith("0x") else float(found["value"])
        except ValueError:
            raise ConfError(f"{path}, line {number}: {found['key']} = {found['value']}: expected a number") from None


def apply(settings: Any, paths: Sequence[str], model: str, scenario: str) -> None:
    """Let LoadGen read files into its `TestSettings`, one after the other, for a model and a scenario.

    Raises:
        ConfError: it cannot.
    """
    for path in paths:
        if settings.FromConfig(path, model, scenario, 1):
            raise ConfError(f"LoadGen cannot read {path}")
