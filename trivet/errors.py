"""Every error that Trivet raises, under one root.

    TrivetError
    ├── TransientError                 try again: the ledger does so by itself, with backoff
    │   ├── LedgerUnavailable          Redis does not answer, or is out of memory
    │   │   ├── LedgerRefused          Redis answered with an error
    │   │   └── LedgerSchema           the ledger was written by another version of Trivet
    │   ├── StoreUnavailable           S3 does not answer, or answers 5xx
    │   ├── IndexUnavailable           the index, or the process that owns it, does not answer or fails
    │   │   ├── IndexBusy              another process has the embedded index open
    │   │   └── IndexDamaged           files of the embedded index cannot be read
    │   ├── SourceUnavailable          the source timed out, refused the connection, answered 5xx or 429
    │   ├── EncoderOutOfMemory         the device ran out of memory for this batch
    │   ├── EncoderBroken              the device computes nothing any more: the process must end
    │   ├── NotUnderstood              a newer Trivet has written this work item: another worker may know it
    │   ├── EndpointFailed             a webhook, topic or queue did not take an event
    │   ├── TooManyRequests            a rate or quota is used up: again after a while
    │   ├── HookBusy                   the same delivery is being worked on
    │   └── WorkerCrashed              the process that held the lease died
    ├── PermanentError                 trying again cannot help: something must be changed first
    │   ├── InvalidRequest             an argument, payload or setting is wrong
    │   ├── UnknownCollection          the collection was never created
    │   ├── UnknownTask                no task has this id (or its retention is over)
    │   ├── UnknownEndpoint            no endpoint has this id
    │   ├── UnknownKey                 no API key has this id
    │   ├── UnknownHook                no hook has this id
    │   ├── Unauthenticated            no API key that is valid now
    │   ├── Forbidden                  the API key lacks a scope
    │   ├── HookRefused                a delivery that is forged, too old, or not for this hook
    │   ├── UnknownResource            no namespace, bucket, batch, retriever … has this id or name
    │   ├── AlreadyExists              another one has this name
    │   ├── Conflict                   what is there now does not allow it
    │   ├── NotRetryable               the task is not one that can be run again
    │   ├── NotConfirmed               so many objects are deleted only on confirmation
    │   ├── IdempotencyConflict        the key was used before with another request
    │   ├── TooLate                    the task is past the point where this is possible
    │   ├── ModelUnavailable           no weights and no alias for this model id
    │   ├── ModelInvalid               the model's folder lacks a part or does not match its config
    │   ├── StoreForbidden             S3 refused the credentials or the bucket is not there
    │   ├── StoreUnconditional         S3 ignores If-None-Match or If-Match
    │   ├── WrongLedger                the ledger was wiped, or is not the one that belongs to this bucket
    │   ├── StoreDamaged               the bytes on S3 are not those that were recorded
    │   ├── MissingDependency          a package of an extra is not installed
    │   ├── StartFailed                a server or worker of `trivet up` did not come up
    │   └── SourceError                the source can not be ingested as it is
    │       ├── SourceRefused          its address or scheme is not allowed
    │       ├── SourceNotFound         404 or 410
    │       ├── SourceForbidden        401 or 403
    │       ├── SourceTooLarge         over a size, page or expansion limit
    │       ├── UnsupportedType        no parser for this media type
    │       ├── EmptyDocument          no bytes, or no text in them
    │       ├── CorruptDocument        the parser can not read it
    │       └── EncryptedDocument      it needs a password
    ├── StoreConflict                  a conditional write lost (412 or 409): the caller reads back
    ├── NotInStore                     no such key
    └── LeaseLost                      the work item is no longer ours: drop what was done, write nothing

An error carries one sentence that says what was wrong and where, and a hint that says what to do. Neither
ever holds a secret: URLs are redacted before they come here.
"""

from __future__ import annotations

from typing import ClassVar


class TrivetError(Exception):
    """Root of all errors; `code` is the stable name that events, the CLI and the HTTP API show."""

    code: ClassVar[str] = "internal"
    transient: ClassVar[bool] = False
    #: What to do, where the one who raises knows nothing better.
    default_hint: ClassVar[str] = ""

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint or self.default_hint

    def __str__(self) -> str:
        return f"{self.message} {self.hint}".strip()

    def __reduce__(self) -> tuple[object, ...]:
        return _rebuild, (type(self), self.message, self.hint)


def _rebuild(kind: type[TrivetError], message: str, hint: str) -> TrivetError:
    return kind(message, hint=hint)


class TransientError(TrivetError):
    """The same work may succeed later; the ledger retries it with backoff."""

    code = "transient"
    transient = True


