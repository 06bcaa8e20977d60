"""How much a namespace has."""

from __future__ import annotations

from pydantic import BaseModel, Field

from producers.http.buckets import buckets, objects
from producers.http.caller import CallerOf
from producers.http.context import ContextOf
from producers.http.naming import namespace_id
from producers.http.route import router as make_router

router = make_router("usage")


class UsageAnswer(BaseModel):
    """What is there now, and the tasks that are still remembered."""

    namespace_id: str
    namespace_name: str
    collections: int
    buckets: int
    objects: int = Field(description="In buckets.")
    retrievers: int
    batches: int
    tasks: int = Field(description="That have not been retained away.")
    waiting: dict[str, int] = Field(description="Tasks of all namespaces by state; for keys of all namespaces alone.")


@router.get("/organizations/usage", operation_id="get_usage", summary="How much a namespace has")
def usage(context: ContextOf, who: CallerOf) -> UsageAnswer:
    """Of the caller's namespace."""
    names = [bucket_id for bucket_id, _ in buckets(context, who.namespace).all()]
    count = context.resources.count
    return UsageAnswer(
        namespace_id=namespace_id(who.namespace),
        namespace_name=who.namespace,
        collections=len(context.ledger.collections(who.namespace)),
        buckets=len(names),
        objects=sum(objects(context, who.namespace, name).count() for name in names),
        retrievers=count(who.namespace, "retriever"),
        batches=count(who.namespace, "batch"),
        tasks=context.ledger.count_tasks(who.namespace),
        waiting=context.ledger.backlog().states if who.everywhere else {},
    )
