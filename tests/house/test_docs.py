"""The examples in the documentation run and give what is printed there."""

import doctest
import re

import pytest
from support import ROOT

DOCS = ROOT / "docs"
FIGURES = DOCS.parent / "figures"
PAGES = sorted(page.relative_to(DOCS).as_posix() for page in DOCS.rglob("*.md"))


@pytest.mark.parametrize("name", [name for name in PAGES if ">>>" in (DOCS / name).read_text(encoding="utf-8")])
def test_examples(name):
    failed, tried = doctest.testfile(str(DOCS / name), module_relative=False, encoding="utf-8")
    assert tried > 5
    assert failed == 0


@pytest.mark.parametrize("name", PAGES)
def test_links_lead_somewhere(name):
    page = DOCS / name
    links = re.findall(r"\]\(((?!http)[^)#]+)", page.read_text(encoding="utf-8"))
    missing = [link for link in links if not (page.parent / link).exists() and not ("figures/" in link and not FIGURES.exists())]
    assert missing == []


@pytest.mark.parametrize("name", PAGES)
def test_links_to_sections_lead_somewhere(name):
    page = DOCS / name
    for target, section in re.findall(r"\]\(((?!http)[^)#]*)#([^)]+)\)", page.read_text(encoding="utf-8")):
        text = (page.parent / target if target else page).read_text(encoding="utf-8")
        titles = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
        assert section in {re.sub(r"[^\w -]", "", title).lower().replace(" ", "-") for title in titles}


def test_the_index_lists_every_page():
    text = (DOCS / "README.md").read_text(encoding="utf-8")
    assert {f"({name})" for name in PAGES if "/" not in name and name != "README.md"} <= set(re.findall(r"\([^)]+\.md\)", text))
