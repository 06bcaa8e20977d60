"""Test texts with known answers: Debian's manuals, whose sections have the same ids in every language.

The packages are GPL and are fetched when they are needed (`apt-get download`), never kept in this repository.
A query is asked of all sections of one language, and exactly one of them is right.
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

_WORD = re.compile(r"[A-Za-zÀ-ɏЀ-ӿ]{4,}|[一-龯]{2,4}|[ァ-ヺー]{3,}|[가-힣]{2,}")


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
    language: str
    section: str
    text: str


def fetch(package: str, cache: Path) -> Path:
    """Folder with the unpacked Debian package; the archive's newest version, kept in `cache`."""
    target = cache / "debian" / package
    if not target.is_dir():
        target.parent.mkdir(parents=True, exist_ok=True)
        subprocess.run(["apt-get", "download", package], cwd=target.parent, check=True, capture_output=True)  # noqa: S603, S607 - a fixed program with a name from this file
        (archive,) = target.parent.glob(f"{package}_*.deb")
        subprocess.run(["dpkg", "-x", str(archive), str(target)], check=True)  # noqa: S603, S607 - as above
        archive.unlink()
    return target


def debian_reference(language: str, cache: Path) -> list[Section]:
    """All sections of the Debian Reference in one language, in order, without the appendix."""
    root = fetch(f"debian-reference-{language}", cache) / "usr/share/debian-reference"
    found = []
    for path in sorted(root.glob(f"ch[0-9]*.{language}.html")):
        page = html.fromstring(path.read_bytes())
        found += [_section(node, language, int(path.name[2:4])) for node in page.xpath('//div[@class="section"]')]
    return [section for section in found if section and len(section.text) >= MIN_CHARACTERS]


def _section(node: html.HtmlElement, language: str, chapter: int) -> Section | None:
    headings = node.xpath('./div[@class="titlepage"]//*[self::h2 or self::h3 or self::h4][1]')
    if not headings:
        return None
    anchors = headings[0].xpath(".//a[@id]/@id") or headings[0].xpath("./@id") or node.xpath("./@id")
    parts = [_text(child) for child in node if child.get("class") not in ("titlepage", "section")]
    title = re.sub(r"^[\d.]+\s*", "", _text(headings[0]))
    return Section(language, chapter, anchors[0], title, " ".join(part for part in parts if part))


def _text(node: html.HtmlElement) -> str:
    return " ".join(node.text_content().split())


def words(text: str) -> list[str]:
    """Words that someone might search for, repeats included: no digits, nothing very short."""
    return _WORD.findall(text)


def title_queries(sections: Iterable[Section]) -> list[Query]:
    """Each section's title; the sections do not contain their own."""
    return [Query("title", s.language, s.id, s.title) for s in sections]


def keyword_queries(sections: Sequence[Section], seed: int) -> list[Query]:
    """Three words of each section, the rarer the likelier (Efraimidis–Spirakis sampling by inverse frequency)."""
    random_ = random.Random(seed)
    bags = [set(words(s.text)) for s in sections]
    frequency = Counter(word for bag in bags for word in bag)
    found = []
    for section, bag in zip(sections, bags, strict=True):
        keys = {word: random_.random() ** (1 / math.log(1 + len(bags) / frequency[word]) ** 3) for word in sorted(bag)}
        chosen = sorted(keys, key=keys.__getitem__, reverse=True)[:KEYWORDS]
        if len(chosen) == KEYWORDS:
            found.append(Query("keyword", section.language, section.id, " ".join(chosen)))
    return found


def fragment_queries(sections: Sequence[Section], seed: int, count: int = 1) -> list[Query]:
    """Some consecutive words of each section: 3 to 10, or 6 to 20 characters where words are not spaced."""
    random_ = random.Random(seed)
    found = []
    for section in sections:
        spaced = section.language not in ("ja", "zh-cn", "zh-tw")
        units = section.text.split() if spaced else list(section.text)
        for _ in range(count):
            size = random_.randint(3, 10) if spaced else random_.randint(6, 20)
            start = random_.randrange(max(1, len(units) - size))
            text = (" " if spaced else "").join(units[start : start + size])
            found.append(Query("fragment", section.language, section.id, text))
    return found
