"""The documents: what `make docs` builds has every page and picture, links lead somewhere, commands are real."""

import re
import shlex
from pathlib import Path

import pytest

from difflate import registry
from difflate.cli.main import build_parser
from difflate.errors import ConfigError, ModelError
from difflate.train.config import read_recipe, read_settings

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
PARSER = build_parser()
PAGES = sorted(DOCS.rglob("*.md"))
_FENCE = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)


def names(pages: list[Path]) -> list[str]:
    return [str(page.relative_to(ROOT)) for page in pages]


def prose(page: Path) -> str:
    """The text of a page without code."""
    text = _FENCE.sub("", page.read_text(encoding="utf-8"))
    lines = [line for line in text.splitlines() if not line.startswith("    ")]
    return re.sub(r"`[^`]*`", lambda code: re.sub(r"\W", "", code[0]), "\n".join(lines))


def anchors(page: Path) -> set[str]:
    """Those of its headings, as GitHub and the site make them."""
    text = _FENCE.sub("", page.read_text(encoding="utf-8"))
    headings = re.findall(r"^#+ +(.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


def links(page: Path) -> list[str]:
    return [target for target in re.findall(r"\]\(([^)\s]+)\)", prose(page)) if "://" not in target]


def commands(page: Path, program: str) -> list[list[str]]:
    """The words of the commands in a page's code, without comments; lines that describe options are left out."""
    text = page.read_text(encoding="utf-8").replace("\\\n", " ")
    code = "\n".join([*_FENCE.findall(text), *re.findall(r"^ {4}(\S.*)$", text, re.MULTILINE)])
    lines = re.findall(rf"^{program} (.+)$", code, re.MULTILINE)
    return [shlex.split(line, comments=True) for line in lines if not re.search(r"…|\[-", line)]


def test_the_navigation_names_every_page_once() -> None:
    text = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    named = re.findall(r": (\S+\.md)$", text, re.MULTILINE)
    assert named[0] == "index.md"  # the README
    assert sorted(named[1:]) == [page.relative_to(DOCS).as_posix() for page in PAGES]


@pytest.mark.parametrize("name", ["README.md", *names(PAGES)])
def test_every_link_leads_somewhere(name: str) -> None:
    page = ROOT / name
    for link in links(page):
        target, _, anchor = link.partition("#")
        found = page.parent / target if target else page
        assert found.is_file(), link
        # the site has these pages and pictures alone
        assert DOCS in found.resolve().parents or found.resolve() == ROOT / "README.md", link
        assert not anchor or anchor in anchors(found), link


def test_the_gallery_shows_every_picture_with_a_command() -> None:
    text = (DOCS / "gallery.md").read_text(encoding="utf-8")
    shown = re.findall(r"!\[[^]]+\]\((\S+)\)", text)
    assert sorted(shown) == sorted(path.name for path in DOCS.iterdir() if path.suffix in (".jpg", ".png"))
    for section in text.split("\n## ")[1:]:
        assert section.index("\n    ") < section.index("![")


@pytest.mark.parametrize("name", names(PAGES))
def test_the_commands_of_a_page_are_taken(name: str) -> None:
    """By the parser, and what they name of the repository is there; those of the README run in test_examples.py."""
    for words in commands(ROOT / name, "difflate"):
        PARSER.parse_args(words)
        if words[0] == "train":
            assert (ROOT / words[1]).is_file(), words
    for words in commands(ROOT / name, "python"):
        if words[0].endswith(".py"):
            assert (ROOT / words[0]).is_file(), words
        elif words[:2] == ["-m", "benchmarks"]:
            assert (ROOT / "benchmarks").is_dir()
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for words in commands(ROOT / name, "make"):
        assert re.search(rf"^{words[0]}:", makefile, re.MULTILINE), words


@pytest.mark.slow
@pytest.mark.parametrize("name", names(PAGES))
def test_the_settings_of_trainings_are_those_of_their_recipes(name: str) -> None:
    """Of keys and values; data and models that a reader has to have are not there."""
    for _, config, *overrides in (words for words in commands(ROOT / name, "difflate") if words[0] == "train"):
        overrides = [word for word in overrides if not word.startswith("-")]
        try:
            read_settings(registry.recipe(read_recipe(ROOT / config)).settings, ROOT / config, overrides)
        except (ConfigError, ModelError) as error:
            if not any(told in str(error) for told in ("is no folder", "is not here", "no such file or folder")):
                raise


def test_the_reference_names_what_there_is() -> None:
    """Modules, or what a module defines; the text comes from their docstrings."""
    for page in sorted((DOCS / "api").iterdir()):
        for name in re.findall(r"^::: (\S+)$", page.read_text(encoding="utf-8"), re.MULTILINE):
            path = ROOT / "src" / name.replace(".", "/")
            if path.with_suffix(".py").is_file() or (path / "__init__.py").is_file():
                continue
            source = path.parent.with_suffix(".py").read_text(encoding="utf-8")
            assert re.search(rf"^(?:class|def) {path.name}\b", source, re.MULTILINE), name
