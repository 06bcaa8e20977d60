"""`make eval` in small: made-up sets, and the fake encoder."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from infra.eval import tables
from infra.eval.quality import Scored, quality_table, tuned
from infra.eval.sets import TestSet as Known
from infra.eval.storage import storage_tables
from trivet.evaluation import Dataset
from trivet.evaluation.encoding import TextEncoder
from trivet.evaluation.evaluate import Plan, score
from trivet.evaluation.lists import Lists
from trivet.retrieval import Fusion, Leg, LegScore
from trivet.settings import Settings

IDS = tuple("abcdef")


def made(manual: str, texts: tuple[str, ...] = IDS) -> Known:
    judgements = {key: {key: 1} for key in IDS}
    return Known(manual, Dataset(f"{manual}, titles", "beir", "test", IDS, texts, IDS, texts, judgements))


def found_by(manual: str, good: Leg) -> Scored:
    """A set on which one leg is right for every query and the others are random."""
    rng = np.random.default_rng(3)

    def listed(query: str, leg: Leg) -> dict[str, LegScore]:
        scores = {key: float(key == query) if leg == good else float(rng.random()) for key in IDS}
        order = sorted(IDS, key=lambda key: -scores[key])
        return {key: LegScore(scores[key], rank) for rank, key in enumerate(order, 1)}

    lists: dict[str, Lists] = {query: {leg: listed(query, leg) for leg in Leg} for query in IDS}
    return Scored(made(manual), lists)


def test_weights_for_a_manual_come_from_the_other_alone() -> None:
    for own in Leg:
        sparse_elsewhere = tuned([found_by("one", own), found_by("two", Leg.SPARSE)], lambda _text: None)["one"]
        dense_elsewhere = tuned([found_by("one", own), found_by("two", Leg.DENSE)], lambda _text: None)["one"]
        assert sparse_elsewhere.weight(Leg.SPARSE) > dense_elsewhere.weight(Leg.SPARSE) == 0


def test_the_table_says_where_fusion_loses_against_the_best_leg() -> None:
    sets = [found_by("one", Leg.DENSE), found_by("two", Leg.SPARSE)]
    sparse_alone = Fusion(weights={Leg.SPARSE: 1.0}, normalization="none")
    text = quality_table(sets, {"one": sparse_alone, "two": sparse_alone})
    first, second, macro = (line for line in text.splitlines()[2:5])
    assert "| 1.000 |" in first
    assert second.endswith("| sparse | +0.000 | +0.000 |")
    assert macro.startswith("| **macro average** |")
    losing = text.splitlines()[-1]
    assert "one, titles (-" in losing
    assert "two, titles" not in losing


def test_storage_tables_have_every_option_with_its_bytes(tmp_path: Path) -> None:
    encoder = TextEncoder(Settings(state_dir=tmp_path), "fake")
    one = made("one", ("apples grow", "boats sail", "cars drive", "doors open", "ears hear", "fires burn"))
    known = score(one.data, encoder, Plan({}))
    text = storage_tables([(one, known)], encoder, {"one": Fusion()}, lambda _text: None)
    (block,) = encoder.blocks(one.data.documents, "passage")
    vectors = len(block.legs.colbert) / len(IDS)
    rows = [line for line in text.splitlines() if line.startswith(("| 64", "| float16", "| int8"))]
    assert rows[0] == "| 64 | 256 | 1.000 | 1.000 |"
    assert rows[1] == f"| float16 | 1 | {vectors * 2 * 64:,.0f} | 1.000 | 1.000 |"
    assert rows[4].startswith(f"| int8 | 1 | {vectors * (64 + 4):,.0f} |")
    assert len(rows) == 7


def test_a_page_keeps_what_stands_around_its_tables(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- measured: begin -->\nold\n<!-- measured: end -->\nafter\n", "utf-8")
    for _ in range(2):
        tables.write(page, "new\n")
        text = page.read_text("utf-8")
        assert text == "before\n<!-- measured: begin -->\n\nnew\n\n<!-- measured: end -->\nafter\n"
