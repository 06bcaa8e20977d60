"""Lists: what is asked for, what comes back, and the cursor between two pages."""

from __future__ import annotations

import base64
import binascii
from typing import Annotated, Generic, TypeVar

from fastapi import Depends, Query
from pydantic import AliasChoices, BaseModel, ConfigDict, Field, StrictInt

from trivet.errors import InvalidRequest

T = TypeVar("T")
P = TypeVar("P", bound="PageRequest")
MOST = 1000
_USUAL = 100


class PageRequest(BaseModel):
    """Which page. Fields that are not known are passed over: clients send filters of their own."""

    model_config = ConfigDict(extra="allow", json_schema_extra={"example": {"limit": 100}})

    limit: StrictInt = Field(_USUAL, ge=1, le=MOST, validation_alias=AliasChoices("limit", "page_size"))
    cursor: str | None = Field(None, max_length=500, description="`pagination.next_cursor` of the page before.")


class Pagination(BaseModel):
    """Where in the list a page stands."""

    total: int | None = Field(None, description="Of all pages, where it is known without reading them.")
    page: int | None = None
    page_size: int = Field(examples=[100])
    total_pages: int | None = None
    next_page: str | None = None
    previous_page: str | None = None
    next_cursor: str | None = Field(None, description="For the next page; null on the last one.")


class Page(BaseModel, Generic[T]):
    """One page of a list."""

    results: list[T]
    total_count: int = Field(description="Of all pages where that is known, else of this one.")
    total: int
    pagination: Pagination


def page_of(results: list[T], size: int, *, total: int | None = None, next_cursor: str | None = None) -> Page[T]:
    """A page with all the counts that one client or another asks for."""
    count = len(results) if total is None else total
    pages = None if total is None else -(-total // size)
    pagination = Pagination(total=total, page_size=size, total_pages=pages, next_cursor=next_cursor)
    return Page(results=results, total_count=count, total=count, pagination=pagination)


_InQuery = Annotated[int | None, Query(ge=1, le=MOST)]
_CursorInQuery = Annotated[str | None, Query(max_length=500)]


async def asked_in_query(
    limit: _InQuery = None, page_size: _InQuery = None, cursor: _CursorInQuery = None
) -> PageRequest:
    """The page that a GET asks for."""
    return PageRequest(limit=limit or page_size or _USUAL, cursor=cursor)


PageQuery = Annotated[PageRequest, Depends(asked_in_query)]


class QueryPage(BaseModel):
    """What the query of a POST says of the page: generated clients put it there, and filters into the body."""

    limit: int | None = None
    cursor: str | None = None

    def over(self, body: P) -> P:
        """The body, with what the query says in its place."""
        return body.model_copy(update=self.model_dump(exclude_none=True))


async def query_of_post(limit: _InQuery = None, page_size: _InQuery = None, cursor: _CursorInQuery = None) -> QueryPage:
    """What it says."""
    return QueryPage(limit=limit or page_size, cursor=cursor)


QueryOfPost = Annotated[QueryPage, Depends(query_of_post)]


async def asked_in_body(query: QueryOfPost, body: PageRequest | None = None) -> PageRequest:
    """The page that a POST asks for."""
    return query.over(body or PageRequest())


PageBody = Annotated[PageRequest, Depends(asked_in_body)]


def cursor_to(list_name: str, where: str) -> str:
    """An opaque cursor; `where` is what the list itself goes on from."""
    return base64.urlsafe_b64encode(f"{list_name}\x00{where}".encode()).decode().rstrip("=")


def cursor_from(list_name: str, cursor: str | None) -> str:
    """What `cursor_to` was told, or nothing for the first page. Raises `InvalidRequest` for another list's."""
    if not cursor:
        return ""
    try:
        found = base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)).decode()
    except (binascii.Error, ValueError):
        found = ""
    name, zero, where = found.partition("\x00")
    if name != list_name or not zero:
        raise InvalidRequest("The cursor is not one of this list.", hint="Leave it out for the first page.")
    return where


def number_from(list_name: str, cursor: str | None) -> int | None:
    """The same, where the list goes on from a number."""
    where = cursor_from(list_name, cursor)
    if where and not where.isdecimal():
        raise InvalidRequest("The cursor is not one of this list.", hint="Leave it out for the first page.")
    return int(where) if where else None
