"""What users do with API keys, and how a request proves that it has one."""

from __future__ import annotations

from collections.abc import Iterable

from trivet.clock import Clock, SystemClock
from trivet.errors import InvalidRequest, Unauthenticated, UnknownKey
from trivet.ids import check_name
from trivet.keys import EVERY_NAMESPACE, ApiKey, KeyBook, KeyHash, KeyLimits, NewKey, Scope
from trivet.keys.refusals import unknown_key
from trivet.keys.secrets import hashed, is_key_id, joined, matches, new_key, new_secret, split
from trivet.settings import Settings

DEFAULT_SCOPES = (Scope.READ, Scope.SEARCH, Scope.INGEST)
_DAY_SECONDS = 86_400.0
_MOST_DAYS = 3650
_LONGEST_NAME = 100
#: A use is noted again after so long.
_NOTED_SECONDS = 60.0


class Keys:
    """Make, list, rotate, revoke; `authenticate` is for servers. Thread-safe.

    Every method raises `LedgerUnavailable`, and those that name a key `UnknownKey`.
    """

    def __init__(self, settings: Settings, *, book: KeyBook | None = None, clock: Clock | None = None) -> None:
        from trivet.keys.redis import RedisKeys

        self._pepper = settings.key_pepper
        self._book: KeyBook = book or RedisKeys(settings)
        self._clock = clock or SystemClock()

    def close(self) -> None:
        """Close the connections to Redis."""
        self._book.close()

    def create(
        self,
        namespace: str,
        *,
        name: str = "",
        scopes: Iterable[str] = DEFAULT_SCOPES,
        expires_days: float | None = None,
        limits: KeyLimits | None = None,
    ) -> tuple[ApiKey, str]:
        """A new key, and its whole text, which is shown nowhere else and kept nowhere.

        `namespace` may be `*`: a key for all namespaces. Raises `InvalidRequest`.
        """
        if namespace != EVERY_NAMESPACE:
            check_name(namespace, "Namespace")
        if len(name) > _LONGEST_NAME:
            raise InvalidRequest(f"The name has {len(name)} characters.", hint=f"At most {_LONGEST_NAME} fit.")
        if expires_days is not None and not 0 < expires_days <= _MOST_DAYS:
            raise InvalidRequest(f"A key cannot expire after {expires_days:g} days.", hint=f"At most {_MOST_DAYS}.")
        key_id, secret = new_key()
        made = self._book.add(
            NewKey(
                key_id=key_id,
                namespace=namespace,
                name=name,
                scopes=_scopes(scopes),
                limits=limits or KeyLimits(),
                expires_at=None if expires_days is None else self._clock.now() + expires_days * _DAY_SECONDS,
                hashes=(KeyHash(value=hashed(key_id, secret, self._pepper)),),
            )
        )
        return made, joined(key_id, secret)

    def list(self, namespace: str) -> list[ApiKey]:
        """Those of a namespace, or of `*`, the oldest first; revoked ones for 30 days."""
        return self._book.keys(namespace)

    def get(self, key_id: str, namespace: str | None = None) -> ApiKey:
        """One key. With a namespace: another's key is unknown."""
        if not is_key_id(key_id):
            raise unknown_key(key_id)
        found = self._book.key(key_id)
        if namespace is not None and found.namespace != namespace:
            raise unknown_key(key_id)
        return found

    def rotate(
        self, key_id: str, namespace: str | None = None, *, overlap_seconds: float = _DAY_SECONDS
    ) -> tuple[ApiKey, str]:
        """Another secret for the same key; the ones before it are good for the overlap. Its new whole text."""
        if not 0 <= overlap_seconds <= _MOST_DAYS * _DAY_SECONDS:
            raise InvalidRequest(f"An overlap of {overlap_seconds:g} s is not possible.")
        self.get(key_id, namespace)
        secret = new_secret()
        made = self._book.rotate(key_id, hashed(key_id, secret, self._pepper), overlap_seconds)
        return made, joined(key_id, secret)

    def revoke(self, key_id: str, namespace: str | None = None) -> bool:
        """End it at once. False where it was revoked already."""
        return self._book.revoke(self.get(key_id, namespace).key_id)

    def authenticate(self, text: str) -> ApiKey:
        """The key with this whole text. Raises `Unauthenticated`, in the same words whatever is wrong with it."""
        parts = split(text)
        if parts is None:
            raise _not_valid()
        key_id, secret = parts
        now = self._clock.now()
        try:
            found: ApiKey | None = self._book.key(key_id)
        except UnknownKey:
            found = None
        right = matches(hashed(key_id, secret, self._pepper), found.live_hashes(now) if found else ())
        if found is None or not right:
            raise _not_valid()
        if found.last_used_at is None or now - found.last_used_at > _NOTED_SECONDS:
            self._book.used(key_id)
        return found


def _not_valid() -> Unauthenticated:
    return Unauthenticated("The request has no API key that is valid now.")


def _scopes(names: Iterable[str]) -> tuple[Scope, ...]:
    given = tuple(dict.fromkeys(names))
    if unknown := [name for name in given if name not in set(Scope)]:
        raise InvalidRequest(f"No scope is called {unknown[0][:40]!r}.", hint=f"Choose from {', '.join(Scope)}.")
    if not given:
        raise InvalidRequest("A key needs a scope.", hint=f"Choose from {', '.join(Scope)}.")
    return tuple(Scope(name) for name in given)
