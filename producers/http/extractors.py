"""What an API request says of an extractor, and the library's pipeline for it.

Mixpeek's `text_extractor` and the product page's `text_embedding` are two names of one extractor.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pydantic import AliasChoices, BaseModel, ConfigDict, Field, ValidationError, field_validator

from trivet.errors import InvalidRequest, ModelInvalid, ModelUnavailable
from trivet.extractors import EXTRACTORS, check_extractors
from trivet.ids import digest
from trivet.settings import Settings
from trivet.values import Pipeline
from trivet.values.requests import Chunking

NAMES = ("text_extractor", "text_embedding")
VERSION = "v1"
#: Names of the model's parameter: the product page's, the API's, and the one of older documentation.
_MODEL = ("model_id", "embedding_model", "model")
#: Tokens per unit, about, over texts in many languages: what a chunk size in another unit is carried out as.
_TOKENS_PER = {"characters": 0.25, "words": 1.4, "sentences": 28.0, "paragraphs": 110.0, "pages": 500.0}
#: No text has more of them; a product with a longer number would not fit a float.
_MOST_UNITS = 1 << 30
#: Parameters that cannot be carried out, each with what happens in its place.
_WITHOUT_EFFECT = {
    "chunk_overlap": "chunks do not overlap",
    "response_shape": "no language model is asked",
    "llm_provider": "no language model is asked",
    "llm_model": "no language model is asked",
    "llm_api_key": "no language model is asked",
    "embedding_task": "the model's own prompts are used",
    "source_type": "the source says itself what it is",
}
_OWN = frozenset({"revision", "dtype", "chunking", "outputs", "also"})
_EXAMPLE: dict[str, Any] = {"name": "text_embedding", "version": "v1", "params": {"model_id": "BAAI/bge-m3"}}


class ExtractorRequest(BaseModel):
    """One extractor of a collection, as either of Mixpeek's two shapes has it."""

    model_config = ConfigDict(extra="ignore", json_schema_extra={"example": _EXAMPLE})

    name: str = Field(
        "text_extractor",
        validation_alias=AliasChoices("name", "feature_extractor_name"),
        description="`text_extractor`, or `text_embedding`, which is the same.",
        max_length=100,
    )
    version: str = Field(VERSION, max_length=20)
    #: The generated client fills `parameters` by itself with another extractor's; `params` it leaves alone.
    parameters: dict[str, Any] | None = Field(None, description="Chunking and the model; see the list of extractors.")
    params: dict[str, Any] | None = Field(None, description="The same under its other name; it wins.")
    input_mappings: dict[str, Any] | None = Field(
        None, description="Input of the extractor (`text`) → property of the object's blob."
    )
    field_passthrough: list[str | dict[str, Any]] | None = None

    @field_validator("parameters", "params")
    @classmethod
    def _without_secrets(cls, given: dict[str, Any] | None) -> dict[str, Any] | None:
        # It is of no use here, and a collection is shown to whoever may read.
        return given and {name: "…" if name == "llm_api_key" and value else value for name, value in given.items()}

    def asked(self) -> dict[str, Any]:
        """All parameters."""
        return {**(self.parameters or {}), **(self.params or {})}

    def blob_property(self) -> str:
        """The property that the text comes from, or nothing where no mapping says."""
        for key in ("text", "content", "document", "pdf"):
            value = (self.input_mappings or {}).get(key)
            if isinstance(value, str) and value:
                return value.rsplit(".", 1)[-1]
        return ""


def pipeline_of_all(extractors: Sequence[ExtractorRequest]) -> tuple[Pipeline, tuple[str, ...]]:
    """The pipeline of a text extractor and any that work alongside it. Raises `InvalidRequest` as below."""
    embedding = [one for one in extractors if one.name not in EXTRACTORS]
    if len(embedding) != 1:
        raise InvalidRequest(
            f"A collection has one text extractor, and {len(embedding)} were given.",
            hint=f"Alongside it there may be {', '.join(EXTRACTORS)}.",
        )
    also = check_extractors(one.name for one in extractors if one.name in EXTRACTORS)
    for one in extractors:
        if one.name in EXTRACTORS and one.version != VERSION:
            raise InvalidRequest(f"{one.name} has no version {one.version[:20]!r}.", hint=f"Use {VERSION}.")
    pipeline, notes = pipeline_of(embedding[0])
    return pipeline.model_copy(update={"also": check_extractors((*pipeline.also, *also))}), notes


def pipeline_of(extractor: ExtractorRequest) -> tuple[Pipeline, tuple[str, ...]]:
    """The pipeline, and a sentence for each parameter that is carried out otherwise than asked.

    Raises `InvalidRequest` for another extractor, version or an impossible value.
    """
    if extractor.name not in NAMES or extractor.version != VERSION:
        raise InvalidRequest(
            f"No extractor is called {extractor.name[:80]!r} in version {extractor.version[:20]!r}.",
            hint=f"Use one of {', '.join((*NAMES, *EXTRACTORS))} in version {VERSION}.",
        )
    asked = {name: value for name, value in extractor.asked().items() if value is not None}
    kind = asked.pop("extractor_type", NAMES[0])
    if kind not in NAMES:
        raise InvalidRequest(
            f"The parameters are those of {str(kind)[:80]!r}, and the extractor is {extractor.name!r}.",
            hint="Leave parameters.extractor_type out, or set it to text_extractor.",
        )
    chosen: dict[str, Any] = {name: asked.pop(name) for name in _OWN & asked.keys()}
    models = [asked.pop(name) for name in _MODEL if name in asked]
    if models:
        chosen["model_id"] = _model_id(models[0])
    chunking, notes = _chunking(asked)
    chosen.setdefault("chunking", chunking)
    for name, value in asked.items():
        if value not in ("", 0, False, [], {}):
            notes.append(f"{name} has no effect: {_WITHOUT_EFFECT.get(name, 'it is not known here')}.")
    try:
        return Pipeline(extractor=extractor.name, version=VERSION, **chosen), tuple(notes)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise InvalidRequest(f"Parameter {where} is wrong: {first['msg'].lower()}.") from None


