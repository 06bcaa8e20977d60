"""Which source URLs a prefix takes with it."""

from __future__ import annotations

import pytest

from trivet.deleting.prefixes import under_prefix
from trivet.errors import InvalidRequest


@pytest.mark.parametrize(
    ("prefix", "url", "below"),
    [
        ("https://host/a", "https://host/a", True),
        ("https://host/a", "https://host/a/b", True),
        ("https://host/a", "https://host/a?…", True),
        ("https://host/a", "https://host/ab", False),
        ("https://host/a/", "https://host/a/b", True),
        ("https://host/a/", "https://host/a", False),
        ("https://host", "https://host/anything", True),
        ("https://host", "https://host.example/anything", False),
        ("https://host", "http://host/anything", False),
        ("HTTPS://Host:443/a", "https://host/a/b", True),
        ("https://host:444/a", "https://host/a/b", False),
        ("s3://bucket/team", "s3://bucket/team/doc.pdf", True),
        ("s3://bucket/team", "s3://bucket2/team/doc.pdf", False),
        ("https://host/", "data:text/plain,…", False),
        ("https://host/", "(unreadable URL)", False),
        ("https://host/", "", False),
    ],
)
def test_a_prefix_ends_where_a_folder_does(prefix: str, url: str, below: bool) -> None:
    assert under_prefix(prefix)(url) is below


@pytest.mark.parametrize("prefix", ["", "host/a", "ftp://host/a", "data:,x", "https://host/a?key=1"])
def test_what_names_no_folder_is_refused(prefix: str) -> None:
    with pytest.raises(InvalidRequest):
        under_prefix(prefix)
