"""Records survive however a pipe cuts them up."""

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from loadtests.loadgen.wire import RECORD, Image, Plan, Reader, records
from loadtests.target import Target

IDS = st.integers(0, 2**64 - 1)
VALUES = st.integers(0, 2**32 - 1)


def test_a_plan_passes_the_pipe_whole():
    target = Target("https", "::1", 8443, "/zoo", "sesame", Path("ca.pem"), "classify", "m", "::1")
    plan = Plan(target, {"top_k": "1"}, [Image("image/png", b"a"), Image("image/jpeg", path="b.jpg")], 8, 2.5)
    assert Plan.decode(plan.encode()) == plan


@given(st.lists(st.tuples(IDS, VALUES), min_size=1, max_size=20), st.lists(st.integers(0, 40), max_size=40))
def test_records(pairs, cuts):
    data = records([i for i, _ in pairs], [v for _, v in pairs])
    assert len(data) == len(pairs) * RECORD.itemsize
    found = []
    reader = Reader(lambda some: found.extend(zip(some["id"].tolist(), some["value"].tolist(), strict=True)))
    for cut in cuts:
        reader.feed(data[:cut])
        data = data[cut:]
    reader.feed(data)
    assert found == pairs
