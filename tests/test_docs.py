"""The examples in the documentation run and give what stands there."""

import doctest
import re
from pathlib import Path

import pytest

DOCS = Path(__file__).parent.parent / "docs"
PAGES = sorted(page.name for page in DOCS.glob("*.md"))


@pytest.mark.parametrize("name", [name for name in PAGES if ">>>" in (DOCS / name).read_text(encoding="utf-8")])
def test_examples(name):
    failed, tried = doctest.testfile(str(DOCS / name), module_relative=False, encoding="utf-8")
    assert tried > 5
    assert failed == 0


@pytest.mark.parametrize("name", PAGES)
def test_links_lead_somewhere(name):
    links = re.findall(r"\]\(((?!http)[^)#]+)", (DOCS / name).read_text(encoding="utf-8"))
    missing = [link for link in links if not (DOCS / link).exists()]
    assert missing == []
