"""One run on a folder of results: lists the source, finds what is missing, has it scored, and keeps the manifest."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from importlib.metadata import version
from time import monotonic
from typing import NamedTuple

from scoring.local import score_here
from scoring.lock import locked
from scoring.manifest import Manifest, Run, open_manifest, write_manifest
from scoring.plan import FOLDER as PLANS
from scoring.plan import Plans
from scoring.progress import Show
from scoring.rows import count_rows
from scoring.source import absolute, column_of, images_of
from scoring.spec import Done, Part, Spec
from scoring.storage import Folder, StorageError, public_address

_COUNTING = 32  # threads that read how many rows a file has


class Cluster(NamedTuple):
    """A Ray cluster that is to do the work: its address, and what was asked of it; see `zooserve score --help`."""

    address: str
    workers: int | None
    gpus: int | None
    patience_s: float


def run(
    spec: Spec,
    source: str,
    column: str,
    part_size: int,
    cluster: Cluster | None,
    show: Show,
    *,
    retry_failed: bool = False,
) -> Manifest:
    """Score the images of a source that have no row yet.

    Args:
        spec: what is scored.
        source: see `images_of`.
        column: of a list.
        part_size: images in a file of results.
        cluster: that does the work; None: this process.
        show: is told the progress.
        retry_failed: score the parts again that have errors.

    Returns:
        The manifest, as it was written.

    Raises:
        StorageError: the source or the results cannot be read or written, or are of something else, or another process
            has taken the lock.
        ClusterError: the cluster cannot do it.
    """
    out = Folder(spec.out)
    with locked(out) as check_lock:
        manifest = open_manifest(out, absolute(source), column_of(source, column), spec)
        out.sweep(PLANS)
        if not manifest.runs:
            out.empty(PLANS)  # of a run that was killed before its manifest: it may have been of another source
        began, plans = monotonic(), Plans(out)
        plans.extend(images_of(source, column), part_size)
        if not plans.rows:
            raise StorageError(
                f"{public_address(source)}: no images there. The names of images end in .jpg, .png and so on."
            )
        counts = _count(out, spec, retry_failed=retry_failed)
        missing = [part for part in plans if part.name(spec.form) not in counts]
        now = Run(datetime.now(UTC).isoformat(timespec="seconds"), version("zooserve"))
        manifest.runs.append(now)
        manifest.planned = plans.rows
        manifest.images = sum(rows for rows, _ in counts.values())
        manifest.failed = sum(failed for _, failed in counts.values())
        manifest.state = "running"
        write_manifest(out, manifest)
        try:
            show(manifest.planned, manifest.images, manifest.failed)
            for done in _scored(spec, missing, cluster, now) if missing else ():
                check_lock()
                now.images += done.rows
                now.failed += done.failed
                manifest.images += done.rows
                manifest.failed += done.failed
                show(manifest.planned, manifest.images, manifest.failed)
            now.state = manifest.state = "complete"
        finally:
            if now.state != "complete":
                now.state = manifest.state = "incomplete"
            now.seconds = round(monotonic() - began, 3)
            write_manifest(out, manifest)
    return manifest


def _scored(spec: Spec, missing: Sequence[Part], cluster: Cluster | None, now: Run) -> Iterator[Done]:
    if cluster is None:
        return score_here(spec, missing)
    from scoring.cluster import connected, score_there  # noqa: PLC0415 - Ray is an extra

    def there() -> Iterator[Done]:
        with connected(cluster.address, cluster.workers, cluster.gpus) as pool:
            now.ray, now.workers, now.threads = pool.address, pool.workers, pool.threads
            yield from score_there(spec, missing, pool, cluster.patience_s)

    return there()


def _count(out: Folder, spec: Spec, *, retry_failed: bool) -> dict[str, tuple[int, int]]:
    """Return the rows and errors of each file that stays."""
    names = [name for name in out.names() if name.startswith("part-") and name.endswith(f".{spec.form}")]
    with ThreadPoolExecutor(_COUNTING, "count") as pool:
        counts = dict(zip(names, pool.map(lambda name: count_rows(out, name), names), strict=True))
    return {name: count for name, count in counts.items() if not (retry_failed and count[1])}
