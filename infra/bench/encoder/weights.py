"""The models that are measured: random ones of bge-m3's size in its published layout, and the embedded one."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from trivet.encoder.layout import TOKENIZER

#: Key → layers. `real` is the embedded model, which has trained weights and 12 narrow layers.
MODELS = {"24": 24, "6": 6, "1": 1, "real": 12}

_MODULES = [
    {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"},
    {"idx": 1, "name": "1", "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
    {"idx": 2, "name": "2", "path": "2_Normalize", "type": "sentence_transformers.models.Normalize"},
]


def model_folder(key: str, root: Path, embedded: Path) -> Path:
    """The folder of a model, written first where it is not there yet (24 layers: 2.3 GB and a minute).

    250,002 pieces and the tokenizer of the embedded model, which is XLM-RoBERTa's; 8,194 positions; fp32.
    """
    if key == "real":
        return embedded
    folder = root / f"random-{key}"
    if not folder.is_dir():
        from trivet.encoder.random_model import write_random_model

        draft = root / f".random-{key}"
        shutil.rmtree(draft, ignore_errors=True)
        write_random_model(draft, seed=1, hidden=1024, layers=MODELS[key], heads=16, tokenizer=embedded / TOKENIZER)
        # What sentence-transformers and infinity-emb want beside bge-m3's own files.
        (draft / "modules.json").write_text(json.dumps(_MODULES))
        (draft / "sentence_bert_config.json").write_text('{"max_seq_length": 8192, "do_lower_case": false}')
        draft.rename(folder)
    return folder
