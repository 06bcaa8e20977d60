"""Sections of two Debian manuals in four languages, with queries made from them.

The manuals are fetched with `apt-get download` and unpacked; nothing of them is kept in this repository (Debian
Reference: GPL-2+, Developer's Reference: GPL-2+). A section is the text below its heading, without the heading.
"""

from __future__ import annotations

import math
import re
import subprocess
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from lxml import html

LANGUAGES = ("en", "de", "fr", "ja")
_WORD = re.compile(r"[^\W\d_]{4,}")


@dataclass(frozen=True)
class Corpus:
    """Sections that exist in every language, in one order: `texts[language][i]` and `titles[language][i]`."""

    name: str
    titles: dict[str, list[str]]
    texts: dict[str, list[str]]

    def keywords(self, language: str, words: int = 3) -> list[str]:
        """Per section its words with the highest tf·idf: what someone types who knows the terms."""
        bags = [Counter(word.lower() for word in _WORD.findall(text)) for text in self.texts[language]]
        spread = Counter(word for bag in bags for word in bag)

        def weight(bag: Counter[str], word: str) -> tuple[float, str]:
            return -(1 + math.log(bag[word])) * math.log(len(bags) / spread[word]), word

        return [" ".join(sorted(bag, key=lambda word: weight(bag, word))[:words]) for bag in bags]


def developers_reference(folder: Path, limit: int) -> Corpus:
    """The Developer's Reference: what is tuned on."""
    _unpack(folder, [f"developers-reference{tail}" for tail in ("", "-de", "-fr", "-ja")])
    root = folder / "usr/share/developers-reference"
    found: dict[str, dict[str, tuple[str, str]]] = {}
    for language in LANGUAGES:
        base = root if language == "en" else root / language
        found[language] = {}
        for path in sorted(base.glob("*.html")):
            if path.stem in ("index", "search", "developers-reference", "genindex"):
                continue
            for section in html.parse(str(path)).iter("section"):
                anchors, heading = section.xpath("./span[@id]/@id"), section.xpath("./h2|./h3|./h4")
                if anchors and heading:
                    found[language][f"{path.stem}#{anchors[0]}"] = _section(section, heading[0], ("section",))
    return _aligned("Developer's Reference", found, limit)


def debian_reference(folder: Path, limit: int) -> Corpus:
    """Debian Reference, chapters 7 to 12: what is reported (the embedded model's heads were fitted on 1 to 6)."""
    _unpack(folder, [f"debian-reference-{language}" for language in LANGUAGES])
    root = folder / "usr/share/debian-reference"
    found: dict[str, dict[str, tuple[str, str]]] = {}
    for language in LANGUAGES:
        found[language] = {}
        for chapter in range(7, 13):
            for section in html.parse(str(root / f"ch{chapter:02}.{language}.html")).iter("div"):
                heading = section.xpath("./div[@class='titlepage']//*[self::h2 or self::h3 or self::h4]")
                anchors = section.xpath("./div[@class='titlepage']//a/@id")
                if section.get("class") == "section" and heading and anchors:
                    found[language][anchors[0]] = _section(section, heading[0], ("titlepage", "section"))
    return _aligned("Debian Reference, chapters 7 to 12", found, limit)


def _unpack(folder: Path, packages: list[str]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for package in packages:
        if not list(folder.glob(f"{package}_*.deb")):
            subprocess.run(["apt-get", "download", package], cwd=folder, check=True, capture_output=True)  # noqa: S603, S607 - names are constants
        for archive in folder.glob(f"{package}_*.deb"):
            subprocess.run(["dpkg-deb", "-x", str(archive), str(folder)], check=True)  # noqa: S603, S607 - as above


def _section(section: html.HtmlElement, heading: html.HtmlElement, inner: tuple[str, ...]) -> tuple[str, str]:
    title = re.sub(r"^[\d.\s]+", "", heading.text_content().replace("¶", "").replace("\xa0", " ")).strip()
    skipped = ("section", "h2", "h3", "h4")
    children = [child for child in section if child.get("class") not in inner and child.tag not in skipped]
    text = " ".join(" ".join(child.text_content() for child in children if isinstance(child.tag, str)).split())
    return title, text


def _aligned(name: str, found: dict[str, dict[str, tuple[str, str]]], limit: int) -> Corpus:
    everywhere = [
        key
        for key, (_, text) in found["en"].items()
        if len(text) >= 300 and all(found[language].get(key, ("", ""))[1] for language in LANGUAGES)
    ]
    step = max(len(everywhere) / limit, 1.0)
    chosen = [everywhere[int(i * step)] for i in range(min(limit, len(everywhere)))]
    return Corpus(
        name,
        {language: [found[language][key][0] for key in chosen] for language in LANGUAGES},
        {language: [found[language][key][1] for key in chosen] for language in LANGUAGES},
    )
