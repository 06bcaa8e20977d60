"""What a file is: by its content first, then as its source states, then by its name."""

from __future__ import annotations

import re
import zipfile
from pathlib import Path, PurePosixPath

from trivet.errors import EmptyDocument, EncryptedDocument, UnsupportedType
from trivet.parse import PARSERS
from trivet.parse.decode import decode, looks_binary

PDF = "application/pdf"
HTML = "text/html"
XHTML = "application/xhtml+xml"
DOCX = "application/vnd.openxmlformats-officedocument.wordprocessingml.document"
MARKDOWN = "text/markdown"
PLAIN = "text/plain"

_HEAD = 64 << 10
_ALIASES = {"text/x-markdown": MARKDOWN, "application/x-pdf": PDF, "text/x-web-markdown": MARKDOWN}
_EXTENSIONS = {
    ".pdf": PDF,
    ".html": HTML,
    ".htm": HTML,
    ".xhtml": XHTML,
    ".docx": DOCX,
    ".md": MARKDOWN,
    ".markdown": MARKDOWN,
    ".mdown": MARKDOWN,
    ".mkd": MARKDOWN,
    ".txt": PLAIN,
    ".text": PLAIN,
    ".rst": PLAIN,
    ".log": PLAIN,
}
#: Stated by sources that do not know; then the name decides.
_VAGUE = frozenset({"", "application/octet-stream", "binary/octet-stream", "application/x-download", "text/plain"})
#: Possessive: the ways to read a row of comments double with each of them.
_PRELUDE = rb"^(?:\xef\xbb\xbf)?(?>\s|<!--.*?-->)*+"
_IS_HTML = re.compile(
    _PRELUDE + rb"(?:<\?xml[^>]*>(?>\s|<!--.*?-->)*+)?<(?:!doctype\s+html|html|head|body)\b", re.IGNORECASE | re.DOTALL
)
#: Tags that also start Markdown files: they count where nothing else is known.
_MAY_BE_HTML = re.compile(
    _PRELUDE + rb"<(?:title|meta|script|style|table|div|h1|p|br|a|b|font|iframe)[\s>]", re.IGNORECASE | re.DOTALL
)
_OLE = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"
#: (offset, magic, media type): enough to name what people send by mistake.
_MAGIC: tuple[tuple[int, bytes, str], ...] = (
    (0, b"\x89PNG\r\n\x1a\n", "image/png"),
    (0, b"\xff\xd8\xff", "image/jpeg"),
    (0, b"GIF8", "image/gif"),
    (8, b"WEBP", "image/webp"),
    (0, b"II*\x00", "image/tiff"),
    (0, b"MM\x00*", "image/tiff"),
    (8, b"WAVE", "audio/wav"),
    (0, b"ID3", "audio/mpeg"),
    (0, b"\xff\xfb", "audio/mpeg"),
    (0, b"fLaC", "audio/flac"),
    (0, b"OggS", "audio/ogg"),
    (4, b"ftyp", "video/mp4"),
    (0, b"\x1aE\xdf\xa3", "video/webm"),
    (0, b"\x1f\x8b", "application/gzip"),
    (0, b"BZh", "application/x-bzip2"),
    (0, b"\xfd7zXZ\x00", "application/x-xz"),
    (0, b"(\xb5/\xfd", "application/zstd"),
    (0, b"7z\xbc\xaf\x27\x1c", "application/x-7z-compressed"),
    (0, b"Rar!\x1a\x07", "application/vnd.rar"),
    (257, b"ustar", "application/x-tar"),
    (0, b"PAR1", "application/vnd.apache.parquet"),
    (0, b"SQLite format 3\x00", "application/vnd.sqlite3"),
    (0, b"\x7fELF", "application/x-elf"),
    (0, b"{\\rtf", "application/rtf"),
    (0, b"%!PS", "application/postscript"),
)