def _model_id(given: Any) -> Any:
    """As it is given. Raises `InvalidRequest` for a path: who sends a request names a model, and no folder here."""
    if isinstance(given, str) and (given.startswith(("/", "\\", "~")) or ".." in given.replace("\\", "/").split("/")):
        raise InvalidRequest(f"The model id {given[:80]!r} is a path.", hint="Name a model, such as BAAI/bge-m3.")
    return given


def _chunking(asked: dict[str, Any]) -> tuple[Chunking, list[str]]:
    """`split_by` and `chunk_size` in tokens; what was read is taken out of `asked`."""
    unit, size = asked.pop("split_by", None), asked.pop("chunk_size", None)
    if unit is None and size is None:
        return Chunking(), []
    if unit == "none":
        return Chunking(split_by="none"), []
    if size is not None and (isinstance(size, bool) or not isinstance(size, int) or size < 1):
        raise InvalidRequest(f"chunk_size is {str(size)[:40]!r}, which is no number of at least 1.")
    if unit in (None, "tokens"):
        tokens = size or Chunking().target_tokens
        return _sized(tokens), []
    if unit == "markdown":
        return Chunking(), ["split_by markdown: chunks end at headings, and have about 400 tokens."]
    if not isinstance(unit, str) or unit not in _TOKENS_PER:
        raise InvalidRequest(
            f"split_by is {str(unit)[:40]!r}.", hint=f"Use none, tokens, markdown, {', '.join(_TOKENS_PER)}."
        )
    tokens = round(min(size, _MOST_UNITS) * _TOKENS_PER[unit]) if size else Chunking().target_tokens
    made = _sized(tokens)
    return made, [f"split_by {unit} is carried out in tokens: about {made.target_tokens} in a chunk."]


def _sized(tokens: int) -> Chunking:
    target = min(max(tokens, 16), 8192)
    return Chunking(target_tokens=target, max_tokens=min(max(round(1.28 * target), 32), 8192))


# ---------------------------------------------------------------- what a collection has


class VectorIndex(BaseModel):
    """One leg of what is stored: where retrievers find it."""

    name: str
    feature_uri: str = Field(examples=["mixpeek://text_extractor@v1/baai_bge_m3_v1"])
    type: str = Field(description="dense, sparse or multi_dense.")
    #: As Mixpeek nests it.
    index: dict[str, Any]


def slug(model: str) -> str:
    """A model's name in a feature URI: `BAAI/bge-m3` is `baai_bge_m3_v1`."""
    return "".join(c if c.isalnum() else "_" for c in model.lower()) + "_v1"


def extractor_id(extractor: ExtractorRequest) -> str:
    """`feat_` and 12 hex digits over what it does."""
    return "feat_" + digest([extractor.name, extractor.version, extractor.asked()], 12)


def running_model(settings: Settings, pipeline: Pipeline) -> tuple[str, int | None]:
    """Name and dense dimensions of the model that answers to the pipeline's here, or what was asked for and None."""
    from trivet.encoder.models import resolve

    try:
        identity = resolve(settings, pipeline.model_id, pipeline.revision).identity
    except (InvalidRequest, ModelUnavailable, ModelInvalid, ImportError):
        return pipeline.model_id, None
    return identity.name, pipeline.outputs.dense_dimensions or identity.dimensions


def vector_indexes(settings: Settings, pipeline: Pipeline) -> list[VectorIndex]:
    """The legs that a collection stores, dense first. They are named by the model that runs.

    A retriever's URI may also name the model that was asked for.
    """
    model, dimensions = running_model(settings, pipeline)
    base = f"mixpeek://text_extractor@{VERSION}/{slug(model)}"
    outputs = pipeline.outputs
    legs = [
        ("", "dense", outputs.dense, dimensions),
        ("_sparse", "sparse", outputs.sparse, None),
        ("_colbert", "multi_dense", outputs.colbert != "off", None),
    ]
    return [
        VectorIndex(
            name=f"text_extractor_{VERSION}_embedding{suffix}",
            feature_uri=base + suffix,
            type=kind,
            index={
                "name": f"text_extractor_{VERSION}_embedding{suffix}",
                "description": f"The {kind} leg of {model}.",
                "type": kind,
                "dimensions": width,
                "distance": "cosine",
                "inference_name": slug(model) + suffix,
                "model": model,
                "requested_model": pipeline.model_id,
            },
        )
        for suffix, kind, stored, width in legs
        if stored
    ]
