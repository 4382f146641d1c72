from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from export.darknet.cfg import Section, read_cfg
from zoo.errors import ExportError

CONV = "[convolutional]\nfilters=8\nsize=3\n"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "net.cfg"


def read(path: Path, text: str) -> tuple[Section, ...]:
    path.write_text(text)
    return read_cfg(path)


def test_sections_in_order_with_lines_and_darknets_numbers(path):
    text = (
        "# a comment\n[net]\nwidth = 416 \n\n; another\n[conv]\nfilters=8\n[max]\r\nsize = 2\n[route]\nlayers = -1, 0\n"
    )
    sections = read(path, text)
    assert [(s.kind, s.index, s.line) for s in sections] == [
        ("net", -1, 2),
        ("convolutional", 0, 6),
        ("maxpool", 1, 8),
        ("route", 2, 10),
    ]
    assert sections[0].integer("width") == 416
    assert sections[2].integer("size") == 2
    assert sections[3].integers("layers") == (-1, 0)


def test_the_first_of_two_equal_keys_counts_as_in_darknet(path):
    assert read(path, "[net]\nbatch=1\nbatch=64\n" + CONV)[0].integer("batch") == 1


def test_numbers_end_at_a_comment(path):
    _, route = read(path, "[net]\n[route]\nlayers = -1, 61 ### P5\n")
    assert route.integers("layers") == (-1, 61)


def test_training_options_pass_and_defaults_hold(path):
    _, conv, yolo = read(path, f"[net]\npolicy=steps\n{CONV}stopbackward=800\n[yolo]\njitter=.3\niou_loss=ciou\n")
    assert conv.integer("stride", 1) == 1
    assert conv.text("activation", "logistic") == "logistic"
    assert yolo.number("scale_x_y", 1.0) == 1.0


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "0 section"),
        ("[net]\nwidth=416\n", "1 section"),
        (CONV + "[net]\n", r"line 1: \[convolutional\] is out of place"),
        (f"[net]\n{CONV}[net]\n", r"line 5: \[net\] is out of place"),
        ("width=416\n[net]\n" + CONV, "line 1: `width` stands before the first section"),
        ("[net]\n[convolutional\nfilters=8\n", "line 2: '.convolutional' is neither"),
        (f"[net]\n{CONV}size\n", "line 5: 'size' is neither"),
        (f"[net]\n{CONV}stride=\n", "line 5: 'stride=' is neither"),
        (f"[net]\n{CONV}[region]\n", r"line 5: \[region\] is not supported; supported are \[convolutional\], "),
        (f"[net]\n{CONV}[Gaussian_yolo]\n", r"line 5: \[Gaussian_yolo\] is not supported"),
        (f"[net]\n{CONV}xnor=1\n", r"line 5: \[convolutional\] does not know the option `xnor`"),
        (f"[net]\n{CONV}[shortcut]\nfrom=-3\nweights_type=per_channel\n", "line 7: .shortcut. does not know"),
        (f"[net]\n{CONV}[upsample]\nstride=2\nscale=2\n", "line 7: .upsample. does not know the option `scale`"),
        (f"[net]\n{CONV}jitter=.3\n", "line 5: .convolutional. does not know the option `jitter`"),
    ],
)
def test_refused_with_the_line(path, text, message):
    with pytest.raises(ExportError, match=message):
        read(path, text)


@pytest.mark.parametrize(
    ("option", "ask", "message"),
    [
        ("stride=two", lambda s: s.integer("stride"), "line 5: .* `stride` is 'two', but must be a number"),
        ("stride=1.5", lambda s: s.integer("stride"), "line 5: .* `stride` is '1.5', but must be a whole number"),
        ("stride=1,2", lambda s: s.integer("stride"), "line 5: .* `stride` is '1,2', but must be a number"),
        ("stride=nan", lambda s: s.integer("stride"), "line 5: .* `stride` is 'nan', but must be a number"),
        ("stride=0", lambda s: s.integer("stride", minimum=1), "line 5: .* `stride` is 0, but must be at least 1"),
        ("stride=1,,2", lambda s: s.integers("stride"), "line 5: .* `stride` is '1,,2', but must be numbers"),
        ("stride=1,.5", lambda s: s.integers("stride"), "line 5: .* `stride` is '1,.5', but must be whole numbers"),
        ("pad=1", lambda s: s.integer("stride"), "line 2: .convolutional. has no `stride`"),
    ],
)
def test_values_are_refused_with_the_line(path, option, ask, message):
    _, section = read(path, f"[net]\n{CONV}{option}\n")
    with pytest.raises(ExportError, match=message):
        ask(section)


def test_a_byte_order_mark_is_skipped(path):
    path.write_text(f"[net]\nwidth=416\n{CONV}", encoding="utf-8-sig")
    assert [section.kind for section in read_cfg(path)] == ["net", "convolutional"]


def test_a_missing_file_is_an_export_error(path):
    with pytest.raises(ExportError, match=r"net\.cfg: No such file"):
        read_cfg(path)


@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.text(alphabet="[]netconvyolo#;=,.-0123456789 \n\r\t\x00é", max_size=200), st.booleans())
def test_any_text_is_read_or_refused(path, text, prefixed):
    try:
        sections = read(path, ("[net]\n[conv]\n" if prefixed else "") + text)
    except ExportError:
        return
    assert [section.index for section in sections] == list(range(-1, len(sections) - 1))


spaces = st.text(alphabet=" \t", max_size=3)


@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.integers(-500, 500), min_size=1, max_size=5), spaces, spaces, st.sampled_from(["\n", "\r\n"]))
def test_white_space_and_line_ends_mean_nothing(path, numbers, before, behind, end):
    value = f"{behind},{before}".join(map(str, numbers))
    text = end.join(
        ["[net]", f"{before}[route]{behind}", f"#{before}", f"{before}layers{behind}={before}{value}{behind}", ""]
    )
    path.write_bytes(text.encode())
    assert read_cfg(path)[1].integers("layers") == tuple(numbers)