def sniff(path: Path, stated_media_type: str, filename: str) -> str:
    """Media type of the file, a key of `trivet.parse.PARSERS`.

    Where content and statement disagree, the content is right. Raises `UnsupportedType` naming the type,
    `EncryptedDocument` for an Office file behind a password, and `EmptyDocument` for a file without bytes.
    """
    with path.open("rb") as file:
        head = file.read(_HEAD)
    if not head:
        raise EmptyDocument("The source has no bytes.")
    stated = stated_media_type.partition(";")[0].strip().lower()
    stated = _ALIASES.get(stated, stated)
    named = _EXTENSIONS.get(PurePosixPath(filename).suffix.lower(), "")
    if b"%PDF-" in head[:1024]:
        return PDF
    if head.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        return _zip_type(path, head, stated, named)
    if head.startswith(_OLE):
        raise _ole_error(path)
    if _IS_HTML.match(head):
        return XHTML if stated == XHTML else HTML
    for offset, magic, media_type in _MAGIC:
        if head.startswith(magic, offset):
            raise _unsupported(media_type)
    if looks_binary(head):
        # Damaged beyond its magic number: the parser says so better than "unknown type" would.
        if (claimed := stated if stated not in _VAGUE else named) in (PDF, DOCX):
            return claimed
        raise _unsupported(stated if stated not in _VAGUE else "application/octet-stream")
    return _text_type(head, stated, named)


def _text_type(head: bytes, stated: str, named: str) -> str:
    if stated in (HTML, XHTML, MARKDOWN):
        return stated
    if stated in _VAGUE or stated in (PDF, DOCX):
        if _utf16_html(head):
            return HTML
        if named in (HTML, XHTML, MARKDOWN, PLAIN):
            return named
        return HTML if stated != PLAIN and _MAY_BE_HTML.match(head) else PLAIN
    if stated.startswith("text/"):
        return PLAIN
    raise _unsupported(stated)


def _utf16_html(head: bytes) -> bool:
    if not head.startswith((b"\xff\xfe", b"\xfe\xff")):
        return False
    return _IS_HTML.match(decode(head[: len(head) // 2 * 2]).text.encode()) is not None


def _zip_type(path: Path, head: bytes, stated: str, named: str) -> str:
    try:
        with zipfile.ZipFile(path) as archive:
            names = set(archive.namelist())
            inner = archive.read("mimetype")[:100].decode("ascii", "replace") if _small_mimetype(archive) else ""
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError, RuntimeError, EOFError):
        # The directory at the end is gone; the first entries still tell.
        if DOCX in (stated, named) or b"word/" in head or b"[Content_Types].xml" in head[:200]:
            return DOCX
        raise _unsupported("application/zip") from None
    if "[Content_Types].xml" in names:
        prefixes = {name.partition("/")[0] for name in names}
        if "word" in prefixes:
            return DOCX
        for prefix, kind in (("xl", "spreadsheetml.sheet"), ("ppt", "presentationml.presentation")):
            if prefix in prefixes:
                raise _unsupported(f"application/vnd.openxmlformats-officedocument.{kind}")
    raise _unsupported(inner.strip() or "application/zip")


def _small_mimetype(archive: zipfile.ZipFile) -> bool:
    """Whether this is an EPUB or OpenDocument file, whose entry `mimetype` names it."""
    entry = archive.NameToInfo.get("mimetype")
    return entry is not None and entry.file_size < 200 and not entry.flag_bits & 1


def _ole_error(path: Path) -> EncryptedDocument | UnsupportedType:
    with path.open("rb") as file:
        content = file.read(8 << 20)
    if "EncryptedPackage".encode("utf-16-le") in content:
        return EncryptedDocument("The Office document needs a password.", hint="Remove the password and ingest again.")
    return _unsupported("application/x-ole-storage (an old Office format such as .doc)")


def _unsupported(media_type: str) -> UnsupportedType:
    return UnsupportedType(
        f"The source is {media_type[:120]}, which no parser reads.",
        hint=f"Supported: {', '.join(sorted(PARSERS))}; state text/plain to ingest other text as it is.",
    )
