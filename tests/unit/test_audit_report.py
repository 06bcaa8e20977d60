"""What an audit reports, and which keys of Redis it takes for what."""

from __future__ import annotations

import pytest

from trivet.audit.report import _NAMED, Findings
from trivet.ledger.redis_auditing import Place


def test_the_same_finding_twice_counts_once_and_its_repair_is_what_stays() -> None:
    found = Findings(repair=True)
    found.add("item_lost", "a", "it is lost")
    found.add("item_lost", "a", "it is lost", repaired=True)
    found.add("item_lost", "a", "it is lost")
    found.add("item_lost", "b", "it is lost")
    report = found.report()
    assert [(finding.where, finding.repaired) for finding in report.findings] == [("a", True), ("b", False)]
    assert (report.found, report.left) == (2, 1)


def test_findings_beyond_those_that_are_named_are_counted() -> None:
    found = Findings(repair=True)
    for n in range(_NAMED + 5):
        found.add("ghost", str(n), "it is none", repaired=n % 2 == 0)
    report = found.report()
    assert (len(report.findings), report.found) == (_NAMED, _NAMED + 5)
    assert report.left == sum(n % 2 for n in range(_NAMED + 5))


@pytest.mark.parametrize(
    ("key", "fields"),
    [
        ("line:embed:1|team.a:48652319", {"stage": "embed", "flow": "1|team.a", "queue": "48652319"}),
        ("line:prepare:0|x:org/m:v1@r in fp32", {"stage": "prepare", "flow": "0|x", "queue": "org/m:v1@r in fp32"}),
        ("suspects:commit:any", {"stage": "commit", "queue": "any"}),
        ("parked:default/docs", {"name": "default/docs"}),
        ("held:host:12:ab", {"name": "host:12:ab"}),
        ("leases", {}),
    ],
)
def test_a_place_of_work_items_is_known_by_its_key(key: str, fields: dict[str, str]) -> None:
    assert Place.of(key) == Place(key.partition(":")[0], key, **fields)


@pytest.mark.parametrize("key", ["lines:embed:1|x", "task:task_1", "waiting:embed", "line:embed", "events"])
def test_other_keys_are_no_places(key: str) -> None:
    assert Place.of(key) is None
