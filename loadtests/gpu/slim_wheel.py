"""Make the wheel of onnxruntime-gpu small enough to carry: keep the CUDA kernels of one architecture.

    python -m loadtests.gpu.slim_wheel onnxruntime_gpu-1.31.1-cp312-*.whl onnxruntime-sm90.tar.xz --arch 90

The kernels of the CUDA provider lie in its section `.nv_fatbin`, one image per architecture. All others are overwritten
with zeros, which xz packs to nothing (about 58 MiB instead of 244 for 90: H100, H200). TensorRT's provider and the
second copy of the core library are left out. Unpack it into a folder and put that on PYTHONPATH. It was tried without a
GPU only: step 1 of `loadtests.gpu` says whether it computes rightly.
"""

import io
import struct
import tarfile
import zipfile
from pathlib import Path

import click

_CONTAINER = 0xBA55ED50  # magic number of a fat binary
_LEFT_OUT = ("libonnxruntime_providers_tensorrt.so", "libonnxruntime.so")
_PROVIDER = "libonnxruntime_providers_cuda.so"


def fat_binary(elf: bytes | bytearray) -> tuple[int, int]:
    """Return offset and size of the section `.nv_fatbin` of a 64-bit ELF file.

    Raises:
        ValueError: it has none.
    """
    (table,) = struct.unpack_from("<Q", elf, 40)
    entry, count, names = struct.unpack_from("<HHH", elf, 58)
    sections = [struct.unpack_from("<IIQQQQ", elf, table + number * entry) for number in range(count)]
    text = sections[names][4]
    for name, _, _, _, offset, size in sections:
        if elf[text + name : elf.index(b"\0", text + name)] == b".nv_fatbin":
            return offset, size
    raise ValueError("no section .nv_fatbin")


def keep_one(library: bytearray, arch: int) -> int:
    """Overwrite the kernels of every other architecture, and return the number of bytes that were.

    Raises:
        ValueError: there are none of `arch`.
    """
    offset, size = fat_binary(library)
    at, end, zeroed, found = offset, offset + size, 0, set[int]()
    while at < end:
        magic, _, header, length = struct.unpack_from("<IHHQ", library, at)
        if magic != _CONTAINER:
            at += 8
            continue
        image, last = at + header, at + header + length
        while image < last:
            _, _, head, body = struct.unpack_from("<HHIQ", library, image)
            (has,) = struct.unpack_from("<I", library, image + 28)
            found.add(has)
            if has != arch:
                library[image + head : image + head + body] = bytes(body)
                zeroed += body
            image += head + body
        at = last
    if arch not in found:
        raise ValueError(f"no kernels for {arch}: there are {', '.join(map(str, sorted(found)))}")
    return zeroed


@click.command(help=__doc__.replace("\n\n    ", "\n\n\b\n    "))
@click.argument("wheel", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.argument("out", type=click.Path(dir_okay=False, path_type=Path))
@click.option("--arch", default=90, show_default=True, help="Compute capability without its point: 80, 89, 90.")
def main(wheel: Path, out: Path, arch: int) -> None:
    """Read the wheel, write the archive."""
    with zipfile.ZipFile(wheel) as packed, tarfile.open(out, "w:xz", preset=6) as archive:
        for name in packed.namelist():
            base = Path(name).name
            if name.endswith("/") or base.startswith(_LEFT_OUT):
                continue
            data = bytearray(packed.read(name))
            if base == _PROVIDER:
                try:
                    zeroed = keep_one(data, arch)
                except ValueError as error:
                    raise click.ClickException(f"{wheel}: {error}") from error
                click.echo(f"{base}: {zeroed / 2**20:.0f} of {len(data) / 2**20:.0f} MiB overwritten")
            member = tarfile.TarInfo(name)
            member.size, member.mode = len(data), 0o755
            archive.addfile(member, io.BytesIO(data))
    click.echo(f"{out}: {out.stat().st_size / 2**20:.1f} MiB")


if __name__ == "__main__":
    main()
