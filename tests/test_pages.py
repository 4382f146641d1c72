"""What all pages for readers name exists: links and their anchors, settings, commands and their options."""

import re
from importlib import import_module
from pathlib import Path

import click
import pytest

from service.settings import Settings
from tests.conftest import ROOT
from zoo import catalog
from zoo.cli import main as zooserve
from zoo.licences import to_accept
from zoo.variables import OF_CLIENTS, OF_STORE, PREFIX

FOLDERS = ("", ".github", ".github/ISSUE_TEMPLATE", "client", "deploy", "docs", "loadtests", "loadtests/results")
PAGES = [*(page for folder in FOLDERS for page in sorted((ROOT / folder).glob("*.md"))), *ROOT.glob("tests/**/*.md")]
NOW = [page for page in PAGES if page.name != "CHANGELOG.md"]  # what was is named there, too
SETTINGS = {PREFIX + name.upper() for name in (*Settings.__struct_fields__, *OF_STORE, *OF_CLIENTS)}
COMMAND = re.compile(
    r"^(?:[A-Z_]+=\S+ )*(?:zooserve|python -m (loadtests[\w.]*|fuzz))(?=[ \n]|$)([^#\n|&`]*)", re.MULTILINE
)


def named(page: Path) -> str:
    return str(page.relative_to(ROOT))


def prose(page: Path) -> str:
    return re.sub(r"^```.*?^```", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def code(page: Path) -> str:
    """All code of a page, inline and in blocks; lines that go on are one."""
    text = page.read_text()
    blocks = re.findall(r"^```\w*\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    blocks += re.findall(r"^ {4,}(.+)$", text, re.MULTILINE)
    inline = [" ".join(span.split()) for span in re.findall(r"`([^`]+)`", prose(page))]
    return "\n".join([*blocks, *inline]).replace("\\\n", " ")


def command_of(module: str, words: list[str]) -> click.Command | None:
    """The command that is called; None where a page only names the program, or another one."""
    command: click.Command = zooserve
    if module:
        command = import_module(f"{module}.__main__" if is_package(module) else module).main
    while isinstance(command, click.Group):
        name = words.pop(0) if words else ""
        found = command.get_command(click.Context(command), name)
        if found is None:
            assert not re.fullmatch("[a-z]+", name), f"there is no command {name!r}"
            return None
        command = found
    return command


def is_package(module: str) -> bool:
    return (ROOT / module.replace(".", "/") / "__main__.py").is_file()


def test_the_pages_are_found():
    assert {"README.md", "deploy/README.md", "docs/http.md", "loadtests/GPU.md"} <= set(map(named, PAGES))


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_every_link_leads_somewhere(page):
    for link in re.findall(r"\]\((?!https?:)([^)\s]+)\)", prose(page)):
        path, _, anchor = link.partition("#")
        target = page.parent / path if path else page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


@pytest.mark.parametrize("page", [page for page in NOW if page.parent.name in {"docs", "deploy"}], ids=named)
def test_every_file_of_the_code_is_there(page):
    for name in re.findall(r"`([\w/]+\.py)`", prose(page)):
        assert next(ROOT.glob(f"[a-z]*/**/{name}"), None) or (ROOT / name).is_file(), name


@pytest.mark.parametrize("page", NOW, ids=named)
def test_every_setting_exists(page):
    assert set(re.findall(rf"{PREFIX}[A-Z_]*[A-Z]", page.read_text())) <= SETTINGS


@pytest.mark.parametrize("page", NOW, ids=named)
def test_every_command_has_the_options_that_are_shown(page):
    for module, arguments in COMMAND.findall(code(page)):
        words = arguments.split()
        command = command_of(module, words)
        options = {name for one in getattr(command, "params", ()) for name in (*one.opts, *one.secondary_opts)}
        shown = {word.partition("=")[0] for word in words if word.startswith("--")} - {"--help"}
        assert command is None or shown <= options, f"{module or 'zooserve'} {arguments}"


@pytest.mark.parametrize("page", NOW, ids=named)
def test_an_export_that_is_shown_accepts_the_licence(page):
    for _, arguments in COMMAND.findall(code(page)):
        name, *words = arguments.split() or [""]
        for model in {*words} & {*catalog.names()} if name == "export" else ():
            assert {*to_accept(catalog.find(model).licence)} <= {*words}, arguments


@pytest.mark.parametrize("name", zooserve.list_commands(click.Context(zooserve)))
def test_every_option_is_explained(name):
    options = [p for p in zooserve.get_command(click.Context(zooserve), name).params if isinstance(p, click.Option)]
    assert not [one.name for one in options if not one.help and not one.show_default]
    for one in options:
        if one.name == "models":
            assert "$ZOOSERVE_MODELS" in one.help or "As of `zooserve export`" in one.help


def test_the_readme_says_which_commands_have_no_json():
    (named_there,) = re.findall(r"All but (.*?) take `--json`", (ROOT / "README.md").read_text())
    context = click.Context(zooserve)
    commands = {name: zooserve.get_command(context, name) for name in zooserve.list_commands(context)}
    without = {name for name, one in commands.items() if "--json" not in {opt for p in one.params for opt in p.opts}}
    assert set(re.findall(r"`(\w+)`", named_there)) == without
