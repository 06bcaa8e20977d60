"""One module per resource. A router that is to be served stands in `ROUTERS`."""

from __future__ import annotations

from fastapi import APIRouter

from producers.http.routes import (
    batches,
    buckets,
    collections,
    documents,
    extractors,
    health,
    hooks,
    ingest,
    keys,
    namespaces,
    objects,
    retrievers,
    search,
    tasks,
    uploads,
    usage,
    webhooks,
)

ROUTERS: tuple[APIRouter, ...] = (
    health.router,
    namespaces.router,
    buckets.router,
    uploads.router,
    objects.router,
    extractors.router,
    collections.router,
    ingest.router,
    documents.router,
    batches.router,
    tasks.router,
    retrievers.router,
    search.router,
    webhooks.router,
    usage.router,
    keys.router,
    hooks.router,
)
