"""The pictures of the pages are what the pages would draw now, and are pictures.

`python -m docs.draw` draws them anew.
"""

import re
from xml.etree import ElementTree

from docs.draw import IMAGES, pictures
from tests.papers import PAPERS

SHOWN = re.compile(r"!\[([^\]]*)\]\((?:docs/)?images/([^)]+)\)")


def test_the_pictures_are_current() -> None:
    drawn = pictures()
    assert {path.name for path in IMAGES.iterdir()} == {path.name for path in drawn}
    stale = [path.name for path, svg in drawn.items() if path.read_text("utf-8") != svg]
    assert stale == [], "draw them anew: python -m docs.draw"


def test_every_picture_is_shown_with_words_for_who_cannot_see_it() -> None:
    shown = [found for paper in PAPERS for found in SHOWN.findall(paper.read_text("utf-8"))]
    assert {name for _, name in shown} == {path.name for path in IMAGES.iterdir()}
    assert [name for words, name in shown if not words] == []


def test_a_picture_is_well_formed_and_small() -> None:
    for path in IMAGES.iterdir():
        root = ElementTree.fromstring(path.read_bytes())
        assert root.tag == "{http://www.w3.org/2000/svg}svg"
        assert path.stat().st_size < 30_000
