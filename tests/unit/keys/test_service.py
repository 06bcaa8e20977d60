"""API keys: made, and proved."""

from __future__ import annotations

import hmac

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr

from trivet.clock import ManualClock
from trivet.errors import InvalidRequest, Unauthenticated, UnknownKey
from trivet.keys import EVERY_NAMESPACE, Scope
from trivet.keys.memory import MemoryKeys
from trivet.keys.secrets import hashed, joined, matches, new_key, split
from trivet.keys.service import Keys
from trivet.logs import redact_text
from trivet.settings import Settings


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def keys(clock: ManualClock) -> Keys:
    return Keys(Settings(), book=MemoryKeys(clock), clock=clock)


def test_a_made_key_proves_itself_and_is_not_kept(keys: Keys) -> None:
    made, text = keys.create("ns", name="app", scopes=["read"])
    assert keys.authenticate(text) == made
    assert text not in repr(made)
    assert split(text)[1] not in made.hashes[0].value  # type: ignore[index] # a key that is whole
    assert text.startswith(made.key_id)


def test_every_wrong_key_is_refused_in_the_same_words(keys: Keys, clock: ManualClock) -> None:
    made, text = keys.create("ns", expires_days=1)
    _, other = keys.create("ns")
    revoked, gone = keys.create("ns")
    keys.revoke(revoked.key_id)
    expiring, late = keys.create("ns", expires_days=0.5)
    clock.advance(0.6 * 86_400)
    wrong = [
        "",
        "nonsense",
        text[:-1],
        text + "0",
        text.upper(),
        made.key_id,
        joined(made.key_id, split(other)[1]),  # type: ignore[index] # a key that is whole
        joined("sk_0000000000000000", "0" * 64),
        gone,
        late,
        f"{text}\n",
    ]
    said = set()
    for each in wrong:
        with pytest.raises(Unauthenticated) as caught:
            keys.authenticate(each)
        said.add(str(caught.value))
    assert len(said) == 1
    assert keys.authenticate(text).key_id == made.key_id
    assert expiring.key_id != made.key_id


def test_the_comparison_is_hmac_compare_digests(keys: Keys, monkeypatch: pytest.MonkeyPatch) -> None:
    _, text = keys.create("ns")
    monkeypatch.setattr("trivet.keys.secrets.hmac.compare_digest", lambda a, b: False)
    with pytest.raises(Unauthenticated):
        keys.authenticate(text)
    monkeypatch.setattr("trivet.keys.secrets.hmac.compare_digest", lambda a, b: True)
    assert keys.authenticate(text[:-1] + ("0" if text[-1] != "0" else "1"))


def test_an_unknown_id_is_compared_as_often_as_a_known_one_is_at_least_once(
    keys: Keys, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    real = hmac.compare_digest

    def counted(a: str, b: str) -> bool:
        asked.append(b)
        return real(a, b)

    monkeypatch.setattr("trivet.keys.secrets.hmac.compare_digest", counted)
    with pytest.raises(Unauthenticated):
        keys.authenticate(joined("sk_0123456789abcdef", "0" * 64))
    assert asked


def test_a_hash_of_one_key_opens_no_other() -> None:
    pepper = SecretStr("")
    assert hashed("sk_a", "x", pepper) != hashed("sk_b", "x", pepper)
    assert not matches("0" * 64, [])
    assert not matches("0" * 64, ["0" * 64])


def test_without_the_pepper_nobody_makes_a_key() -> None:
    clock = ManualClock()
    book = MemoryKeys(clock)
    peppered = Keys(Settings(key_pepper=SecretStr("pepper")), book=book, clock=clock)
    plain = Keys(Settings(), book=book, clock=clock)
    _, text = plain.create("ns")
    with pytest.raises(Unauthenticated):
        peppered.authenticate(text)
    assert peppered.authenticate(peppered.create("ns")[1])


def test_rotation_keeps_the_id_and_lets_both_secrets_in_for_the_overlap(keys: Keys, clock: ManualClock) -> None:
    made, old = keys.create("ns")
    again, new = keys.rotate(made.key_id, overlap_seconds=60)
    assert again.key_id == made.key_id
    assert keys.authenticate(old)
    assert keys.authenticate(new)
    clock.advance(61)
    assert keys.authenticate(new)
    with pytest.raises(Unauthenticated):
        keys.authenticate(old)


def test_another_namespaces_key_is_unknown(keys: Keys) -> None:
    made, _ = keys.create("ns")
    for call in (
        lambda: keys.get(made.key_id, "other"),
        lambda: keys.rotate(made.key_id, "other"),
        lambda: keys.revoke(made.key_id, "other"),
        lambda: keys.get("../../etc"),
    ):
        with pytest.raises(UnknownKey):
            call()
    assert keys.get(made.key_id, "ns") == made


def test_scopes_are_what_they_say_and_admin_is_all(keys: Keys) -> None:
    made, _ = keys.create("ns", scopes=["search"])
    assert [scope for scope in Scope if made.allows(scope)] == [Scope.SEARCH]
    admin, _ = keys.create(EVERY_NAMESPACE, scopes=["admin"])
    assert all(admin.allows(scope) for scope in Scope)
    assert admin.reaches("any")
    assert not made.reaches("any")


@pytest.mark.parametrize(
    "wrong",
    [
        {"scopes": ["root"]},
        {"scopes": []},
        {"expires_days": 0},
        {"expires_days": float("nan")},
        {"expires_days": 1e9},
        {"name": "x" * 101},
    ],
)
def test_a_key_that_cannot_be_is_refused(keys: Keys, wrong: dict[str, object]) -> None:
    with pytest.raises(InvalidRequest):
        keys.create("ns", **wrong)  # type: ignore[arg-type]  # test input


def test_a_use_is_noted_once_a_minute(keys: Keys, clock: ManualClock) -> None:
    made, text = keys.create("ns")
    keys.authenticate(text)
    first = keys.get(made.key_id).last_used_at
    clock.advance(30)
    keys.authenticate(text)
    assert keys.get(made.key_id).last_used_at == first == clock.now() - 30
    clock.advance(31)
    keys.authenticate(text)
    assert keys.get(made.key_id).last_used_at == clock.now()


@given(st.text())
def test_no_text_but_a_key_is_split(text: str) -> None:
    parts = split(text)
    assert parts is None or joined(*parts) == text


def test_logs_show_a_keys_id_and_never_its_secret() -> None:
    key_id, secret = new_key()
    shown = redact_text(f"got {joined(key_id, secret)} and whsec_{'QUJD' * 8}=, bye")
    assert key_id in shown
    assert secret not in shown
    assert "QUJD" not in shown
