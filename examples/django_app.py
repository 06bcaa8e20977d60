"""A Django site in one file that takes documents in, through Trivet's HTTP API.

INGEST_API=http://127.0.0.1:8000 python examples/django_app.py runserver --noreload 9000

curl -d url=https://www.example.com/ localhost:9000/documents
curl localhost:9000/documents/TASK_ID
"""

from __future__ import annotations

import os
import sys
from functools import cache

from django.conf import settings
from django.core.management import execute_from_command_line
from django.http import HttpRequest, JsonResponse
from django.urls import path
from django.views.decorators.http import require_GET, require_POST

from trivet import Trivet
from trivet.errors import TrivetError

COLLECTION = "django-example"

settings.configure(
    SECRET_KEY=os.environ.get("DJANGO_SECRET_KEY", "only for this example"),
    ALLOWED_HOSTS=["127.0.0.1", "localhost"],
    ROOT_URLCONF=__name__,
    # A site of its own would keep Django's CSRF check; this one is called by other programs.
    MIDDLEWARE=["django.middleware.common.CommonMiddleware"],
)


@cache
def trivet() -> Trivet:
    """One client per process."""
    client = Trivet(os.environ.get("INGEST_API", "http://127.0.0.1:8000"), api_key=os.environ.get("INGEST_API_KEY"))
    client.create_collection(COLLECTION, exist_ok=True)
    return client


@require_POST
def add(request: HttpRequest) -> JsonResponse:
    """Once this answers, the source will be embedded, whatever process dies."""
    try:
        task = trivet().ingest(request.POST.get("url", ""), collection=COLLECTION)
    except TrivetError as error:
        return JsonResponse({"error": str(error)}, status=503 if error.transient else 400)
    return JsonResponse({"task_id": task.task_id}, status=202)


@require_GET
def status(_request: HttpRequest, task_id: str) -> JsonResponse:
    """What became of it."""
    view = trivet().task(task_id).status()
    return JsonResponse(
        {"state": view.state, "chunks": view.chunks, "error": view.error.message if view.error else None}
    )


urlpatterns = [path("documents", add), path("documents/<str:task_id>", status)]

if __name__ == "__main__":
    execute_from_command_line(sys.argv)
