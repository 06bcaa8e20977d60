"""Texts with known answers: Debian's manuals, whose sections have the same ids in every language.

The packages are GPL and are fetched when they are needed (`apt-get download`); nothing of them is kept in this
repository. A query is asked of all sections of one language, and exactly one of them is right.
"""

from __future__ import annotations

import math
import random
import re
import subprocess
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from lxml import html

#: A section with less text than this is a heading and no answer.
MIN_CHARACTERS = 120
#: Words of a keyword query.
KEYWORDS = 3
#: Chapters whose text the heads may see; 7 to 12 are for the report.
FIT_CHAPTERS = range(1, 7)
REPORT_CHAPTERS = range(7, 13)

#: Words in scripts that space them; runs of kanji or katakana; up to four hanzi, since a run is a whole clause.
_WORDS = re.compile(r"[A-Za-zÀ-ɏЀ-ӿ]{4,}|[一-龯]{2,4}|[ァ-ヺー]{3,}|[가-힣]{2,}")
_UNSPACED = ("ja", "zh-cn", "zh-tw")


@dataclass(frozen=True, slots=True)
class Section:
    """A section of a manual without its sub-sections; `text` lacks the title."""

    language: str
    chapter: int
    id: str
    title: str
    text: str


@dataclass(frozen=True, slots=True)
class Query:
    """A question with one right answer: the section of this id."""

    kind: str
    section: str
    text: str


def fetch(package: str, cache: Path) -> Path:
    """Folder with the unpacked Debian package, the newest that the archive has; kept in `cache`."""
    target = cache / "debian" / package
    if not target.is_dir():
        target.parent.mkdir(parents=True, exist_ok=True)
        subprocess.run(["apt-get", "download", package], cwd=target.parent, check=True, capture_output=True)  # noqa: S603, S607 - a fixed program, and a name from this folder
        (archive,) = target.parent.glob(f"{package}_*.deb")
        subprocess.run(["dpkg", "-x", str(archive), str(target)], check=True)  # noqa: S603, S607 - as above
        archive.unlink()
    return target


def debian_reference(language: str, chapters: range, cache: Path) -> list[Section]:
    """The sections of some chapters of the Debian Reference in one language, in order."""
    root = fetch(f"debian-reference-{language}", cache) / "usr/share/debian-reference"
    found = []
    for chapter in chapters:
        page = html.fromstring((root / f"ch{chapter:02}.{language}.html").read_bytes())
        found += [_section(node, language, chapter) for node in page.xpath('//div[@class="section"]')]
    return [section for section in found if section and len(section.text) >= MIN_CHARACTERS]


def _section(node: html.HtmlElement, language: str, chapter: int) -> Section | None:
    headings = node.xpath('./div[@class="titlepage"]//*[self::h2 or self::h3 or self::h4][1]')
    anchors = headings[0].xpath(".//a[@id]/@id") if headings else []
    if not anchors:
        return None
    parts = [_text(child) for child in node if child.get("class") not in ("titlepage", "section")]
    title = re.sub(r"^[\d.]+\s*", "", _text(headings[0]))
    return Section(language, chapter, anchors[0], title, " ".join(part for part in parts if part))


def _text(node: html.HtmlElement) -> str:
    return " ".join(node.text_content().split())


def title_queries(sections: Iterable[Section]) -> list[Query]:
    """Each section's title; the sections do not contain their own."""
    return [Query("title", s.id, s.title) for s in sections]


def keyword_queries(sections: Sequence[Section], seed: int) -> list[Query]:
    """Three words of each section, the rarer the likelier: weighted sampling without replacement (Efraimidis and
    Spirakis 2006) by the cube of log(1 + sections / sections with the word)."""
    rng = random.Random(seed)
    bags = [sorted(set(_WORDS.findall(s.text))) for s in sections]
    frequency = Counter(word for bag in bags for word in bag)
    found = []
    for section, bag in zip(sections, bags, strict=True):
        keys = {word: rng.random() ** (math.log(1 + len(bags) / frequency[word]) ** -3) for word in bag}
        chosen = sorted(keys, key=keys.__getitem__, reverse=True)[:KEYWORDS]
        if len(chosen) == KEYWORDS:
            found.append(Query("keyword", section.id, " ".join(chosen)))
    return found


def fragment_queries(sections: Sequence[Section], seed: int, each: int) -> list[Query]:
    """Some consecutive words of each section: 3 to 10, or 6 to 20 characters where words are not spaced."""
    rng = random.Random(seed)
    found = []
    for section in sections:
        spaced = section.language not in _UNSPACED
        units = section.text.split() if spaced else list(section.text)
        for _ in range(each):
            size = rng.randint(3, 10) if spaced else rng.randint(6, 20)
            start = rng.randrange(max(1, len(units) - size))
            text = (" " if spaced else "").join(units[start : start + size])
            found.append(Query("fragment", section.id, text))
    return found
