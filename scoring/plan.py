"""Plans: the addresses of all images, in parts. What is to be done is the parts of the plans that have no file yet.

A plan is an Arrow file in `_plans/` of the results, a record batch per part. A source that has grown gets a further
plan, of the new addresses alone. So each address is in one part, a part has one name, and a process that was thought
dead and still writes its part writes what another one would.

Addresses are compared by 128 bits of BLAKE2b, 16 bytes each: ten million take 160 MB. Of a billion, two have the same
digest with a probability of 1.5e-21.
"""

import functools
import re
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from hashlib import blake2b
from itertools import islice

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from scoring.spec import Part
from scoring.storage import Folder, StorageError

_SCHEMA = pa.schema([("address", pa.string())])
_SPOOLED = 65_536  # addresses in a batch of the temporary file
FOLDER = "_plans"
_NAME = re.compile(r"[0-9]+\.arrow")
Digests = npt.NDArray[np.bytes_]


class Plans:
    """The plans of a folder of results.

    Raises:
        StorageError: one is damaged.
    """

    def __init__(self, out: Folder) -> None:
        self._out = out
        self._sizes = {number: self._size(number) for number in self._numbers()}

    @property
    def parts(self) -> int:
        """How many parts all plans have."""
        return sum(parts for parts, _ in self._sizes.values())

    @property
    def rows(self) -> int:
        """How many addresses all plans have."""
        return sum(rows for _, rows in self._sizes.values())

    def __iter__(self) -> Iterator[Part]:
        """Yield every part, in the order of the plans."""
        for number, (parts, _) in self._sizes.items():
            for index in range(parts):
                yield Part(number, index)

    def addresses(self, part: Part) -> list[str]:
        """Return the addresses of a part."""
        with self._naming(part.plan):
            found: list[str] = self._reader(part.plan).get_batch(part.number).column(0).to_pylist()
        return found

    def extend(self, addresses: Iterable[str], part_rows: int) -> int:
        """Make a plan of the addresses that no plan has, each once, in their order.

        Args:
            addresses: of the source.
            part_rows: how many a part has.

        Returns:
            How many are new.
        """
        digests = bytearray()
        given = iter(addresses)
        with tempfile.TemporaryFile() as spool:
            with pa.ipc.new_stream(spool, _SCHEMA) as stream:
                while some := list(islice(given, _SPOOLED)):
                    digests += b"".join(map(_digest, some))
                    stream.write_batch(pa.record_batch([pa.array(some, pa.string())], schema=_SCHEMA))
            new = _new(_digests(digests), self._known())
            if not new.any():
                return 0
            spool.seek(0)
            number = max(self._sizes, default=0) + 1
            with self._out.writing(_name(number)) as file:
                _write(file, pa.ipc.open_stream(spool), new, part_rows)
        self._sizes[number] = self._size(number)
        return int(new.sum())

    def _numbers(self) -> list[int]:
        return [int(name.removesuffix(".arrow")) for name in self._out.names(FOLDER) if _NAME.fullmatch(name)]

    @functools.cache  # noqa: B019 - plans live as long as the process
    def _reader(self, number: int) -> pa.RecordBatchFileReader:
        return pa.ipc.open_file(self._out.open(_name(number)))

    @contextmanager
    def _naming(self, number: int) -> Iterator[None]:
        """Say which plan an error is of."""
        try:
            yield
        except Exception as error:  # pyarrow's are of many types, where the bytes of a file are others than it wrote
            raise StorageError(
                f"{self._out.address}/{_name(number)} cannot be read ({error}). If it is damaged, name "
                "another folder for the results."
            ) from error

    def _size(self, number: int) -> tuple[int, int]:
        with self._naming(number):
            reader = self._reader(number)
            parts = reader.num_record_batches
            # All parts but the last are equally large.
            first, last = (reader.get_batch(index).num_rows for index in (0, parts - 1))
        return parts, first * (parts - 1) + last

    def _known(self) -> Digests:
        """Return the digests of all addresses that the plans have, sorted."""
        known = bytearray()
        for part in self:
            known += b"".join(map(_digest, self.addresses(part)))
        found = _digests(known).copy()
        found.sort()
        return found


def _name(number: int) -> str:
    return f"{FOLDER}/{number:04d}.arrow"


def _digest(address: str) -> bytes:
    return blake2b(address.encode(), digest_size=16).digest()


def _digests(joined: bytearray) -> Digests:
    return np.frombuffer(joined, "S16")


def _new(digests: Digests, known: Digests) -> npt.NDArray[np.bool_]:
    """Say which digests are the first of their kind and not known, bool [N]. `known` is sorted."""
    distinct, first = np.unique(digests, return_index=True)
    if known.size:
        place = np.minimum(np.searchsorted(known, distinct), known.size - 1)
        first = first[known[place] != distinct]
    new = np.zeros(digests.size, np.bool_)
    new[first] = True
    return new


def _write(file: object, spooled: pa.RecordBatchStreamReader, new: npt.NDArray[np.bool_], part_rows: int) -> None:
    start, rest = 0, pa.chunked_array([], pa.string())
    with pa.ipc.new_file(file, _SCHEMA) as plan:
        for batch in spooled:
            kept = batch.column(0).filter(pa.array(new[start : start + batch.num_rows]))
            start += batch.num_rows
            rest = pa.chunked_array([*rest.chunks, kept], pa.string())
            while len(rest) >= part_rows:
                _append(plan, rest.slice(0, part_rows))
                rest = rest.slice(part_rows)
        if len(rest):
            _append(plan, rest)


def _append(plan: pa.RecordBatchFileWriter, addresses: pa.ChunkedArray) -> None:
    plan.write_batch(pa.record_batch([pa.concat_arrays(addresses.chunks)], schema=_SCHEMA))