class LedgerUnavailable(TransientError):
    """Redis does not answer, or refuses writes because its memory is full."""

    code = "ledger_unavailable"
    default_hint = "See that Redis runs and that TRIVET_REDIS_URL names it."


class LedgerRefused(LedgerUnavailable):
    """Redis answered with an error of its own: a command that it does not know, a key of another kind."""

    code = "ledger_refused"
    default_hint = "See that TRIVET_REDIS_URL names a Redis 7 or Valkey that is Trivet's own."


class LedgerSchema(LedgerUnavailable):
    """The ledger was written by an older or a newer version; nothing is touched."""

    code = "ledger_schema"
    default_hint = "Update this process, or run `trivet migrate` where the ledger is the older one."


class StoreUnavailable(TransientError):
    """S3 does not answer, or answers 5xx."""

    code = "store_unavailable"
    default_hint = "See that it runs and that TRIVET_S3_ENDPOINT names it."


class IndexUnavailable(TransientError):
    """The index, or the process that owns it, does not answer or fails."""

    code = "index_unavailable"
    default_hint = "See `trivet index status`; the index can be made anew with `trivet index rebuild`."


class IndexBusy(IndexUnavailable):
    """Another process has the embedded index open, and only one may."""

    code = "index_busy"
    default_hint = "Ask that process (trivet index status, trivet search), or end it first."


class IndexDamaged(IndexUnavailable):
    """Files of the embedded index cannot be read: what they held is filled anew from S3."""

    code = "index_damaged"
    default_hint = (
        "It heals by itself while a search process runs (trivet index status); without: trivet index rebuild."
    )


class SourceUnavailable(TransientError):
    """The source timed out, refused the connection, or answered 5xx or 429."""

    code = "source_unavailable"
    default_hint = "It is tried again by itself; if that does not help, see whether the source answers elsewhere."


class EncoderOutOfMemory(TransientError):
    """The device ran out of memory for this batch."""

    code = "encoder_out_of_memory"
    default_hint = "Lower TRIVET_FORWARD_TOKENS, or use chunks with fewer tokens."


class EncoderBroken(TransientError):
    """The device computes nothing any more, for any text: only a new process can."""

    code = "encoder_broken"
    default_hint = "The worker ends and its work is leased by others; see the driver's log if new ones end as well."


class NotUnderstood(TransientError):
    """A newer version has written this work item or message: it is left for a worker that knows it."""

    code = "not_understood"
    default_hint = "Update the workers; what they do not know waits for those that do."


class EndpointFailed(TransientError):
    """A webhook endpoint, SNS topic or SQS queue did not take an event."""

    code = "endpoint_failed"


class TooManyRequests(TransientError):
    """A rate or a quota is used up; the same request is taken after `retry_after` seconds."""

    code = "too_many_requests"
    default_hint = "Wait as long as Retry-After says."

    def __init__(self, message: str, *, hint: str = "", retry_after: float = 1.0) -> None:
        super().__init__(message, hint=hint)
        self.retry_after = retry_after

    def __reduce__(self) -> tuple[object, ...]:
        return _rebuild_limited, (self.message, self.hint, self.retry_after)


def _rebuild_limited(message: str, hint: str, retry_after: float) -> TooManyRequests:
    return TooManyRequests(message, hint=hint, retry_after=retry_after)


class ApiBusy(TransientError):
    """As many requests follow tasks already as one process of the API holds open."""

    code = "api_busy"
    default_hint = "Ask for the task now and then instead, or start another process of the API."


class HookBusy(TransientError):
    """The same delivery is being worked on by another request."""

    code = "hook_busy"
    default_hint = "Send it again in a minute; what was done is done once."


class WorkerCrashed(TransientError):
    """The process that held the lease died, alone with this work item."""

    code = "worker_crashed"


class PermanentError(TrivetError):
    """Trying again cannot help: something must be changed first."""

    code = "permanent"


class InvalidRequest(PermanentError):
    """An argument, payload or setting is wrong."""

    code = "invalid_request"


class UnknownCollection(PermanentError):
    """The collection was never created."""

    code = "unknown_collection"


class UnknownTask(PermanentError):
    """No task has this id, or its retention is over."""

    code = "unknown_task"


class UnknownEndpoint(PermanentError):
    """No endpoint has this id."""

    code = "unknown_endpoint"


class UnknownKey(PermanentError):
    """No API key has this id, or it was revoked long ago."""

    code = "unknown_key"


class UnknownHook(PermanentError):
    """No hook has this id."""

    code = "unknown_hook"


class Unauthenticated(PermanentError):
    """No API key was sent, or none that is valid now. It never says which of the two, nor what is wrong with it."""

    code = "unauthenticated"
    default_hint = "Send the header Authorization: Bearer sk_…; a key is made with: trivet keys create"


