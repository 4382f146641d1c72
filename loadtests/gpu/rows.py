"""What the GPU script writes: rows, each with the GPU that it was measured on, and the table of them."""

from collections.abc import Sequence

from msgspec import Struct

from loadtests.report import markdown_table


class Row(Struct, frozen=True):
    """One measurement, or the reason why there is none.

    Attributes:
        step: its number.
        model: its name; `-` where there is none.
        way: in which it was done.
        load: batch size, threads or clients, in words.
        rate: images per second; None where nothing was measured.
        p50, p99: of one run or one request, in ms.
        first: the first run, in ms, in which a provider looks for its kernels.
        cores: processor time of the measuring process by time; of HTTP it is not known.
        utilisation: of the GPU, in per cent of the time.
        memory_mb: the most of the GPU's memory that was taken.
        provider: that computed; `-` where none did.
        card: the GPU's name, `stub` for the tests' simulation of one, `-` where none computed.
        note: a remark, or why there are no figures.
    """

    step: int
    model: str
    way: str
    load: str = "-"
    rate: float | None = None
    p50: float | None = None
    p99: float | None = None
    first: float | None = None
    cores: float | None = None
    utilisation: float | None = None
    memory_mb: float | None = None
    provider: str = "-"
    card: str = "-"
    note: str = ""


def table(rows: Sequence[Row]) -> str:
    """All rows as one Markdown table."""
    figures = ["images/s", "p50 ms", "p99 ms", "first ms", "cores", "GPU %", "GPU MB"]
    header = ["step", "model", "way", "load", *figures, "provider", "card", "note"]
    return markdown_table(header, [_line(row) for row in rows])


def _line(row: Row) -> list[str]:
    def shown(value: float | None, digits: int) -> str:
        return "-" if value is None else f"{value:.{digits}f}"

    return [
        str(row.step),
        row.model,
        row.way,
        row.load,
        shown(row.rate, 1),
        shown(row.p50, 2),
        shown(row.p99, 2),
        shown(row.first, 1),
        shown(row.cores, 2),
        shown(row.utilisation, 0),
        shown(row.memory_mb, 0),
        row.provider.removesuffix("ExecutionProvider"),
        row.card,
        row.note.replace("|", "/"),
    ]
