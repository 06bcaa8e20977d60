"""Bytes to text: which encoding, and what is left of bytes that are no text. Pure functions.

The order is the WHATWG's, with one change: text that is valid UTF-8 beyond ASCII is UTF-8 even where a single-byte
western charset is stated, since servers state that one by default and no other text is valid UTF-8 by accident.
"""

from __future__ import annotations

import codecs
import re
from dataclasses import dataclass

from trivet.errors import CorruptDocument
from trivet.values import Skipped

_BOMS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
#: Labels that mean another encoding in practice (https://encoding.spec.whatwg.org/#names-and-labels).
_ALIASES = {
    "ascii": "cp1252",
    "iso8859-1": "cp1252",
    "iso8859-9": "cp1254",
    "tis-620": "cp874",
    "shift_jis": "cp932",
    "euc_kr": "cp949",
    "gb2312": "gb18030",
    "gbk": "gb18030",
    "utf-16": "utf-16-le",
    "utf-32": "utf-32-le",
}
#: Python codecs that are not charsets of documents.
_NO_CHARSETS = frozenset({"idna", "punycode", "unicode-escape", "raw-unicode-escape", "undefined", "mbcs", "oem"})
#: The encodings of the web (https://encoding.spec.whatwg.org/#names-and-labels) that a guess may give.
_GUESSES = (
    *(f"cp125{last}" for last in range(9)),
    *("cp932", "euc_jp", "iso2022_jp", "gb18030", "big5", "cp949", "koi8_r", "koi8_u", "cp866", "cp874"),
    *("iso8859_2", "iso8859_3", "iso8859_4", "iso8859_5", "iso8859_6", "iso8859_7", "iso8859_8", "iso8859_10"),
    *("iso8859_13", "iso8859_14", "iso8859_15", "iso8859_16"),
)
_CONTROL_BYTES = bytes(byte for byte in range(32) if byte not in b"\t\n\v\f\r\x1b") + b"\x7f"
_UNWANTED = re.compile("[\x00-\x08\x0e-\x1f\x7f-\x84\x86-\x9f\ud800-\udfff\ufdd0-\ufdef\ufffe\uffff]")
_SAMPLE = 64 << 10


@dataclass(frozen=True, slots=True)
class Decoded:
    """Text without control characters, and what was done to get it."""

    text: str
    encoding: str
    skipped: tuple[Skipped, ...] = ()


def charset_codec(label: str) -> str:
    """The Python codec for a charset label, or empty if it names no text encoding."""
    try:
        info = codecs.lookup(label.strip().strip("\"'"))
    except (LookupError, ValueError):
        return ""
    # Codecs such as zip or rot13 are registered too, and would run on a stranger's word.
    if not getattr(info, "_is_text_encoding", True) or info.name in _NO_CHARSETS:
        return ""
    return _ALIASES.get(info.name, info.name)


def looks_binary(data: bytes) -> bool:
    """Whether the first 64 KiB are no text in any encoding that is told from its bytes (empty data is text)."""
    sample = data[:_SAMPLE]
    if not sample or any(sample.startswith(bom) for bom, _ in _BOMS) or _utf16_order(sample):
        return False
    controls = len(sample) - len(sample.translate(None, _CONTROL_BYTES))
    if controls * 10 > len(sample):
        return True
    return controls * 50 > len(sample) and not _is_utf8(sample)


def decode(data: bytes, charset: str = "") -> Decoded:
    """Text of `data`: by BOM, stated charset, UTF-8, then by guess.

    Bytes that the encoding does not have become U+FFFD, and control characters spaces (one for one, so that offsets
    keep their meaning); both are counted in `skipped`. Raises `CorruptDocument` for data that is no text.
    """
    codec, data = _choose(data, charset)
    if not codec:
        raise CorruptDocument(
            "The document is not text: its bytes are in no known encoding.", hint="State its media type or charset."
        )
    text = data.decode(codec, "replace")
    skipped: list[Skipped] = []
    if (bad := _undecodable(data, codec, text)) > 0:
        skipped.append(Skipped(what="undecodable bytes", reason=f"not valid {codec}; replaced by U+FFFD", count=bad))
    text, cleaned = clean(text)
    return Decoded(text, codec, (*skipped, *cleaned))


def clean(text: str) -> tuple[str, tuple[Skipped, ...]]:
    """`text` of the same length with NUL, control characters and lone surrogates as spaces, and how many there were."""
    cleaned, count = _UNWANTED.subn(" ", text)
    cleaned = cleaned.replace("\x85", "\n")
    if not count:
        return cleaned, ()
    return cleaned, (Skipped(what="control characters", reason="not text; replaced by spaces", count=count),)


def _undecodable(data: bytes, codec: str, text: str) -> int:
    """How many of the U+FFFD in `text` are not in the source itself."""
    marks = text.count("\ufffd")
    return marks - data.decode(codec, "ignore").count("\ufffd") if marks else 0


def _choose(data: bytes, charset: str) -> tuple[str, bytes]:
    """Codec (empty if the data is no text), and the data without its BOM."""
    for bom, codec in _BOMS:
        if data.startswith(bom):
            return codec, data[len(bom) :]
    stated = charset_codec(charset) if charset else ""
    if stated and stated not in ("cp1252", "utf-8"):
        return stated, data
    if order := _utf16_order(data[:_SAMPLE]):
        return order, data
    if looks_binary(data):
        return "", data
    if _is_utf8(data) or stated == "utf-8":
        return "utf-8", data
    return stated or _guess(data), data


def _is_utf8(data: bytes) -> bool:
    """Whether the data is UTF-8; a sequence that the end cuts off is no objection."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    try:
        decoder.decode(data)
    except UnicodeDecodeError:
        return False
    return True


def _utf16_order(sample: bytes) -> str:
    """Codec of UTF-16 without BOM, told by the zero bytes that mostly ASCII text has at every other place."""
    if len(sample) < 4 or b"\x00" not in sample:
        return ""
    half = len(sample) // 2
    even, odd = sample[0 : 2 * half : 2].count(0), sample[1 : 2 * half : 2].count(0)
    order = ""
    if odd > 0.4 * half and even * 10 < odd:
        order = "utf-16-le"
    elif even > 0.4 * half and odd * 10 < even:
        order = "utf-16-be"
    # Tables of small numbers have such zeros too, but no letters between them.
    if order and len(_UNWANTED.findall(sample[: 2 * half].decode(order, "replace"))) * 20 > half:
        return ""
    return order


def _guess(data: bytes) -> str:
    sample = data[:_SAMPLE]
    text = sample.decode("utf-8", "replace")
    bad = _undecodable(sample, "utf-8", text)
    good = sum(1 for character in text if character > "\x7f") - bad
    # Damaged UTF-8 still has many whole sequences; a legacy encoding has next to none.
    if good > 2 * bad or bad * 1000 < len(sample):
        return "utf-8"
    from charset_normalizer import from_bytes

    best = from_bytes(sample, cp_isolation=list(_GUESSES)).best()
    return charset_codec(best.encoding) if best is not None else "cp1252"
