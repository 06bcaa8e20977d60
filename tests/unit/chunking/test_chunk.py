"""What every chunk holds, for any text, any headings and tokenizers with bad manners."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, cast

import pytest
import regex
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st

from tests.corpus.documents import REPORTS
from trivet.chunking import Chunked, chunk, embedded_text
from trivet.encoder.models import fake_model
from trivet.encoder.tokenizer import Tokenizer
from trivet.values import Chunking, Document, Heading, Page

_REAL = Tokenizer.load(fake_model())


class WordTokenizer:
    """Tokens of up to four letters; `glue` more tokens for every boundary effect that encoding has and offsets lack."""

    def __init__(self, max_tokens: int = 512, overhead: int = 4, glue: int = 0) -> None:
        self.identity = fake_model().identity.model_copy(update={"max_tokens": max_tokens})
        self._overhead = overhead
        self._glue = glue

    def offsets(self, texts: Sequence[str]) -> list[list[tuple[int, int]]]:
        return [[match.span() for match in re.finditer(r"\w{1,4}|[^\w\s]", text)] for text in texts]

    def encode(self, texts: Sequence[str], kind: str) -> list[list[int]]:
        assert kind == "passage"
        rows = []
        for text, spans in zip(texts, self.offsets(texts), strict=True):
            rows.append([0] * self._overhead + [len(text)] * (len(spans) + self._glue * text.count("e")))
        return rows

    def overhead(self, kind: str) -> int:
        assert kind == "passage"
        return self._overhead


def _chunk(document: Document, tokenizer: Any, **chunking: Any) -> Chunked:
    return chunk(document, cast("Tokenizer", tokenizer), Chunking(**chunking), "obj_1")


def _plain(text: str) -> Document:
    return Document(text=text, media_type="text/plain")


def _assert_sound(document: Document, made: Chunked, limit: int) -> None:
    end = 0
    for ordinal, piece in enumerate(made.chunks):
        assert piece.ordinal == ordinal
        assert piece.text == document.text[piece.char_start : piece.char_end]
        assert piece.text == piece.text.strip()
        assert piece.text
        assert piece.char_start >= end
        assert not document.text[end : piece.char_start].strip() or made.skipped
        assert piece.token_count <= limit
        end = piece.char_end
    assert not document.text[end:].strip() or made.skipped
    missing = sum(map(len, document.text.split())) - sum(len(part) for c in made.chunks for part in c.text.split())
    assert missing <= sum(note.count for note in made.skipped)
    assert len({piece.chunk_id for piece in made.chunks}) == len(made.chunks)
    assert made.tokens_seen == sum(piece.token_count for piece in made.chunks) + made.tokens_truncated


_SCRIPTS = st.text(
    alphabet=st.sampled_from("abeE .,!?\n\n\t-|0é̈한日本。！の、ا؟بगि।ไท👨‍👩‍👧🇩🇪\u200b\ufdfa"), max_size=400
)
_TEXTS = st.one_of(_SCRIPTS, st.text(max_size=300), st.lists(_SCRIPTS, max_size=6).map("\n\n".join))


@st.composite
def _documents(draw: st.DrawFn) -> Document:
    text = draw(_TEXTS)
    starts = sorted(draw(st.sets(st.integers(0, max(len(text) - 1, 0)), max_size=8))) if text else []
    headings = [
        Heading(level=draw(st.integers(1, 6)), title=draw(st.text(min_size=1, max_size=60)), start=start)
        for start in starts
    ]
    return Document(text=text, media_type="text/plain", headings=tuple(headings))


# One token of four letters must fit by itself: nothing cuts within a token.
_TOKENIZERS = st.sampled_from(
    [_REAL, WordTokenizer(), WordTokenizer(32, 5), WordTokenizer(64, 0, glue=1), WordTokenizer(40, 6, glue=6)]
)


@given(
    document=_documents(),
    tokenizer=_TOKENIZERS,
    target=st.integers(16, 600),
    most=st.integers(32, 600),
    split_by=st.sampled_from(["tokens", "none"]),
    heading_context=st.booleans(),
)
@examples(max_examples=300)
def test_chunks_are_exact_ordered_complete_and_within_the_limit(
    document: Document, tokenizer: Any, target: int, most: int, split_by: str, heading_context: bool
) -> None:
    made = _chunk(
        document,
        tokenizer,
        target_tokens=target,
        max_tokens=most,
        split_by=split_by,
        heading_context=heading_context,
    )
    model = tokenizer.identity.max_tokens
    whole = split_by == "none" and len(made.chunks) == 1
    _assert_sound(document, made, model if whole else min(most, model))


@given(text=_SCRIPTS)
@examples(max_examples=60)
def test_graphemes_stay_whole_where_they_fit(text: str) -> None:
    made = _chunk(_plain(text), _REAL, target_tokens=64, max_tokens=128)
    clusters = {match.start() for match in regex.finditer(r"\X", text)} | {len(text)}
    shorts = [piece for piece in made.chunks if len(regex.findall(r"\X", piece.text)[0]) < 20]
    assert all(piece.char_start in clusters for piece in shorts)


def test_blank_text_gives_no_chunk() -> None:
    assert _chunk(_plain(" \n\n\t "), _REAL).chunks == ()


def test_token_ids_are_those_of_context_and_text() -> None:
    body = "Some words about wind. " * 60
    text = f"Top\n\nPart\n\n{body}"
    document = Document(text=text, media_type="text/plain", headings=(Heading(1, "Top", 0), Heading(2, "Part", 5)))
    made = _chunk(document, _REAL, target_tokens=200, max_tokens=256)
    assert len(made.chunks) > 2
    for piece in made.chunks:
        expected = _REAL.encode([embedded_text(piece.context, piece.text)], "passage")[0]
        assert list(piece.token_ids) == expected
    first, *rest = made.chunks
    assert first.text.startswith("Top\n\nPart")
    assert first.context == ""
    assert {piece.heading_path for piece in made.chunks} == {("Top", "Part")}
    assert {piece.context for piece in rest} == {"Top > Part"}


def test_headings_start_chunks_and_bare_headings_join_the_next() -> None:
    text = "Intro words.\n\nA\n\nB\n\nBody of b.\n\nC\n\nBody of c."
    headings = (Heading(1, "A", 14), Heading(2, "B", 17), Heading(1, "C", 32))
    made = _chunk(Document(text=text, media_type="text/plain", headings=headings), WordTokenizer())
    assert [(piece.text, piece.heading_path, piece.context) for piece in made.chunks] == [
        ("Intro words.", (), ""),
        ("A\n\nB\n\nBody of b.", ("A", "B"), ""),
        ("C\n\nBody of c.", ("C",), ""),
    ]


def test_cuts_prefer_paragraphs_to_sentences_and_sentences_to_words() -> None:
    sentence = "One two three four five six seven eight nine ten."
    paragraphs = "\n\n".join(" ".join([sentence] * 5) for _ in range(6))
    made = _chunk(_plain(paragraphs), WordTokenizer(), target_tokens=150, max_tokens=190)
    assert all(piece.text in paragraphs.split("\n\n") or "\n\n" in piece.text for piece in made.chunks)
    one = " ".join([sentence] * 60)
    assert all(piece.text.endswith("ten.") for piece in _chunk(_plain(one), WordTokenizer(), target_tokens=100).chunks)
    words = "alpha beta " * 900
    for piece in _chunk(_plain(words), WordTokenizer(), target_tokens=100, max_tokens=120).chunks:
        assert set(piece.text.split()) == {"alpha", "beta"}


@pytest.mark.parametrize(
    ("stop", "sentence"),
    [
        ("。", "風力発電機は空気の運動を電気に変える装置である"),
        ("؟ ", "كيف تعمل توربينات الرياح في البحر"),
        ("। ", "पवन ऊर्जा बिजली बनाती है"),
        (". ", "Ein Windrad wandelt Wind in Strom"),
        ("! ", "Ветер вращает лопасти"),
    ],
)
def test_sentences_end_as_their_script_ends_them(stop: str, sentence: str) -> None:
    text = (sentence + stop) * 60
    made = _chunk(_plain(text), _REAL, target_tokens=300, max_tokens=400)
    assert len(made.chunks) > 2
    assert all(piece.text.endswith(stop.strip()) for piece in made.chunks)
    assert all(piece.text.startswith(sentence[:4]) for piece in made.chunks)


def test_no_tiny_tail_is_left() -> None:
    for words in range(90, 700, 7):
        made = _chunk(_plain("word " * words), WordTokenizer(), target_tokens=104, max_tokens=134)
        assert min(piece.token_count for piece in made.chunks) >= 25


def test_a_long_heading_path_takes_a_quarter_of_the_tokens_at_most() -> None:
    title = "very long title " * 40
    text = f"{title}\n\n" + "Body text goes on. " * 200
    headings = (Heading(1, title.strip(), 0),)
    made = _chunk(Document(text=text, media_type="text/plain", headings=headings), WordTokenizer(), target_tokens=100)
    context = made.chunks[-1].context
    assert context.startswith("very long title")
    assert context.endswith("…")
    assert len(WordTokenizer().offsets([context])[0]) <= 512 // 4
    assert made.chunks[-1].heading_path == (title.strip(),)


def test_outer_titles_are_dropped_first() -> None:
    names = [f"{letter * 60} heading" for letter in "abcdef"]
    text, headings = "", []
    for level, name in enumerate(names, 1):
        headings.append(Heading(level, name, len(text)))
        text += f"{name}\n\nBody under it is here.\n\n"
    text += "More body. " * 300
    made = _chunk(
        Document(text=text, media_type="text/plain", headings=tuple(headings)), WordTokenizer(), max_tokens=256
    )
    assert made.chunks[-1].context.endswith(names[-1])
    assert names[0] not in made.chunks[-1].context


def test_none_keeps_a_document_whole_or_says_why_not() -> None:
    short = _chunk(_plain("word " * 480), WordTokenizer(), split_by="none", target_tokens=32, max_tokens=64)
    assert len(short.chunks) == 1
    assert not short.skipped
    long = _chunk(_plain("word " * 700), WordTokenizer(), split_by="none", target_tokens=100, max_tokens=128)
    assert len(long.chunks) > 1
    assert "did not fit in one chunk of 512 tokens" in long.skipped[0].reason


def test_pages_are_those_that_a_chunk_touches() -> None:
    text = "First page words.\n\nSecond page words go on here.\n\nThird."
    pages = (Page(1, 0, 17), Page(2, 19, 47), Page(3, 47, 47), Page(4, 49, 55))
    made = _chunk(Document(text=text, media_type="application/pdf", pages=pages), WordTokenizer())
    assert [(piece.page_start, piece.page_end) for piece in made.chunks] == [(1, 4)]
    headings = (Heading(1, "Second", 19), Heading(1, "Third", 49))
    made = _chunk(Document(text=text, media_type="application/pdf", pages=pages, headings=headings), WordTokenizer())
    assert [(piece.page_start, piece.page_end) for piece in made.chunks] == [(1, 1), (2, 2), (4, 4)]


def test_languages_are_told_and_short_text_is_not_guessed() -> None:
    for report in REPORTS:
        made = _chunk(_plain(report.paragraphs[0]), _REAL)
        assert {piece.language for piece in made.chunks} == {report.language}
    assert _chunk(_plain("OK"), _REAL).chunks[0].language is None
    assert _chunk(_plain("12 34 | 56 78 | 90 12 | 34 56 | 78 90 | 11"), _REAL).chunks[0].language is None


def test_the_same_document_gives_the_same_chunks() -> None:
    document = _plain("\n\n".join(REPORTS[0].paragraphs * 20))
    assert _chunk(document, _REAL) == _chunk(document, _REAL)


class CountingTokenizer(WordTokenizer):
    """Counts the characters that pass through it, and the longest text."""

    def __init__(self) -> None:
        super().__init__()
        self.measured = self.encoded = self.longest = 0

    def offsets(self, texts: Sequence[str]) -> list[list[tuple[int, int]]]:
        self.measured += sum(map(len, texts))
        self.longest = max([self.longest, *map(len, texts)])
        return super().offsets(texts)

    def encode(self, texts: Sequence[str], kind: str) -> list[list[int]]:
        self.encoded += sum(map(len, texts))
        spans = WordTokenizer.offsets(self, texts)
        return [[0] * 4 + [1] * len(row) for row in spans]


@pytest.mark.parametrize(
    "text",
    ["a" * 300_000, "word " * 60_000, "日本語" * 100_000, "." * 300_000, "x\n" * 100_000, " " * 300_000 + "end"],
    ids=["one word", "one line", "no spaces", "dots", "lines", "spaces"],
)
def test_every_character_is_tokenised_twice_and_never_in_one_piece(text: str) -> None:
    tokenizer = CountingTokenizer()
    made = _chunk(_plain(text), tokenizer)
    _assert_sound(_plain(text), made, 512)
    assert tokenizer.measured <= 1.01 * len(text) + 100
    assert tokenizer.encoded <= 1.01 * len(text) + 100
    assert tokenizer.longest <= 8192
