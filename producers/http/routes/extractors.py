"""Which extractors there are."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from pydantic import BaseModel, Field

from producers.http.context import Context, ContextOf
from producers.http.extractors import NAMES, VERSION, running_model, vector_indexes
from producers.http.route import router as make_router
from trivet.extractors import EXTRACTORS
from trivet.resources.refusals import unknown_resource
from trivet.values import Pipeline
from trivet.values.requests import Chunking, Outputs

router = make_router("extractors")


class ExtractorDescription(BaseModel):
    """An extractor."""

    feature_extractor_name: str
    version: str
    feature_extractor_id: str
    description: str
    icon: str = "text"
    category: str = "text"
    source: str = "builtin"
    input_schema: dict[str, Any]
    output_schema: dict[str, Any]
    parameter_schema: dict[str, Any]
    supported_input_types: list[str]
    max_inputs: dict[str, int]
    default_parameters: dict[str, Any]
    required_vector_indexes: list[dict[str, Any]]
    required_payload_indexes: list[dict[str, Any]]
    model: str | None = Field(None, description="The model that runs here; none where the extractor has none.")
    requested_model: str | None = None


@router.get(
    "/collections/features/extractors", operation_id="list_feature_extractors", summary="List feature extractors"
)
def list_(context: ContextOf) -> list[ExtractorDescription]:
    """Nobody needs a key for this: Mixpeek's generated client sends none."""
    return [*(_described(context, name) for name in NAMES), *(_alongside(name) for name in EXTRACTORS)]


@router.get(
    "/collections/features/extractors/{feature_extractor_id}",
    operation_id="get_feature_extractor",
    summary="Get a feature extractor",
)
def get(context: ContextOf, feature_extractor_id: str) -> ExtractorDescription:
    """By its id, `text_extractor_v1`, or by its name."""
    for name in NAMES:
        if feature_extractor_id in (name, f"{name}_{VERSION}"):
            return _described(context, name)
    for name in EXTRACTORS:
        if feature_extractor_id in (name, f"{name}_{VERSION}"):
            return _alongside(name)
    raise unknown_resource("feature extractor", feature_extractor_id)


def _described(context: Context, name: str) -> ExtractorDescription:
    pipeline = Pipeline(model_id=context.settings.embed_model)
    model, _ = running_model(context.settings, pipeline)
    return ExtractorDescription(
        feature_extractor_name=name,
        version=VERSION,
        feature_extractor_id=f"{name}_{VERSION}",
        description="Cuts text into chunks and embeds each: a dense vector, sparse term weights and ColBERT vectors.",
        input_schema={"type": "object", "properties": {"text": {"type": "string"}}, "required": ["text"]},
        output_schema={
            "type": "object",
            "properties": {"text": {"type": "string"}, "text_extractor_v1_embedding": {"type": "array"}},
        },
        parameter_schema={
            "type": "object",
            "properties": {
                "model_id": {"type": "string", "default": pipeline.model_id},
                "split_by": {
                    "type": "string",
                    "enum": ["none", "tokens", "markdown", "characters", "words", "sentences", "paragraphs", "pages"],
                },
                "chunk_size": {"type": "integer", "minimum": 1},
                "dtype": {"type": "string", "enum": ["auto", "fp32", "bf16", "fp16", "int8"]},
                "chunking": Chunking.model_json_schema(),
                "outputs": Outputs.model_json_schema(),
            },
        },
        supported_input_types=["text", "string", "pdf", "document", "url"],
        max_inputs={"text": 1},
        default_parameters={"model_id": pipeline.model_id, "chunking": Chunking().model_dump(mode="json")},
        required_vector_indexes=[
            {
                "feature_uri": one.feature_uri,
                "name": one.name,
                "description": one.index["description"],
                # Mixpeek's word for one index, beside one of several in one.
                "type": "single",
                "index": one.index,
            }
            for one in vector_indexes(context.settings, pipeline)
        ],
        required_payload_indexes=[],
        model=model,
        requested_model=pipeline.model_id,
    )


def _alongside(name: str) -> ExtractorDescription:
    module = import_module(EXTRACTORS[name].partition(":")[0])
    return ExtractorDescription(
        feature_extractor_name=name,
        version=VERSION,
        feature_extractor_id=f"{name}_{VERSION}",
        description=(module.__doc__ or name).strip().splitlines()[0],
        input_schema={"type": "object", "properties": {"text": {"type": "string"}}, "required": ["text"]},
        output_schema={"type": "object", "additionalProperties": {"type": "string"}},
        parameter_schema={"type": "object", "properties": {}},
        supported_input_types=["text", "string", "pdf", "document", "url"],
        max_inputs={"text": 1},
        default_parameters={},
        required_vector_indexes=[],
        required_payload_indexes=[],
    )
