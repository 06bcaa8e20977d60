"""A requested model resolves to exactly one model, by its own name, or to an error that says what to do."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from trivet.encoder.layout import REQUIRED
from trivet.encoder.models import resolve
from trivet.encoder.random_model import write_random_model
from trivet.errors import InvalidRequest, ModelInvalid, ModelUnavailable
from trivet.settings import Settings


def edit(folder: Path, file: str, /, **changes: Any) -> None:
    path = folder / file
    value = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps(value | changes))


def test_an_absolute_folder_is_a_model(local: Settings, folder: Path) -> None:
    model = resolve(local, str(folder))
    assert model.folder == folder
    assert model.identity.name == "random"
    assert (model.identity.dimensions, model.identity.colbert_dimensions) == (32, 32)
    assert (model.identity.max_tokens, model.identity.pooling) == (128, "cls")


def test_a_folder_under_the_models_folder_answers_to_its_path(local: Settings, folder: Path) -> None:
    target = local.models_folder / "BAAI" / "bge-m3"
    shutil.copytree(folder, target)
    assert resolve(local, "BAAI/bge-m3").identity.name == "BAAI/bge-m3"


def test_an_alias_names_the_model_that_runs(local: Settings, folder: Path) -> None:
    edit(folder, "trivet_model.json", name="lab/tiny", revision="r7", provenance="Made up.", licence="MIT")
    model = resolve(local.model_copy(update={"model_aliases": {"BAAI/bge-m3": str(folder)}}), "BAAI/bge-m3", "abc")
    assert (model.identity.requested, model.identity.name) == ("BAAI/bge-m3", "lab/tiny")
    assert model.identity.revision == "r7"
    assert model.provenance == "Made up. Licence: MIT."


def test_without_alias_hub_and_folder_the_error_names_both_ways_out(local: Settings) -> None:
    with pytest.raises(ModelUnavailable) as caught:
        resolve(local, "BAAI/bge-m3")
    assert "'BAAI/bge-m3'" in caught.value.message
    assert "TRIVET_MODEL_HUB" in caught.value.message
    assert "TRIVET_MODEL_ALIASES" in caught.value.hint
    assert str(local.models_folder.absolute() / "BAAI" / "bge-m3") in caught.value.hint


def test_a_missing_embedded_model_says_how_to_build_it(local: Settings) -> None:
    with pytest.raises(ModelUnavailable, match=r"alias of 'embedded'.*python -m trivet\.embedded\.model"):
        resolve(local.model_copy(update={"model_aliases": {"m": "embedded"}}), "m")


@pytest.mark.parametrize("name", REQUIRED)
def test_a_folder_that_lacks_a_part_is_invalid_and_the_part_is_named(local: Settings, folder: Path, name: str) -> None:
    (folder / name).unlink()
    with pytest.raises(ModelInvalid, match=f"lacks {name}"):
        resolve(local, str(folder))


def test_both_missing_heads_are_named(local: Settings, folder: Path) -> None:
    for name in ("sparse_linear.pt", "colbert_linear.pt"):
        (folder / name).unlink()
    with pytest.raises(ModelInvalid, match=r"sparse_linear\.pt and colbert_linear\.pt"):
        resolve(local, str(folder))


@pytest.mark.parametrize("model_id", ["../secret", "a/../../b", "", " "])
def test_a_name_cannot_lead_out_of_the_models_folder(local: Settings, model_id: str) -> None:
    with pytest.raises(InvalidRequest, match="leads out"):
        resolve(local, model_id)


def test_the_encoder_key_needs_no_weights_and_no_place(local: Settings, folder: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere" / "random"
    shutil.copytree(folder, elsewhere)
    (elsewhere / "model.safetensors").unlink()
    assert resolve(local, str(folder)).identity.encoder_key == resolve(local, str(elsewhere)).identity.encoder_key


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("config.json", {"layer_norm_eps": 1e-12}),
        ("1_Pooling/config.json", {"pooling_mode_cls_token": False, "pooling_mode_mean_tokens": True}),
        ("config_sentence_transformers.json", {"prompts": {"query": "q: "}}),
        ("sentence_bert_config.json", {"max_seq_length": 64}),
        ("trivet_model.json", {"revision": "2"}),
        ("trivet_model.json", {"name": "other"}),
        ("tokenizer.json", {"version": "1.1"}),
    ],
)
def test_the_encoder_key_changes_with_what_changes_vectors(
    local: Settings, folder: Path, name: str, changes: dict[str, Any]
) -> None:
    before = resolve(local, str(folder)).identity.encoder_key
    edit(folder, name, **changes)
    assert resolve(local, str(folder)).identity.encoder_key != before


def test_the_encoder_key_does_not_change_with_who_wrote_the_config(local: Settings, folder: Path) -> None:
    before = resolve(local, str(folder)).identity
    edit(folder, "config.json", transformers_version="9.9", use_cache=True)
    assert resolve(local, str(folder)).identity == before


def test_another_head_is_another_revision_where_the_folder_states_none(local: Settings, tmp_path: Path) -> None:
    one = write_random_model(tmp_path / "1" / "m", seed=1, layers=1)
    other = write_random_model(tmp_path / "2" / "m", seed=2, layers=1)
    assert resolve(local, str(one)).identity.revision != resolve(local, str(other)).identity.revision


def test_a_revision_that_the_folder_does_not_hold_is_unavailable(local: Settings, folder: Path) -> None:
    edit(folder, "trivet_model.json", revision="r1")
    assert resolve(local, str(folder), "r1").identity.revision == "r1"
    with pytest.raises(ModelUnavailable, match=r"'r2'.*holds 'r1'"):
        resolve(local, str(folder), "r2")


def test_the_commit_of_a_downloaded_folder_is_its_revision(local: Settings, folder: Path) -> None:
    note = folder / ".cache/huggingface/download/config.json.metadata"
    note.parent.mkdir(parents=True)
    note.write_text("5617a9f61b028005a4858fdac845db406aefb181\netag\n1.0\n")
    assert resolve(local, str(folder)).identity.revision.startswith("5617a9f")


@pytest.mark.parametrize(
    ("prompts", "passage", "query"),
    [
        ({"query": "query: ", "passage": "passage: "}, "passage: ", "query: "),
        ({"query": "q ", "document": "d "}, "d ", "q "),
        ({}, "", ""),
        (None, "", ""),
    ],
)
def test_prompts_come_from_the_sentence_transformers_config(
    local: Settings, folder: Path, prompts: dict[str, str] | None, passage: str, query: str
) -> None:
    edit(folder, "config_sentence_transformers.json", prompts=prompts)
    identity = resolve(local, str(folder)).identity
    assert (identity.passage_prompt, identity.query_prompt) == (passage, query)


@pytest.mark.parametrize(
    ("name", "changes", "tokens"),
    [
        ("sentence_bert_config.json", {"max_seq_length": 100}, 100),
        ("sentence_bert_config.json", {"max_seq_length": None}, 128),
        ("tokenizer_config.json", {"model_max_length": 1e30}, 128),
        ("tokenizer_config.json", {"model_max_length": 90}, 90),
    ],
)
def test_the_longest_input_is_the_lowest_limit(
    local: Settings, folder: Path, name: str, changes: dict[str, Any], tokens: int
) -> None:
    edit(folder, name, **changes)
    assert resolve(local, str(folder)).identity.max_tokens == tokens


def test_pooling_as_newer_sentence_transformers_write_it(local: Settings, folder: Path) -> None:
    (folder / "1_Pooling/config.json").write_text('{"pooling_mode": "mean"}')
    assert resolve(local, str(folder)).identity.pooling == "mean"


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("config.json", "{", "config.json .* cannot be read"),
        ("config.json", "[]", "no JSON object"),
        ("config.json", '{"model_type": "bert"}', "type 'bert'"),
        ("config.json", '{"model_type": "xlm-roberta"}', "incomplete"),
        ("1_Pooling/config.json", '{"pooling_mode_max_tokens": true}', "neither cls nor mean"),
    ],
)
def test_a_folder_that_is_no_such_model_is_invalid(
    local: Settings, folder: Path, name: str, text: str, message: str
) -> None:
    (folder / name).write_text(text)
    with pytest.raises(ModelInvalid, match=message):
        resolve(local, str(folder))


def test_the_fake_answers_to_its_name_alone(local: Settings) -> None:
    assert resolve(local, "fake").identity.name == "fake"
    through_alias = resolve(local.model_copy(update={"model_aliases": {"m": "fake"}}), "m").identity
    assert (through_alias.requested, through_alias.name) == ("m", "fake")
    with pytest.raises(ModelUnavailable):
        resolve(local, "fake-model")


def test_the_seam_imports_neither_numpy_nor_torch() -> None:
    code = (
        "import sys; from trivet.encoder import models, tokenizer, batching, layout; "
        "from trivet.settings import Settings; models.resolve(Settings(), 'fake'); "
        "print(sorted({'numpy', 'torch', 'transformers', 'tokenizers'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
