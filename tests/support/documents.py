"""Documents that tests make for themselves."""

from __future__ import annotations

from collections.abc import Iterable

_WORDS = [
    "queue",
    "worker",
    "ledger",
    "token",
    "shard",
    "commit",
    "tree",
    "river",
    "stone",
    "cloud",
    "garden",
    "machine",
    "letter",
    "paper",
    "music",
    "north",
    "winter",
    "bridge",
    "signal",
    "harbour",
    "copper",
    "window",
    "mirror",
    "engine",
    "forest",
    "island",
    "candle",
    "market",
    "silver",
    "number",
]


def pdf(pages: Iterable[str]) -> bytes:
    """A plain PDF 1.4 with one page per text (Latin letters; lines are kept)."""
    objects: list[bytes] = [
        b"<< /Type /Catalog /Pages 2 0 R >>",
        b"",
        b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>",
    ]
    kids = []
    for text in pages:
        lines = [line.replace("\\", r"\\").replace("(", r"\(").replace(")", r"\)") for line in text.splitlines()]
        drawn = " ".join(f"({line}) Tj T*" for line in lines)
        stream = f"BT /F1 10 Tf 12 TL 50 780 Td {drawn} ET".encode("latin-1", "replace")
        objects.append(b"<< /Length %d >>\nstream\n%s\nendstream" % (len(stream), stream))
        page = f"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 595 842] /Contents {len(objects)} 0 R"
        objects.append((page + " /Resources << /Font << /F1 3 0 R >> >> >>").encode())
        kids.append(f"{len(objects)} 0 R")
    objects[1] = f"<< /Type /Pages /Count {len(kids)} /Kids [{' '.join(kids)}] >>".encode()
    out = bytearray(b"%PDF-1.4\n")
    places = []
    for number, body in enumerate(objects, 1):
        places.append(len(out))
        out += b"%d 0 obj\n%s\nendobj\n" % (number, body)
    start = len(out)
    out += b"xref\n0 %d\n0000000000 65535 f \n" % (len(objects) + 1)
    out += b"".join(b"%010d 00000 n \n" % place for place in places)
    out += b"trailer << /Size %d /Root 1 0 R >>\nstartxref\n%d\n%%%%EOF\n" % (len(objects) + 1, start)
    return bytes(out)


def prose(seed: int, words: int) -> str:
    """Text that is different for every seed."""
    picked = [_WORDS[(seed * 7919 + n * (seed % 13 + 3)) % len(_WORDS)] for n in range(words)]
    sentences = [" ".join(picked[at : at + 12]).capitalize() + "." for at in range(0, words, 12)]
    return f"Document {seed}. " + " ".join(sentences)


def lines(text: str, width: int = 80) -> str:
    """The text in lines of about `width` characters."""
    out, line = [], ""
    for word in text.split():
        if line and len(line) + len(word) >= width:
            out.append(line)
            line = ""
        line = f"{line} {word}".strip()
    return "\n".join([*out, line])
