"""Messages made from compiled schemas, and files of any bytes."""

from pathlib import Path

import pytest
from google.protobuf import text_format
from grpc_tools import protoc
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from export.caffe.net import read_net
from export.paddle.program import SCHEMA as SCHEMA_OF_PADDLE
from export.paddle.program import read_parameters, read_program
from export.protobuf import read_message, read_schema
from zoo.errors import ExportError

ROOT = Path(__file__).parents[2]
CAFFE = ROOT / "export/caffe/caffe.binpb"
SCHEMAS = ("export/caffe/caffe", "export/paddle/framework")


@pytest.mark.parametrize("schema", SCHEMAS)
def test_the_compiled_schema_is_that_of_its_source(schema, tmp_path):
    source = ROOT / f"{schema}.proto"
    assert not protoc.main(["protoc", f"-I{source.parent}", f"-o{tmp_path / 'compiled'}", source.name])
    assert (tmp_path / "compiled").read_bytes() == source.with_suffix(".binpb").read_bytes()


def test_a_compiled_schema_makes_messages():
    message = text_format.Parse("pool: AVE", read_schema(CAFFE)["PoolingParameter"]())
    # Field 1, a varint of 1: the wire format of https://protobuf.dev/programming-guides/encoding
    assert message.SerializeToString() == b"\x08\x01"
    assert (message.round_mode, list(message.pad)) == (0, [])


def test_a_missing_file_is_an_export_error(tmp_path):
    with pytest.raises(ExportError, match=r"no\.bin: No such file"):
        read_message(tmp_path / "no.bin", read_schema(CAFFE)["NetParameter"], "a test")


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
