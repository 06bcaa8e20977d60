"""Tokens, their places in the text, and what prompts and special tokens add."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from trivet.encoder.canary import canary_texts
from trivet.encoder.models import fake_model, resolve
from trivet.encoder.random_model import write_random_model
from trivet.encoder.tokenizer import Kind, Tokenizer
from trivet.errors import InvalidRequest, ModelInvalid
from trivet.settings import Settings

KINDS: tuple[Kind, ...] = ("passage", "query", "plain")


@pytest.fixture(scope="module", params=["random", "fake"])
def tokenizer(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    if request.param == "fake":
        return Tokenizer.load(fake_model())
    folder = tmp_path_factory.mktemp("model")
    write_random_model(folder, seed=1, layers=1, prompts={"query": "query: ", "passage": "passage: "})
    return Tokenizer.load(resolve(Settings(state_dir=folder, model_hub=False), str(folder)))


def test_ids_begin_with_cls_and_end_with_eos(tokenizer: Tokenizer) -> None:
    for kind in KINDS:
        for ids in tokenizer.encode(["", "some text", *canary_texts().values()], kind):
            assert (ids[0], ids[-1]) == (0, 2)


def test_special_ids_are_those_of_cls_pad_eos_and_unk(tokenizer: Tokenizer) -> None:
    assert tokenizer.special_ids == {0, 1, 2, 3}


@pytest.mark.parametrize("kind", KINDS)
def test_overhead_is_what_a_text_of_nothing_costs(tokenizer: Tokenizer, kind: Kind) -> None:
    assert tokenizer.overhead(kind) == len(tokenizer.encode([""], kind)[0])


@settings(max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=st.text(max_size=80))
def test_a_text_costs_its_bare_tokens_and_the_overhead(tokenizer: Tokenizer, text: str) -> None:
    (spans,) = tokenizer.offsets([text])
    for kind in KINDS:
        assert len(tokenizer.encode([text], kind)[0]) == len(spans) + tokenizer.overhead(kind)


@settings(max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=st.text(max_size=80))
def test_spans_lie_in_the_text_and_ascend(tokenizer: Tokenizer, text: str) -> None:
    (spans,) = tokenizer.offsets([text])
    assert all(0 <= start <= end <= len(text) for start, end in spans)
    assert spans == sorted(spans)


def test_spans_count_code_points_and_cover_every_visible_character(tokenizer: Tokenizer) -> None:
    for text in [*canary_texts().values(), "😀 emoji 𝒳 beyond 16 bits"]:
        (spans,) = tokenizer.offsets([text])
        covered = {at for start, end in spans for at in range(start, end)}
        assert {at for at, letter in enumerate(text) if not letter.isspace()} <= covered


def test_prompts_are_known_by_their_ids(tokenizer: Tokenizer) -> None:
    for ids in tokenizer.prompt_ids():
        starts = [tokenizer.encode(["text"], kind)[0][1 : 1 + len(ids)] for kind in ("passage", "query")]
        assert list(ids) in starts
    assert len(tokenizer.prompt_ids()) == (2 if tokenizer.identity.passage_prompt else 0)


def test_nothing_is_cut_or_padded(tokenizer: Tokenizer) -> None:
    short, long = tokenizer.encode(["a", "a b " * 9000], "plain")
    assert len(long) > 8192 > len(short)


def test_a_tokenizer_file_that_cannot_be_read_is_invalid(local: Settings, folder: Path) -> None:
    (folder / "tokenizer.json").write_text("{}")
    with pytest.raises(ModelInvalid, match=r"tokenizer\.json cannot be read"):
        Tokenizer.load(resolve(local, str(folder)))


def test_a_tokenizer_without_a_special_token_is_invalid(local: Settings, folder: Path) -> None:
    for name in ("tokenizer_config.json", "special_tokens_map.json"):
        (folder / name).write_text('{"eos_token": {"content": "<end>"}}')
    with pytest.raises(ModelInvalid, match="has no token <end>"):
        Tokenizer.load(resolve(local, str(folder)))


def test_a_text_that_is_no_unicode_is_refused_in_a_sentence(tokenizer: Tokenizer) -> None:
    with pytest.raises(InvalidRequest, match="no valid Unicode"):
        tokenizer.encode(["fine", "half \ud83d of one"], "query")