class Forbidden(PermanentError):
    """The API key is valid and lacks the scope for this."""

    code = "forbidden"
    default_hint = "Use a key with this scope."


class HookRefused(PermanentError):
    """An incoming delivery that is forged, too old, of another kind, or not for this hook."""

    code = "hook_refused"
    default_hint = "See that the sender has this hook's secret and that its clock is right."


class UnknownResource(PermanentError):
    """No namespace, bucket, object, upload, batch, document or retriever has this id or name."""

    code = "unknown_resource"


class AlreadyExists(PermanentError):
    """Another one of the same kind has this name."""

    code = "already_exists"


class Conflict(PermanentError):
    """What is there now does not allow it."""

    code = "conflict"


class NotRetryable(PermanentError):
    """The task has not ended badly, or what it needs is no longer known."""

    code = "not_retryable"


class NotConfirmed(PermanentError):
    """So many objects at once are deleted only on confirmation."""

    code = "not_confirmed"


class IdempotencyConflict(PermanentError):
    """The idempotency key was used before with another request."""

    code = "idempotency_conflict"


class TooLate(PermanentError):
    """The task is past the point where this is possible."""

    code = "too_late"


class ModelUnavailable(PermanentError):
    """No weights can be had for this model id, and no alias names others."""

    code = "model_unavailable"
    default_hint = "Put its weights into the models folder, or name another model in TRIVET_MODEL_ALIASES."


class ModelInvalid(PermanentError):
    """The model's folder lacks a part, or a part does not match its config."""

    code = "model_invalid"
    default_hint = "Get the model's folder again, whole."


class StoreForbidden(PermanentError):
    """S3 refused the credentials, or the bucket does not exist."""

    code = "store_forbidden"
    default_hint = "Check the S3 credentials and the bucket's name."


class StoreUnconditional(PermanentError):
    """S3 ignores conditional writes, without which a commit is not atomic."""

    code = "store_unconditional"


class WrongLedger(PermanentError):
    """The ledger was wiped, or is not the one that belongs to this bucket: nothing may be removed."""

    code = "wrong_ledger"
    default_hint = "Run `trivet rebuild` if Redis was wiped or replaced."


class StoreDamaged(PermanentError):
    """The bytes on S3 are not those that a plan or manifest recorded, or cannot be read."""

    code = "store_damaged"
    default_hint = "Ingest the object again."


class MissingDependency(PermanentError):
    """A package of one of Trivet's extras is not installed."""

    code = "missing_dependency"


class StartFailed(PermanentError):
    """A server or worker that `trivet up` starts did not come up, or is up already."""

    code = "start_failed"


class SourceError(PermanentError):
    """The source cannot be ingested as it is."""

    code = "source_error"
    default_hint = "Open the URL in a browser and give the one at which the document itself is."


class SourceRefused(SourceError):
    """The address or scheme of the source is not allowed."""

    code = "source_refused"
    default_hint = "Use a public address, or put this one into TRIVET_ALLOW_ADDRESSES, here and for the workers."


class SourceNotFound(SourceError):
    """The source answered 404 or 410."""

    code = "source_not_found"
    default_hint = "Check the URL."


class SourceForbidden(SourceError):
    """The source answered 401 or 403."""

    code = "source_forbidden"
    default_hint = "Give a URL that may be read without credentials, such as a presigned one."


class SourceTooLarge(SourceError):
    """The source is over a size, page or expansion limit."""

    code = "source_too_large"
    default_hint = "Split the document, or raise the limit in the workers' settings."


class UnsupportedType(SourceError):
    """No parser reads this media type."""

    code = "unsupported_type"
    default_hint = "Convert it to PDF, HTML, DOCX, Markdown or plain text."


class EmptyDocument(SourceError):
    """The source has no bytes, or no text in them."""

    code = "empty_document"
    default_hint = "See that the URL names the document itself; a scanned one needs OCR first."


class CorruptDocument(SourceError):
    """The parser cannot read the document."""

    code = "corrupt_document"
    default_hint = "See whether the file opens in another program, and store it anew."


class EncryptedDocument(SourceError):
    """The document needs a password."""

    code = "encrypted_document"
    default_hint = "Store it without a password."


class StoreConflict(TrivetError):
    """A conditional write lost (412 or 409); the caller reads back and decides."""

    code = "store_conflict"


class NotInStore(TrivetError):
    """No such key."""

    code = "not_in_store"


class LeaseLost(TrivetError):
    """The work item is no longer ours: drop what was done and write nothing."""

    code = "lease_lost"
