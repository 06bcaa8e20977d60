"""The model's own tokenizer, through the `tokenizers` package alone: what a CPU role needs of a model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Literal

from trivet.encoder.layout import TOKENIZER, read_json
from trivet.encoder.models import FAKE, ResolvedModel
from trivet.errors import InvalidRequest, MissingDependency, ModelInvalid
from trivet.values import ModelIdentity

if TYPE_CHECKING:
    from tokenizers import Tokenizer as Backend

#: Whether a text is stored, asks, or is taken as it is; the model's prompt for it goes before the text.
Kind = Literal["passage", "query", "plain"]

#: Roles of XLM-RoBERTa's special tokens whose sparse weights are dropped, with their default names.
_SPECIAL = {"cls_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>"}


@dataclass(frozen=True, slots=True)
class TokenRow:
    """The tokens of one text as the encoder takes them, and where each stands in the text."""

    ids: tuple[int, ...]
    #: Per id `[start, end)` in the text without the prompt, in Unicode code points, no white space at its ends; None
    #: for special tokens, tokens of the prompt, and tokens that stand for white space alone.
    spans: tuple[tuple[int, int] | None, ...]


@dataclass(frozen=True)
class Tokenizer:
    """Text to token ids, with the prompts of the model. Neither pads nor cuts. Safe to share between threads."""

    identity: ModelIdentity
    backend: Backend
    #: Ids of CLS, EOS, PAD and UNK: they carry no sparse weight.
    special_ids: frozenset[int]

    @classmethod
    def load(cls, model: ResolvedModel) -> Tokenizer:
        """Read `tokenizer.json`. Raises `ModelInvalid`, and `MissingDependency` without the package `tokenizers`."""
        try:
            from tokenizers import Tokenizer as Backend
        except ImportError:
            raise MissingDependency(
                "Tokenising needs the package tokenizers, which is not installed.",
                hint="Run: pip install 'trivet[prepare]'",
            ) from None
        if model.identity.name == FAKE:
            from trivet.encoder.fake import tokenizer_backend

            backend, names = tokenizer_backend(), _SPECIAL
        else:
            path = model.folder / TOKENIZER
            try:
                backend = Backend.from_file(str(path))
            except Exception as error:  # the Rust side raises bare Exception for every fault
                raise ModelInvalid(f"The tokenizer {path} cannot be read: {error}.") from error
            names = _special_names(model)
        backend.no_padding()
        backend.no_truncation()
        ids = {name: backend.token_to_id(name) for name in names.values()}
        unknown = [name for name, found in ids.items() if found is None]
        if unknown:
            raise ModelInvalid(f"The tokenizer of {model.identity.name!r} has no token {' or '.join(unknown)}.")
        return cls(model.identity, backend, frozenset(found for found in ids.values() if found is not None))

    def offsets(self, texts: Sequence[str]) -> list[list[tuple[int, int]]]:
        """Per text the character spans [start, end) of its bare tokens: no prompt, no special tokens."""
        return [row.offsets for row in self.backend.encode_batch(list(texts), add_special_tokens=False)]

    def encode(self, texts: Sequence[str], kind: Kind) -> list[list[int]]:
        """Per text the ids of `<s>` + prompt + text + `</s>`, as the encoder takes them.

        Raises `InvalidRequest` for a text with a lone surrogate, as an argument that is no UTF-8 has it.
        """
        prompt = self.prompt(kind)
        try:
            return [row.ids for row in self.backend.encode_batch_fast([prompt + text for text in texts])]
        except TypeError:  # all that the Rust side says of it
            raise InvalidRequest("A text to encode is no valid Unicode.", hint="Give it in UTF-8.") from None

    def placed(self, texts: Sequence[str], kind: Kind) -> list[TokenRow]:
        """Per text the same ids as `encode` gives, and where each stands in the text."""
        prompt = self.prompt(kind)
        rows = []
        for text, found in zip(texts, self.backend.encode_batch([prompt + text for text in texts]), strict=True):
            blank = {token for token in set(found.ids) if not self.piece(token)}
            spans = (
                None if special or token in blank else _inside(text, start - len(prompt), end - len(prompt))
                for token, (start, end), special in zip(
                    found.ids, found.offsets, found.special_tokens_mask, strict=True
                )
            )
            rows.append(TokenRow(tuple(found.ids), tuple(spans)))
        return rows

    def piece(self, token_id: int) -> str:
        """The text that a token stands for, without white space: empty for a token that is nothing else."""
        return str(self.backend.decode([token_id], skip_special_tokens=False)).strip()

    def overhead(self, kind: Kind) -> int:
        """Tokens that prompt and special tokens add to a text."""
        return self._overheads[kind]

    def prompt(self, kind: Kind) -> str:
        """What the model wants before a text of this kind; often empty."""
        return {"passage": self.identity.passage_prompt, "query": self.identity.query_prompt, "plain": ""}[kind]

    def prompt_ids(self) -> tuple[tuple[int, ...], ...]:
        """The ids of the model's prompts that are not empty, without special tokens."""
        prompts = sorted({self.identity.passage_prompt, self.identity.query_prompt} - {""})
        rows = self.backend.encode_batch_fast(prompts, add_special_tokens=False)
        return tuple(tuple(row.ids) for row in rows)

    @cached_property
    def _overheads(self) -> dict[Kind, int]:
        kinds: tuple[Kind, ...] = ("passage", "query", "plain")
        return {kind: len(self.encode([""], kind)[0]) for kind in kinds}


def _inside(text: str, start: int, end: int) -> tuple[int, int] | None:
    """`[start, end)` as far as it lies in the text, without white space at its ends; None if nothing is left."""
    start, end = max(start, 0), min(end, len(text))
    while start < end and text[start].isspace():
        start += 1
    while end > start and text[end - 1].isspace():
        end -= 1
    return (start, end) if start < end else None


def _special_names(model: ResolvedModel) -> dict[str, str]:
    stated = read_json(model.folder, "special_tokens_map.json") | read_json(model.folder, "tokenizer_config.json")
    names = {}
    for role, default in _SPECIAL.items():
        value = stated.get(role) or default
        names[role] = str(value["content"] if isinstance(value, dict) else value)
    return names
