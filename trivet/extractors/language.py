"""Language of a chunk, and the script that most of its letters are of."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Mapping

from trivet.values.documents import Chunk

#: First words of Unicode's character names that are one script under several names.
_JAPANESE = {"HIRAGANA", "KATAKANA"}


def extract(chunk: Chunk) -> Mapping[str, str]:
    """`language` (BCP 47, where it is known) and `script` (first word of the Unicode names of most letters).

    Japanese is told from Chinese by its kana, since both have the same ideographs.
    """
    found = {"language": chunk.language} if chunk.language else {}
    scripts = Counter(unicodedata.name(c, " ").split(" ", 1)[0] for c in chunk.text if c.isalpha())
    del scripts[""]
    if scripts:
        kana = any(scripts[name] for name in _JAPANESE)
        (script, _), *_ = scripts.most_common(1)
        found["script"] = "japanese" if kana and script in (*_JAPANESE, "CJK") else script.lower()
    return found
