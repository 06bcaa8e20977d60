"""All settings, and the only place that reads the environment (prefix `TRIVET_`)."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SecretsSettingsSource, SettingsConfigDict

from trivet.errors import InvalidRequest


class Settings(BaseSettings):
    """One frozen value with everything that can be set; every field is `TRIVET_` + its name in capitals.

    An argument comes before a variable, a variable before a file of `secrets_dir`, a file before the default.
    """

    model_config = SettingsConfigDict(env_prefix="TRIVET_", frozen=True, extra="ignore")

    #: The one folder that holds what the embedded servers, logs and models need.
    state_dir: Path = Path(".trivet")
    #: A folder with one file per secret setting, named like its variable in small letters (`trivet_s3_secret_key`), as
    #: Docker and Kubernetes mount them.
    secrets_dir: Path | None = None

    #: Redis or Valkey that holds the ledger, the doorbells and the event stream.
    redis_url: str = "redis://127.0.0.1:6380/0"
    #: Prefix of every key in Redis.
    redis_prefix: str = "trivet:"

    #: S3 endpoint; empty means AWS.
    s3_endpoint: str = ""
    #: Where clients outside reach S3, for the URLs of presigned uploads; empty: `s3_endpoint`.
    s3_public_endpoint: str = ""
    s3_bucket: str = "trivet"
    #: Prefix of every key in the bucket, without slashes at its ends.
    s3_prefix: str = "v1"
    s3_region: str = "us-east-1"
    #: Empty means boto3's own chain (environment, profile, instance role).
    s3_access_key: str = ""
    s3_secret_key: SecretStr = SecretStr("")

    #: Namespace of requests that name none.
    namespace: str = "default"

    #: `{"BAAI/bge-m3": "embedded"}` lets another model answer to a name; passports name the one that ran.
    model_aliases: dict[str, str] = Field(default_factory=dict)
    #: Folder with one sub-folder per model in bge-m3's published layout; default `{state_dir}/models`.
    model_dir: Path | None = None
    #: Ask the Hugging Face hub for models that are not on disk.
    model_hub: bool = True
    #: The model that an embed worker serves, as pipelines ask for it.
    embed_model: str = "BAAI/bge-m3"
    #: auto, cpu or cuda.
    device: str = "auto"
    #: auto, fp32, bf16, fp16 or int8 (linear layers alone, on a CPU), where a spec says auto.
    dtype: str = "auto"
    #: Run a dtype although what it loses on this model is outside of its tolerance; the passport says so.
    force_dtype: bool = False
    #: auto (packed on a CPU, cuda on CUDA), packed, cuda or transformers, which knows other activations than gelu.
    encoder_backend: str = "auto"
    #: Tokens of one forward pass; 0 means what is fast on the device.
    forward_tokens: int = Field(0, ge=0)
    #: Tokens that an embed worker leases at once; 0 means those of eight forward passes on a GPU, of two on a CPU.
    claim_tokens: int = Field(0, ge=0)
    #: Threads of one encoder process; 0 means all cores. More than a process could start would end it: OpenMP
    #: knows no other way.
    encoder_threads: int = Field(0, ge=0, le=1024)
    #: Threads that fetch shards, and threads that upload parts.
    io_threads: int = Field(8, ge=1)
    #: Bytes of parts that may wait for upload.
    upload_buffer_bytes: int = Field(256 << 20, ge=1 << 20)

    #: `host`, `host:port` or CIDR that sources may use although the address is private.
    allow_addresses: tuple[str, ...] = ()
    #: Buckets that `s3:` sources may name.
    allow_buckets: tuple[str, ...] = ()
    #: Let `file:` sources in (the CLI of a single machine).
    allow_file_urls: bool = False
    #: Ports that http and https sources may use; an allow-listed `host:port` overrides it.
    source_ports: tuple[int, ...] = (80, 443)
    source_connect_seconds: float = Field(10.0, gt=0)
    #: Silence of the source after which it counts as timed out.
    source_read_seconds: float = Field(30.0, gt=0)
    #: Whole fetch.
    source_total_seconds: float = Field(300.0, gt=0)
    source_max_bytes: int = Field(100 << 20, ge=1)
    source_max_redirects: int = Field(5, ge=0)
    #: Bytes of text that one document may give.
    document_max_bytes: int = Field(500 << 20, ge=1)
    document_max_pages: int = Field(5000, ge=1)
    parse_memory_bytes: int = Field(1 << 30, ge=64 << 20)
    parse_cpu_seconds: int = Field(60, ge=1)
    parse_wall_seconds: float = Field(120.0, gt=0)
    #: Keep the bytes as fetched under raw/.
    keep_raw: bool = True

    lease_seconds: float = Field(20.0, gt=0)
    heartbeat_seconds: float = Field(5.0, gt=0)
    sweep_seconds: float = Field(2.0, gt=0)
    #: A Celery task claims and works for so long, then returns.
    loop_seconds: float = Field(20.0, gt=0)
    #: Errors of one work item before its task fails.
    max_attempts: int = Field(3, ge=1)
    #: Leases of one work item that expire while it is leased alone before its task fails.
    max_expiries: int = Field(5, ge=1)
    retry_base_seconds: float = Field(2.0, gt=0)
    retry_max_seconds: float = Field(300.0, gt=0)
    #: How long a work item may go on failing for S3 or Redis alone before its task fails; no attempt is charged.
    outage_patience_seconds: float = Field(900.0, gt=0)
    #: Tokens of one model that may wait for an embed worker before prepare pauses.
    max_staged_tokens: int = Field(20_000_000, ge=1)
    task_retention_days: float = Field(7.0, gt=0)
    idempotency_hours: float = Field(24.0, gt=0)
    #: How long an idempotency key is held for a request whose API process has died; one that lives renews that.
    idempotency_reserved_seconds: float = Field(15.0, gt=0)
    #: Events that the stream keeps, about.
    event_stream_length: int = Field(250_000, ge=1)

    #: At most one progress event per task in so long.
    progress_seconds: float = Field(5.0, gt=0)
    #: How long a failed or cancelled task can be retried without naming its URL again, where that had a query.
    secret_retention_hours: float = Field(24.0, ge=0)
    #: Write an intent to S3 before a task is accepted, and wait until Redis has it on disk: then even a task that is
    #: only accepted survives the loss of Redis.
    durable_accept: bool = False
    #: How long an accept may wait for Redis' disk.
    fsync_seconds: float = Field(2.0, gt=0)

    #: A forward pass that takes longer counts as hung: the worker ends, and its work is leased by others.
    forward_seconds: float = Field(300.0, gt=0)
    #: How long a document may go on in a worker that was told to stop; then it is handed back.
    drain_seconds: float = Field(5.0, ge=0)

    #: Deliveries that one deliver process makes at once, in all and to one endpoint.
    deliver_threads: int = Field(16, ge=1)
    deliver_per_endpoint: int = Field(4, ge=1)
    #: How long one attempt may take in all, from the look-up of the name to the end of the answer.
    deliver_timeout_seconds: float = Field(15.0, gt=0)
    #: First pause after a failed delivery; it doubles up to the longest.
    deliver_retry_seconds: float = Field(5.0, gt=0)
    deliver_retry_max_seconds: float = Field(14_400.0, gt=0)
    #: An event is given up after so long; an endpoint that took nothing for so long is paused.
    deliver_patience_hours: float = Field(24.0, gt=0)
    #: Attempts that the log of one endpoint keeps.
    delivery_log_length: int = Field(1000, ge=1)

    #: Mixed into the hash of every API key: who reads or writes Redis but not this can neither check nor make keys.
    #: Changing it ends all keys.
    key_pepper: SecretStr = SecretStr("")
    #: Requests that a key may send, where the key itself says nothing: so many per minute, so many at once.
    rate_per_minute: int = Field(600, ge=1)
    rate_burst: int = Field(120, ge=1)
    #: Sources that a key may ingest per UTC day, where the key itself says nothing; 0: any number.
    sources_per_day: int = Field(0, ge=0)
    #: Requests without a valid key that one address may send per minute.
    unauthenticated_per_minute: int = Field(60, ge=1)
    #: Deliveries that one hook takes per minute.
    hook_rate_per_minute: int = Field(1200, ge=1)
    #: How far the signed time of a delivery may be from now.
    hook_window_seconds: float = Field(300.0, gt=0)
    #: How long a delivery is known again; GitHub lets one be sent again for three days.
    hook_memory_days: float = Field(7.0, gt=0)
    #: Bytes of one delivery.
    hook_max_bytes: int = Field(8 << 20, ge=1024)
    #: Actions of one delivery.
    hook_most_actions: int = Field(5000, ge=1)
    #: Entries that the audit log of one namespace keeps, about.
    audit_log_length: int = Field(10_000, ge=1)

    #: How often what nobody refers to is removed from S3.
    gc_seconds: float = Field(3600.0, gt=0)
    #: Age before something on S3 that no manifest lists counts as left over.
    gc_grace_hours: float = Field(24.0, ge=0)
    #: Age after which a generation that a newer one has replaced is removed.
    generation_retention_hours: float = Field(24.0, ge=0)
    #: Deleting more than this share of a collection, and at least so many objects, waits for a confirmation.
    mass_delete_share: float = Field(0.25, ge=0, le=1)
    mass_delete_objects: int = Field(25, ge=1)

    #: `embedded` (Qdrant Edge in the state folder, owned by the role search), a Qdrant server's URL, or `off`.
    index_url: str = "embedded"
    index_api_key: SecretStr = SecretStr("")
    #: On a Qdrant server: what the names of collections begin with.
    index_prefix: str = Field("trivet", pattern=r"^[A-Za-z0-9._-]{1,40}$")
    #: Consumer group on the event stream; two indexes of one Redis need two.
    index_group: str = "index"
    #: Candidates that HNSW keeps while it searches: more finds more of the exact neighbours, more slowly.
    index_ef: int = Field(256, ge=16)
    index_timeout_seconds: float = Field(30.0, gt=0)
    #: How long a search may wait until the index has what was committed when it began; 0: not at all.
    index_fresh_seconds: float = Field(1.0, ge=0)
    #: Who answers searches: index, exact, or auto (the index where a search process answers and has all, else exact).
    retriever: str = Field("auto", pattern="^(auto|index|exact)$")

    #: Where tests make this process fail; see `trivet.faults`.
    faults: str = ""

    #: Memory of the embedded Valkey; when it is full, new tasks are refused and nothing is lost.
    embedded_redis_bytes: int = Field(1 << 30, ge=32 << 20)
    #: What the embedded S3 server's heap aims at (Go's soft limit). It holds 233 MiB from the start, most of them never
    #: touched; with less, it does nothing but collect.
    embedded_s3_bytes: int = Field(384 << 20, ge=256 << 20)
    #: Processes of one prefork worker for prepare and commit, as `trivet up` starts it.
    cpu_concurrency: int = Field(2, ge=1)
    #: Embed workers that `trivet up` starts; none given: one on a GPU, one per core up to four on a CPU.
    embed_workers: int | None = Field(None, ge=0)
    #: How long a worker may finish what it holds when it is told to stop.
    stop_seconds: float = Field(30.0, gt=0)
    #: A file that a worker process makes when it takes work.
    ready_file: Path | None = None

    #: Where `trivet serve` listens.
    api_host: str = "127.0.0.1"
    api_port: int = Field(8000, ge=0, le=65535)
    #: auto: requests need an API key unless the API listens on a loopback address alone; always; or never, which is
    #: refused for any other address.
    api_keys: Literal["auto", "always", "never"] = "auto"
    #: Web pages that may call the API from a browser, such as https://app.example.com.
    api_origins: tuple[str, ...] = ()
    #: Bytes of a request's body; of an upload, source_max_bytes count.
    api_max_body_bytes: int = Field(16 << 20, ge=1024)
    #: How long a body may take, and how many bytes per second it must have beyond that.
    api_body_seconds: float = Field(20.0, gt=0)
    api_body_rate: int = Field(32 << 10, ge=1)

    #: Requests that one process of the API holds open until a task has ended, and those of one key among them.
    api_waits: int = Field(200, ge=0)
    api_waits_per_key: int = Field(50, ge=0)

    log_level: str = "INFO"
    log_json: bool = False

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - pydantic's signature
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - as above
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Arguments, variables, files. Raises `InvalidRequest` where the folder of the files is none."""
        named = init_settings().get("secrets_dir") or env_settings().get("secrets_dir")
        if not named:
            return init_settings, env_settings
        if not (os.access(named, os.R_OK | os.X_OK) and Path(named).is_dir()):
            raise InvalidRequest(f"TRIVET_SECRETS_DIR is wrong: {named} is no folder that can be read.")
        return init_settings, env_settings, SecretsSettingsSource(settings_cls, named)

    @property
    def models_folder(self) -> Path:
        """Where models lie on disk."""
        return self.model_dir or self.state_dir / "models"

    @property
    def indexed(self) -> bool:
        """Whether there is to be an index."""
        return self.index_url != "off"

    @property
    def index_folder(self) -> Path:
        """Where the embedded index lies."""
        return self.state_dir / "index"

    @property
    def search_socket(self) -> Path:
        """Where the search process of this state folder answers."""
        return self.state_dir.absolute() / "run" / "search.sock"

    @classmethod
    def load(cls, **overrides: Any) -> Self:
        """Settings from the environment; a value that does not fit raises `InvalidRequest`, one sentence."""
        try:
            return cls(**overrides)
        except ValidationError as error:
            first = error.errors()[0]
            name = "TRIVET_" + "_".join(str(part) for part in first["loc"]).upper()
            raise InvalidRequest(f"Setting {name} is wrong: {first['msg'].lower()}.") from None
        except ValueError as error:
            if isinstance(cause := error.__cause__, OSError):
                raise InvalidRequest(
                    f"The secret {cause.filename} cannot be read: {cause.strerror}.",
                    hint=f"The user {os.geteuid()}, whom this process runs as, must be able to read it.",
                ) from None
            raise _unreadable(error) from None


def _unreadable(error: ValueError) -> InvalidRequest:
    """For a list or a table that is no JSON, of which pydantic-settings names the field alone."""
    found = re.search(r'field "(\w+)"', str(error))
    if found is None or found[1] not in Settings.model_fields:
        return InvalidRequest(f"A setting cannot be read: {error}.")
    table = "dict" in str(Settings.model_fields[found[1]].annotation)
    example = """'{"name": "value"}'""" if table else """'["one", "another"]'"""
    return InvalidRequest(f"Setting TRIVET_{found[1].upper()} is no JSON: it is written as {example}.")


def unknown_variables(environment: Mapping[str, str] | None = None) -> dict[str, str]:
    """`TRIVET_` variables that set nothing, each with the nearest one that does (empty where none is near)."""
    prefix = str(Settings.model_config["env_prefix"])
    known = {f"{prefix}{name}".upper() for name in Settings.model_fields}
    given = os.environ if environment is None else environment
    unknown = sorted(name for name in given if name.upper().startswith(prefix) and name.upper() not in known)
    return {name: next(iter(get_close_matches(name.upper(), known, 1)), "") for name in unknown}
