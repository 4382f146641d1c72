"""Messages made from a schema's text, and files of any bytes."""

import pytest
from google.protobuf import text_format
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from export.caffe.net import read_net
from export.paddle.program import SCHEMA as SCHEMA_OF_PADDLE
from export.paddle.program import read_parameters, read_program
from export.protobuf import read_message, read_schema
from zoo.errors import ExportError

SCHEMA = """
message Inner {
    enum Kind {
        OFF = 0;
        ON = 2;
    }
    optional Kind kind = 1 [default = ON];
    repeated float values = 5;
}
message Outer {
    optional Inner inner = 3;
    repeated string names = 1;
    optional bytes raw = 7;
}
"""


def test_a_schema_makes_messages():
    outer = read_schema("test.outer", SCHEMA)["Outer"]
    message = text_format.Parse('inner { kind: OFF values: 1.5 } names: "a" names: "b" raw: "xy"', outer())
    again = outer.FromString(message.SerializeToString())
    assert (again.inner.kind, list(again.inner.values), list(again.names), again.raw) == (0, [1.5], ["a", "b"], b"xy")
    assert outer().inner.kind == 2
    # Field 3, length 2; in it field 1, varint 2: the wire format of https://protobuf.dev/programming-guides/encoding
    assert outer.FromString(b"\x1a\x02\x08\x02").inner.kind == 2


def test_a_line_that_is_not_understood_is_named():
    with pytest.raises(
        ValueError, match=r"the schema test\.bad has a line that is not understood: 'required int32 x = 1;'"
    ):
        read_schema("test.bad", "message A {\nrequired int32 x = 1;\n}")


def test_a_missing_file_is_an_export_error(tmp_path):
    with pytest.raises(ExportError, match=r"no\.bin: No such file"):
        read_message(tmp_path / "no.bin", read_schema("test.missing", SCHEMA)["Outer"], "a test")


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=120))
def test_any_bytes_are_read_or_refused(tmp_path, content):
    path = tmp_path / "any.bin"
    path.write_bytes(content)
    for read in (
        lambda: read_net(path, None, None),
        lambda: read_program(path),
        lambda: read_parameters(path, {"w": (2, 3), "b": (2,)}),
    ):
        with pytest.raises(ExportError, match=r"any\.bin: "):
            read()


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.integers(0, 33), st.integers(0, 255)), max_size=5))
def test_damaged_parameters_are_read_or_refused(tmp_path, changes):
    # Versions and levels of detail, the description's length; in it float32 (5) and the sides 2 and 1; two numbers.
    content = bytearray(bytes(16) + b"\x06\0\0\0" + b"\x08\x05\x10\x02\x10\x01" + bytes(8))
    for index, value in changes:
        content[index] = value
    path = tmp_path / "damaged.pdiparams"
    path.write_bytes(content)
    try:
        values = read_parameters(path, {"w": (2, 1)})
    except ExportError:
        assert changes
        return
    assert values["w"].shape == (2, 1)


@pytest.mark.parametrize(
    "op", ["type: 'feed'", "type: 'feed' outputs { parameter: 'Out' arguments: 'x' }", "type: 'fetch' inputs {}"]
)
def test_a_program_whose_ends_are_loose_is_refused(tmp_path, op):
    path = tmp_path / "net.pdmodel"
    program = text_format.Parse(f"blocks {{ ops {{ {op} }} }}", SCHEMA_OF_PADDLE["ProgramDesc"]())
    path.write_bytes(program.SerializeToString())
    with pytest.raises(ExportError, match=r"net\.pdmodel: not a Paddle program: .* feeds or fetches"):
        read_program(path)
