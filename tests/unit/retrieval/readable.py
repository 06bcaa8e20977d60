"""A small model that reads words, for tests of what is said about them: bge-m3's kind of tokenizer, and hashes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from tokenizers import Tokenizer as Backend
from tokenizers import decoders, models, pre_tokenizers, processors

from tests.unit.retrieval.world import World
from trivet.chunking import embedded_text
from trivet.encoder.fake import FakeEncoder
from trivet.encoder.models import fake_model
from trivet.encoder.tokenizer import Tokenizer
from trivet.ids import chunk_id
from trivet.retrieval.query import QueryEncoder
from trivet.values import Chunk, Outputs

_SPECIAL = ("<s>", "<pad>", "</s>", "<unk>")
#: One and several tokens each, in scripts with spaces and without.
WORDS = (
    "tower",
    "lighthouse",
    "électricité",
    "المنارة",
    "كتاب",
    "東京",
    "コンピューター",
    "電波塔",
    "กรุงเทพ",
    "น้ำ",
    "🦄",
    "👍🏽",
)
#: What the tokenizer knows as a whole; everything else is letters.
_PIECES = ("▁light", "house", "▁tower", "東京", "ター", "กรุงเทพ", "▁كتاب", "المن", "élec")


def _backend() -> Backend:
    letters = {chr(code) for code in [*range(33, 127), *range(0xE0, 0xFF)]} | set("".join(WORDS))
    scored = [*((name, 0.0) for name in _SPECIAL), ("▁", -4.0)]
    scored += [(letter, -9.0) for letter in sorted(letters)] + [(piece, -6.0) for piece in _PIECES]
    backend = Backend(models.Unigram(scored, unk_id=3, byte_fallback=False))
    metaspace = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="always")
    backend.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), metaspace])
    backend.decoder = decoders.Metaspace(replacement="▁", prepend_scheme="always")
    backend.add_special_tokens(list(_SPECIAL))
    backend.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    return backend


class Reader:
    """Encodes queries, and commits texts as the chunks of an object."""

    def __init__(self) -> None:
        model = fake_model(16)
        prompts = {"passage_prompt": "passage: ", "query_prompt": "query: ", "max_tokens": 4096}
        model = replace(model, identity=model.identity.model_copy(update=prompts))
        self._encoder = FakeEncoder(model)
        self.tokenizer = Tokenizer(model.identity, _backend(), frozenset(range(4)))
        self.queries = QueryEncoder(self._encoder, self.tokenizer)

    def commit(
        self,
        world: World,
        texts: Sequence[str],
        *,
        context: str = "",
        object_id: str = "a",
        generation: int = 1,
        parts: int = 1,
        outputs: Outputs | None = None,
    ) -> list[Chunk]:
        """One chunk per text."""
        rows = self.tokenizer.encode([embedded_text(context, text) for text in texts], "passage")
        ends = np.cumsum([len(text) for text in texts]).tolist()
        chunks = [
            Chunk(
                chunk_id=chunk_id(object_id, i, text, context),
                ordinal=i,
                text=text,
                context=context,
                heading_path=(),
                page_start=i + 1,
                page_end=i + 2,
                char_start=end - len(text),
                char_end=end,
                language=None,
                token_ids=tuple(row),
            )
            for i, (text, row, end) in enumerate(zip(texts, rows, ends, strict=True))
        ]
        world.commit(
            object_id,
            self._encoder.encode(rows),
            chunks=chunks,
            generation=generation,
            parts=parts,
            outputs=outputs,
            identity=self.tokenizer.identity,
        )
        return chunks
