"""Plans: each address in one part, also when the source grows, and in little memory."""

import subprocess
import sys

import pytest

from scoring.plan import Plans
from scoring.storage import Folder
from tests.conftest import ROOT


def all_of(plans):
    return [address for part in plans for address in plans.addresses(part)]


@pytest.mark.parametrize(("count", "size", "parts"), [(1, 4, 1), (4, 4, 1), (9, 4, 3), (10, 1, 10)])
def test_parts_are_filled_in_order(tmp_path, count, size, parts):
    plans = Plans(Folder(str(tmp_path)))
    addresses = [f"/{number}.jpg" for number in range(count)]
    assert plans.extend(addresses, size) == count
    assert all_of(plans) == addresses
    assert (plans.parts, plans.rows) == (parts, count)


def test_a_source_that_has_grown_gets_a_plan_of_what_is_new(tmp_path):
    Plans(Folder(str(tmp_path))).extend(["a", "b", "a", "c"], 2)
    plans = Plans(Folder(str(tmp_path)))
    assert all_of(plans) == ["a", "b", "c"]
    assert plans.extend(["d", "a", "e", "d", "c"], 10) == 2
    assert plans.extend(["e", "b"], 10) == 0
    assert all_of(Plans(Folder(str(tmp_path)))) == ["a", "b", "c", "d", "e"]
    assert {part.plan for part in plans} == {1, 2}


def test_part_sizes_may_differ_between_plans(tmp_path):
    plans = Plans(Folder(str(tmp_path)))
    plans.extend([f"a{number}" for number in range(70_000)], 30_000)
    plans.extend([f"b{number}" for number in range(5)], 2)
    assert [len(plans.addresses(part)) for part in plans] == [30_000, 30_000, 10_000, 2, 2, 1]
    assert plans.rows == 70_005


def test_memory_for_many_addresses(tmp_path):
    """Planned and known: at this rate less than 2 GiB for ten million."""
    program = f"""
import resource, sys
sys.path[:0] = [{str(ROOT)!r}, {str(ROOT / "client")!r}]
from scoring.plan import Plans
from scoring.storage import Folder
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for _ in range(2):
    plans = Plans(Folder({str(tmp_path)!r}))
    print(plans.extend((f"/data/photos/{{number:09d}}.jpg" for number in range(300_000)), 256))
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    first, again, kib = map(int, done.stdout.split())
    assert (first, again) == (300_000, 0)
    assert kib * 1024 < 2**31 * 0.03
