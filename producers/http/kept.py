"""Resources as values: each kind has one frozen model, kept as JSON."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

from pydantic import BaseModel, ConfigDict

from producers.http.context import Context
from trivet.errors import Conflict
from trivet.resources import Resource
from trivet.resources.refusals import unknown_resource

V = TypeVar("V", bound="Kept")
_TRIES = 20
_PAGE = 500


class Kept(BaseModel):
    """Base of what is kept. Fields that a newer version has written are passed over."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    created_at: float


class Shelf(Generic[V]):
    """One kind of resource of one namespace; `within` names the one that it belongs to, such as an object's bucket."""

    def __init__(self, context: Context, namespace: str, what: str, model: type[V], *, within: str = "") -> None:
        self._resources = context.resources
        self._namespace = namespace
        self._what = what
        self._model = model
        self.kind = f"{what}/{within}" if within else what

    def make(self, resource_id: str, value: V, *, name: str = "") -> tuple[V, bool]:
        """Keep a new one; where the id is there already, that one and False. Raises `AlreadyExists` for the name."""
        made = self._resources.create(self._namespace, self.kind, resource_id, value.model_dump_json(), name=name)
        return self.read(made), made.new

    def find(self, id_or_name: str) -> tuple[str, V] | None:
        """Its id and value, or None."""
        found = self._resources.get(self._namespace, self.kind, id_or_name)
        return (found.id, self.read(found)) if found else None

    def get(self, id_or_name: str) -> tuple[str, V]:
        """Its id and value. Raises `UnknownResource`."""
        found = self.find(id_or_name)
        if found is None:
            raise unknown_resource(self._what, id_or_name)
        return found

    def change(self, id_or_name: str, how: Callable[[V], V]) -> V:
        """Change it in one step, whoever else does so too. Raises `UnknownResource`, `Conflict`."""
        for _ in range(_TRIES):
            found = self._resources.get(self._namespace, self.kind, id_or_name)
            if found is None:
                raise unknown_resource(self._what, id_or_name)
            value = how(self.read(found))
            if self._resources.replace(found, value.model_dump_json()):
                return value
        raise Conflict(f"The {self._what} {id_or_name[:80]!r} is being changed by others.", hint="Repeat the request.")

    def delete(self, resource_id: str) -> bool:
        """Forget it; False where it was not there."""
        return self._resources.delete(self._namespace, self.kind, resource_id)

    def drop(self) -> None:
        """Forget all."""
        self._resources.drop(self._namespace, self.kind)

    def count(self) -> int:
        """How many there are."""
        return self._resources.count(self._namespace, self.kind)

    def page(self, after: int | None, limit: int) -> tuple[list[tuple[str, V]], int | None]:
        """The newest first: a page, and where the next one begins."""
        found = self._resources.page_back(self._namespace, self.kind, before=after, limit=limit + 1)
        rest = found[limit - 1].number if len(found) > limit else None
        return [(resource.id, self.read(resource)) for resource in found[:limit]], rest

    def all(self) -> Iterator[tuple[str, V]]:
        """All of them, the oldest first."""
        after = 0
        while found := self._resources.page(self._namespace, self.kind, after=after, limit=_PAGE):
            after = found[-1].number
            yield from ((resource.id, self.read(resource)) for resource in found)

    def read(self, resource: Resource) -> V:
        """The value."""
        return self._model.model_validate_json(resource.body)
