"""Tensors as bytes: what is read is what was written."""

import mmap
import os

import numpy as np
import pytest

from service.fronts.channel import Channel, Kind, body_of, connect, listen, packed
from service.fronts.tensors import pack, unpack

CASES = {
    "numbers": {"a": np.arange(12, dtype=np.float32).reshape(3, 4), "b": np.array([[True], [False]])},
    "halves": {"a": np.arange(7, dtype=np.float16), "b": np.arange(3, dtype=np.int64)},
    "no rows": {"a": np.zeros((0, 4), np.int32)},
    "a scalar": {"a": np.array(4.5)},
    "a view": {"a": np.arange(20).reshape(4, 5)[::2, 1:]},
    "texts": {"a": np.array([["x", "ü" * 300], ["", "\n"]], object), "b": np.array([b"\xff\x00"], object)},
    "large": {"a": np.random.default_rng(0).random((200, 1000)), "b": np.array(["x"], object)},
}


@pytest.fixture(scope="module")
def pair():
    listener, address = listen()
    one = connect(address)
    other = Channel(listener.accept()[0])
    yield one, other
    for each in (one, other, listener):
        each.close()
    os.close(address)


def send(channel, kind, parts, files=()):
    with packed(kind, parts) as (message, own):
        channel.send(message, [*own, *files])


@pytest.mark.parametrize("name", CASES)
def test_round_trip(pair, name):
    one, other = pair
    send(one, Kind.TENSORS, [b"12345678", *pack(CASES[name])])
    message = other.receive()
    assert message.kind == Kind.TENSORS
    assert isinstance(message.body, mmap.mmap) == (name == "large")
    found = unpack(body_of(message)[8:])
    assert found.keys() == CASES[name].keys()
    for key, value in CASES[name].items():
        assert found[key].dtype == value.dtype
        assert found[key].flags.aligned
        np.testing.assert_array_equal(found[key], value)


def test_a_file_goes_along_and_the_end_is_seen(pair):
    one, other = pair
    reading, writing = os.pipe()
    for size in (10, 100_000):
        send(one, Kind.TABLE, [bytes(size)], [writing])
        message = other.receive()
        os.write(message.files[0], b"seen")
        os.close(message.files[0])
        assert os.read(reading, 10) == b"seen"
        assert bytes(body_of(message)) == bytes(size)
    one.end()
    assert other.receive() is None
    with pytest.raises(OSError, match=r"Broken pipe|not connected"):
        one.send(b"\x04")
    for file in (reading, writing):
        os.close(file)
