"""What is said of hooks and deliveries that are refused: one voice for all books and schemes."""

from __future__ import annotations

from trivet.errors import HookBusy, HookRefused, InvalidRequest, UnknownHook

#: Hooks of one namespace.
MOST_HOOKS = 1000


def unknown_hook(hook_id: str) -> UnknownHook:
    """There is no such hook, or it is another namespace's."""
    return UnknownHook(f"No hook is called {hook_id[:80]!r}.", hint="List them with: trivet hooks list")


def too_many_hooks(namespace: str) -> InvalidRequest:
    """A namespace has its most."""
    return InvalidRequest(f"Namespace {namespace!r} has {MOST_HOOKS:,} hooks.", hint="Delete those that nobody uses.")


def forged() -> HookRefused:
    """The signature or token is missing or wrong. It is not said which: a forger would learn from it."""
    return HookRefused("The delivery is not signed with this hook's secret.")


def stale(seconds: float) -> HookRefused:
    """It was signed too long ago, or in the future."""
    return HookRefused(f"The delivery was signed more than {seconds:g} s from now.")


def busy() -> HookBusy:
    """The same delivery is here twice at once."""
    return HookBusy("The same delivery is being worked on.")
