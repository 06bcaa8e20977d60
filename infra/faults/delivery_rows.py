"""Rows in which those who receive events are bad, or those who send them die."""

from __future__ import annotations

import base64
import time
from collections.abc import Iterator

from pydantic import SecretStr

from infra.faults import strikes
from infra.faults.fleet import Start
from infra.faults.scene import Row, Scene, Strikes, crew

_SETTINGS = {
    "deliver_timeout_seconds": 1.0,
    "deliver_retry_seconds": 0.2,
    "deliver_retry_max_seconds": 2.0,
}
#: After the last task has ended, so long may deliveries go on.
_PATIENCE_SECONDS = 120.0


def _register(scene: Scene, url: str) -> None:
    from trivet.delivery.redis import RedisDeliveries
    from trivet.delivery.values import NewEndpoint, SigningSecret

    secret = SecretStr("whsec_" + base64.b64encode(scene.rng.randbytes(24)).decode())
    endpoint = NewEndpoint(
        endpoint_id="ep_faults",
        namespace=scene.settings.namespace,
        transport="webhook",
        target=url,
        secrets=(SigningSecret(value=secret),),
    )
    book = RedisDeliveries(scene.settings)
    book.add(endpoint)
    book.close()


def _delivering(beside: Strikes | None = None) -> Strikes:
    """A bad endpoint for every event; until each was taken, and `beside` strikes meanwhile."""

    def strikes(scene: Scene) -> Iterator[float]:
        receiver = scene.receiver
        assert receiver is not None, "the row has an endpoint"
        _register(scene, receiver.url)
        yield 0.0
        yield from beside(scene) if beside else ()
        while not scene.finished():
            yield 0.2
        deadline = time.monotonic() + _PATIENCE_SECONDS
        while scene.recorder.ids - receiver.taken.keys() and time.monotonic() < deadline:
            yield 0.2
        missing, foreign = scene.recorder.ids - receiver.taken.keys(), receiver.taken.keys() - scene.recorder.ids
        if missing:
            scene.violations.append(f"{len(missing)} of {len(scene.recorder.ids)} events were never delivered.")
        if foreign or receiver.wrong:
            said = f"{len(foreign)} ids that no event has, and {receiver.wrong} ids of other events"
            scene.violations.append(f"Deliveries came under {said}.")
        scene.faults += receiver.struck

    return strikes


def webhook(tasks: int = 300) -> Row:
    """An endpoint that behaves badly."""
    return Row(
        name="webhook",
        stage="deliver",
        what="An endpoint answers 20 % of all requests 500, 10 % never, 10 % late; 5 % of its answers are lost.",
        strikes=_delivering(),
        tasks=tasks,
        workers=(*crew(), Start("deliver", "deliver")),
        settings=_SETTINGS,
        receives=True,
    )


def kill_deliver(every: float = 3.0, tasks: int = 300) -> Row:
    """A sender killed again and again."""
    return Row(
        name="kill-deliver",
        stage="deliver",
        what=f"`kill -9` of one of two deliver processes every {every:g} s, with the same bad endpoint.",
        strikes=_delivering(strikes.killing("deliver", every)),
        tasks=tasks,
        workers=(*crew(), *(Start(f"deliver-{n}", "deliver") for n in range(2))),
        settings=_SETTINGS,
        receives=True,
    )
