"""`zooserve score --ray` on a real cluster of two nodes: the rows of a local run, whatever dies meanwhile."""

import pytest

from loadtests.scoring.score import each_once, make_copies, make_images, rows_of, score
from loadtests.scoring.trial import Killer
from scoring.spec import threads_each

IMAGES = 240


def test_rows_are_those_of_a_local_run(nodes, tmp_path):
    make_images(tmp_path / "images", 40, broken_every=10)
    arguments = ["yolov4_tiny", str(tmp_path / "images"), "--part-size", "4"]
    ends = [
        score([*arguments, "--out", str(tmp_path / out), *more], nodes.environment, tmp_path / "log")
        for out, more in (("here", []), ("there", ["--ray", nodes.address, "--workers", "2"]))
    ]
    assert [end.code for end in ends] == [0, 0], (tmp_path / "log").read_text()
    here, there = (sorted(rows_of(tmp_path / out), key=lambda row: row["address"]) for out in ("here", "there"))
    assert len(here) == 40
    assert here == there
    (run,) = ends[1].manifest["runs"]
    assert (run["ray"], run["workers"], run["threads"], run["failed"]) == (nodes.address, 2, 1, 4)


@pytest.mark.parametrize(
    ("nodes", "actors", "threads"),
    [
        ([(2, 9), (2, 9)], 2, 2),
        ([(2, 9), (16, 9)], 2, 8),  # both on the large one
        ([(3, 9), (16, 9)], 5, 3),
        ([(1, 9), (1, 9)], 3, 0),
        ([(16, 4), (16, 4)], 8, 4),  # a GPU each
        ([(2, 1), (32, 1)], 2, 2),
        ([(0, 1)], 1, 0),
    ],
)
def test_actors_get_as_many_cpus_as_the_nodes_have(nodes, actors, threads):
    assert threads_each(nodes, actors) == threads


@pytest.mark.parametrize("what", ["actor", "node", "driver"])
def test_a_kill_loses_nothing_and_repeats_nothing(nodes, tmp_path, what):
    make_copies(tmp_path / "images", IMAGES)
    out, log = tmp_path / "out", tmp_path / "log"
    arguments = ["mobilenet_v2", str(tmp_path / "images"), "--out", str(out), "--part-size", "8"]
    arguments += ["--ray", nodes.address, "--patience", "120"]
    killer = Killer(nodes, what, IMAGES // 4)
    ended = score(arguments, nodes.environment, log, killer)
    assert killer.done
    if what == "driver":
        assert ended.code < 0
        assert not each_once(out, IMAGES)
        ended = score(arguments, nodes.environment, log)
    assert ended.code == 0, log.read_text()
    assert each_once(out, IMAGES)
    assert ended.manifest["images"] == IMAGES


def test_what_the_cluster_does_not_have_or_cannot_write_is_said(nodes, tmp_path):
    make_copies(tmp_path / "images", 1)
    part = tmp_path / "out" / "part-0001-0000000.parquet"
    given = ["lenet5", str(tmp_path / "images"), "--out", str(tmp_path / "out"), "--ray", nodes.address]
    for arguments, settings, complaint in (
        (["--workers", "3"], {}, "ClusterError: --workers 3: the cluster has 2 CPUs"),
        (["--gpus", "1"], {}, "no node has a GPU"),
        ([], {"ZOOSERVE_DEVICE": "cuda"}, "ClusterError: click.exceptions.ClickException: ZOOSERVE_DEVICE=cuda"),
    ):
        assert score([*given, *arguments], nodes.environment | settings, tmp_path / "log").code == 1
        assert complaint in (tmp_path / "log").read_text()
    part.mkdir()  # in the place of the file
    assert score(given, nodes.environment, tmp_path / "log").code == 1
    assert f"StorageError: {part} cannot be written: Is a directory. When" in (tmp_path / "log").read_text()
