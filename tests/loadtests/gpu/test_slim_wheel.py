"""A wheel of onnxruntime-gpu that is made small keeps the kernels of one architecture, byte for byte."""

import struct
import tarfile
import zipfile

import pytest
from click.testing import CliRunner

from loadtests.gpu.slim_wheel import main

BODIES = {75: b"a" * 40, 90: b"b" * 24, 100: b"c" * 8}
NAMES = b"\0.nv_fatbin\0.shstrtab\0"


def fat_binary() -> bytes:
    """A container of one image per architecture, behind 8 bytes of padding."""
    images = b"".join(struct.pack("<HHIQ12xI32x", 2, 1, 64, len(body), arch) + body for arch, body in BODIES.items())
    return bytes(8) + struct.pack("<IHHQ", 0xBA55ED50, 1, 16, len(images)) + images


def library() -> bytes:
    """A 64-bit ELF file with that in its section `.nv_fatbin`."""
    fat, first = fat_binary(), 64
    names, table = first + len(fat), first + len(fat) + len(NAMES)
    header = struct.pack("<40xQ10xHHH", table, 64, 3, 2)
    sections = [(0, 0, 0, 0, 0, 0), (1, 1, 0, 0, first, len(fat)), (12, 3, 0, 0, names, len(NAMES))]
    return header + fat + NAMES + b"".join(struct.pack("<IIQQQQ24x", *section) for section in sections)


@pytest.fixture
def wheel(tmp_path):
    path = tmp_path / "onnxruntime_gpu.whl"
    with zipfile.ZipFile(path, "w") as out:
        out.writestr("onnxruntime/capi/libonnxruntime_providers_cuda.so", library())
        out.writestr("onnxruntime/capi/libonnxruntime_providers_tensorrt.so", b"large")
        out.writestr("onnxruntime/__init__.py", b"version")
    return path


def test_other_architectures_become_zeros_and_tensorrt_is_left_out(wheel, tmp_path):
    out = tmp_path / "slim.tar.xz"
    done = CliRunner().invoke(main, [str(wheel), str(out), "--arch", "90"])
    assert done.exit_code == 0, done.output
    with tarfile.open(out) as archive:
        found = {member.name: archive.extractfile(member).read() for member in archive}
    provider = found.pop("onnxruntime/capi/libonnxruntime_providers_cuda.so")
    assert provider == library().replace(BODIES[75], bytes(40)).replace(BODIES[100], bytes(8))
    assert found == {"onnxruntime/__init__.py": b"version"}


def test_an_architecture_that_is_not_there_is_refused(wheel, tmp_path):
    done = CliRunner().invoke(main, [str(wheel), str(tmp_path / "slim.tar.xz"), "--arch", "86"])
    assert done.exit_code == 1
    assert "no kernels for 86: there are 75, 90, 100" in done.output
