"""What users do with the hooks of one namespace."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from typing import Any

from pydantic import SecretStr

from trivet.clock import Clock, SystemClock
from trivet.delivery.values import SigningSecret
from trivet.errors import InvalidRequest
from trivet.hooks import Getter, Hook, HookBook, NewHook, Reading, open_scheme
from trivet.hooks.refusals import unknown_hook
from trivet.ids import check_name
from trivet.settings import Settings

_DAY_SECONDS = 86400.0
_LONGEST_DESCRIPTION = 500


class _NoGetter:
    """For a sample, which needs nothing from the net."""

    def get(self, url: str, most_bytes: int) -> bytes:
        raise InvalidRequest(f"A test gets nothing from the net, and so not {url[:100]!r} of {most_bytes} bytes.")

    def close(self) -> None:
        """Nothing to close."""


class Hooks:
    """Create, look after, test. Another namespace's hooks are unknown here.

    Every method raises `LedgerUnavailable`, and those that name a hook `UnknownHook`.
    """

    def __init__(
        self, settings: Settings, namespace: str, *, book: HookBook | None = None, clock: Clock | None = None
    ) -> None:
        from trivet.hooks.redis import RedisHooks

        self._namespace = check_name(namespace, "Namespace")
        self._book: HookBook = book or RedisHooks(settings)
        self._clock = clock or SystemClock()
        self._getter: Getter = _NoGetter()

    def close(self) -> None:
        """Close the connections to Redis."""
        self._book.close()

    def add(
        self,
        scheme: str,
        *,
        collection: str,
        options: Mapping[str, Any] | None = None,
        secret: str = "",
        description: str = "",
    ) -> Hook:
        """Create a hook; `secret` is for senders that make their own. Its secret stands in `secrets`.

        Raises `InvalidRequest` and `MissingDependency`.
        """
        check_name(collection, "Collection")
        if len(description) > _LONGEST_DESCRIPTION:
            raise InvalidRequest(f"The description has {len(description)} characters.", hint="At most 500 fit.")
        how = open_scheme(scheme, self._getter)
        complete = how.options(options or {})
        if secret:
            how.check_secret(secret)
        kept = secret or (how.new_secret() if how.secret else "")
        return self._book.add(
            NewHook(
                hook_id=f"hook_{secrets.token_hex(12)}",
                namespace=self._namespace,
                collection=collection,
                scheme=scheme,
                options=complete,
                description=description,
                secrets=(SigningSecret(value=SecretStr(kept)),) if kept else (),
            )
        )

    def list(self) -> list[Hook]:
        """All of the namespace, the oldest first."""
        return self._book.hooks(self._namespace)

    def get(self, hook_id: str) -> Hook:
        """One hook as it stands."""
        found = self._book.hook(hook_id)
        if found.namespace != self._namespace:
            raise unknown_hook(hook_id)
        return found

    def rotate(self, hook_id: str, *, secret: str = "", overlap_seconds: float = _DAY_SECONDS) -> Hook:
        """Give it another secret, first in `secrets`; those before it verify along for the overlap."""
        hook = self.get(hook_id)
        how = open_scheme(hook.scheme, self._getter)
        if secret:
            how.check_secret(secret)
        return self._book.rotate_secret(hook_id, secret or how.new_secret(), overlap_seconds)

    def remove(self, hook_id: str) -> None:
        """Forget it: its deliveries are refused from now on."""
        self._book.remove(self.get(hook_id).hook_id)

    def test(self, hook_id: str, payload: bytes = b"") -> Reading:
        """What a delivery of this payload would mean; none given: one that shows the most. Nothing is ingested.

        It is signed as the sender signs, and goes through the same verification and reading as any other.
        """
        hook, now = self.get(hook_id), self._clock.now()
        sample = open_scheme(hook.scheme, self._getter).sample(hook, now, payload)
        sample.scheme.verify(hook, sample.incoming, now)
        return sample.scheme.read(hook, sample.incoming)
