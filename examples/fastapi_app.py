"""A FastAPI app that takes documents in and says what became of them, through Trivet's HTTP API.

INGEST_API=http://127.0.0.1:8000 uvicorn examples.fastapi_app:app --port 9000

curl -d '{"url": "https://www.example.com/"}' -H 'Content-Type: application/json' localhost:9000/documents
curl localhost:9000/documents/TASK_ID
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI, HTTPException
from pydantic import BaseModel

from trivet import AsyncTrivet
from trivet.errors import TrivetError

COLLECTION = "fastapi-example"


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """One client for the life of the app."""
    address = os.environ.get("INGEST_API", "http://127.0.0.1:8000")
    async with AsyncTrivet(address, api_key=os.environ.get("INGEST_API_KEY")) as trivet:
        await trivet.create_collection(COLLECTION, exist_ok=True)
        app.state.trivet = trivet
        yield


app = FastAPI(lifespan=lifespan)


class NewDocument(BaseModel):
    """A source."""

    url: str


@app.post("/documents", status_code=202)
async def add(document: NewDocument) -> dict[str, str]:
    """Once this answers, the source will be embedded, whatever process dies."""
    try:
        task = await app.state.trivet.ingest(document.url, collection=COLLECTION)
    except TrivetError as error:
        raise HTTPException(503 if error.transient else 400, str(error)) from None
    return {"task_id": task.task_id}


@app.get("/documents/{task_id}")
async def status(task_id: str) -> dict[str, object]:
    """What became of it."""
    view = await app.state.trivet.task(task_id).status()
    return {"state": view.state, "chunks": view.chunks, "error": view.error and view.error.message}
