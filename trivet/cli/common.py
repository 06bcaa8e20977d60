"""What commands share: settings, the client, and flags."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from trivet.errors import InvalidRequest

if TYPE_CHECKING:
    from pydantic import BaseModel

    from trivet.client import Trivet
    from trivet.settings import Settings
    from trivet.stores import ObjectStore
    from trivet.stores.layout import Layout

    Model = TypeVar("Model", bound=BaseModel)

JsonFlag = Annotated[bool, typer.Option("--json", help="Machine-readable result on stdout, and nothing else there.")]
CollectionName = Annotated[str, typer.Argument(metavar="COLLECTION", help="Name of the collection.")]


@dataclass(frozen=True, slots=True)
class Common:
    """The options before the command."""

    namespace: str = ""
    redis_url: str = ""
    state_dir: str = ""

    def loaded(self, **more: Any) -> Settings:
        """Settings as the environment and the options give them."""
        from trivet.settings import Settings

        given = {"namespace": self.namespace, "redis_url": self.redis_url, "state_dir": self.state_dir}
        return Settings.load(**{name: value for name, value in given.items() if value}, **more)

    def settings(self) -> Settings:
        """The same, pointed at what `trivet up` runs in the state folder, if it does."""
        from trivet.supervisor.endpoints import connected_settings

        return connected_settings(self.loaded())

    def client(self) -> Trivet:
        """A client for these settings."""
        from trivet.client import Trivet

        return Trivet(settings=self.settings())


def warn_of_unknown_variables() -> None:
    """One sentence on stderr for all TRIVET_ variables that set nothing."""
    from trivet.cli.console import say
    from trivet.settings import unknown_variables

    if unknown := unknown_variables():
        told = [f"{name} (did you mean {near}?)" if near else name for name, near in unknown.items()]
        say(f"trivet: No setting is called {' or '.join(told)}.")


def start_hint() -> str:
    """How to start a system on this machine; empty where the workers' folder is not at hand."""
    from trivet.errors import MissingDependency
    from trivet.supervisor.roots import find_root

    try:
        find_root()
    except MissingDependency:
        return ""
    return "To start one on this machine: trivet up"


def collection_store(client: Trivet, collection: str) -> tuple[ObjectStore, Layout]:
    """The store, and the key names of a collection that exists. Raises `UnknownCollection`."""
    from trivet.stores import open_store
    from trivet.stores.layout import Layout

    client.collection(collection)
    return open_store(client.settings), Layout.of(client.settings, client.namespace, collection)


def validated(model: type[Model], **values: Any) -> Model:
    """The model with these values, or `InvalidRequest` with the first that does not fit."""
    from pydantic import ValidationError

    try:
        return model(**values)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        message = first["msg"].removeprefix("Value error, ").rstrip(".")
        raise InvalidRequest(f"{where or 'The request'} is wrong: {message.lower()}.") from None
