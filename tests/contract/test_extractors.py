"""What every extractor that works alongside the embedding must do, whatever it says."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from trivet.errors import InvalidRequest
from trivet.extractors import EXTRACTORS, by_extractor, check_extractors, extracted
from trivet.values import Chunk, Pipeline


def chunk(text: str, language: str | None = None) -> Chunk:
    return Chunk("doc_1", 0, text, "", (), None, None, 0, len(text), language, (1, 2))


@pytest.mark.parametrize("name", EXTRACTORS)
@given(text=st.text(min_size=1, max_size=300), language=st.sampled_from([None, "de", "ja"]))
def test_it_says_texts_under_its_own_name_and_the_same_of_the_same_chunk(
    name: str, text: str, language: str | None
) -> None:
    said = extracted([name], chunk(text, language))
    assert said == extracted([name], chunk(text, language))
    assert all(key.startswith(f"{name}.") and isinstance(value, str) for key, value in said)
    assert len({key for key, _ in said}) == len(said)
    found = by_extractor([("title", "x"), ("a.b", "c"), *said])
    assert found == ({name: {key.removeprefix(f"{name}."): value for key, value in said}} if said else {})


@pytest.mark.parametrize(
    ("text", "language", "said"),
    [
        ("Hello there.", "en", {"language": "en", "script": "latin"}),
        ("Всё хорошо, да", None, {"script": "cyrillic"}),
        ("第一条 すべての人", "ja", {"language": "ja", "script": "japanese"}),
        ("人人生而自由", None, {"script": "cjk"}),
        ("لكل شخص", "ar", {"language": "ar", "script": "arabic"}),
        ("1 + 2 = 3", None, {}),
    ],
)
def test_the_language_extractor_tells_language_and_script(text: str, language: str | None, said: object) -> None:
    assert by_extractor(extracted(["language_extractor"], chunk(text, language))).get("language_extractor", {}) == said


def test_the_statistics_extractor_counts() -> None:
    said = dict(extracted(["statistics_extractor"], chunk("One two. Three 4!")))
    assert said == {
        "statistics_extractor.characters": "17",
        "statistics_extractor.words": "4",
        "statistics_extractor.sentences": "2",
        "statistics_extractor.digit_share": "0.071",
    }


def test_an_extractor_that_there_is_not_is_refused_by_name() -> None:
    assert check_extractors(["language_extractor", "language_extractor"]) == ("language_extractor",)
    with pytest.raises(InvalidRequest, match="No extractor is called 'face_extractor'"):
        check_extractors(["face_extractor"])
    with pytest.raises(ValidationError, match="No extractor is called 'face_extractor'"):
        Pipeline(also=("face_extractor",))


def test_a_pipeline_without_others_is_written_as_it_was_before_there_were_any() -> None:
    assert "also" not in Pipeline().model_dump(mode="json")
    assert Pipeline(also=("language_extractor",)).model_dump(mode="json")["also"] == ["language_extractor"]
    written = Pipeline(also=("language_extractor",)).model_dump_json()
    assert Pipeline.model_validate_json(written).also == ("language_extractor",)
