"""Where sessions are shipped to: a folder, or a bucket of an object store that speaks S3.

An object appears whole or not at all, and `put` comes back only when what lies there has been compared with what was
meant: a folder's by reading it back before it gets its name, a bucket's by the size and the SHA-256 that the store
tells, or, where it tells none, by reading it back. boto3 finds the credentials, as for any other program (variables,
profiles, roles); none ever stands in an address or a message.
"""

from __future__ import annotations

import base64
import errno
import hashlib
import os
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timezone
from pathlib import Path
from typing import IO, Any, Protocol
from urllib.parse import unquote, urlsplit

BLOCK_BYTES = 1 << 20
PART_BYTES = 64 << 20  # what is larger goes in parts of so much …
PARTS_MAX = 10_000  # … or more, where that would be too many
OBJECT_BYTES_MAX = 5 << 40
AT_ONCE = 4  # objects, or parts of one, on their way to a bucket
STALE_UPLOAD_S = 86_400.0  # parts of a shipper that was killed
TEMPORARY = ".profilemate-"
STALE_S = 3600.0  # a temporary file of a shipper that was killed
SECRETS = ("AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_ACCESS_KEY_ID")


class StoreError(Exception):
    """One sentence: what, where, what to do."""


class NoLibrary(StoreError):
    """boto3 is not there."""


class Store(Protocol):
    url: str
    at_once: int
    """So many puts at a time: threads may call it."""

    def put(self, key: str, data: bytes | int, size: int, sha256: str) -> None:
        """Bytes, or the descriptor of a file, which is read from its beginning."""

    def stat(self, key: str) -> tuple[int, str | None] | None:
        """Size, and the SHA-256 where the store keeps one; None where there is no such object."""

    def get(self, key: str) -> Iterator[bytes]: ...

    def list(self, prefix: str) -> Iterator[tuple[str, int]]:
        """Keys, whole, and sizes of what begins so, in no order."""


def sha256_of(blocks: Iterator[bytes]) -> tuple[int, str]:
    digest, size = hashlib.sha256(), 0
    for block in blocks:
        digest.update(block)
        size += len(block)
    return size, digest.hexdigest()


def blocks_of(data: bytes | int) -> Iterator[bytes]:
    if isinstance(data, bytes):
        yield data
        return
    at = 0
    while block := os.pread(data, BLOCK_BYTES, at):
        yield block
        at += len(block)


def _block(fd: int, size: int, at: int) -> bytes:
    """So many bytes of a file from there, fewer at its end."""
    blocks = []
    while size > 0 and (block := os.pread(fd, size, at)):
        blocks.append(block)
        at += len(block)
        size -= len(block)
    return b"".join(blocks)


def same(store: Store, key: str, size: int, sha256: str, read_back: bool = False) -> bool:
    """Whether the object is there and is what is meant."""
    about = store.stat(key)
    if about is None or about[0] != size:
        return False
    if about[1] is not None and not read_back:
        return about[1] == sha256
    return sha256_of(store.get(key)) == (size, sha256)


class FileStore:
    """A folder, which may lie on another machine's disk."""

    def __init__(self, root: Path):
        self.root = root
        self.at_once = 1  # a disk is not quicker by being asked for several things
        self.url = f"file://{root}"

    def _error(self, doing: str, path: Path, error: OSError) -> StoreError:
        remedy = ", make room there" if error.errno in (errno.ENOSPC, errno.EDQUOT) else ""
        return StoreError(f"{path} cannot be {doing} ({error.strerror}){remedy}")

    def put(self, key: str, data: bytes | int, size: int, sha256: str) -> None:
        path = self.root / key
        temporary = path.with_name(f"{TEMPORARY}{os.getpid()}-{os.urandom(4).hex()}")
        try:
            made = self._make_folders(path.parent)
            fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
            try:
                for block in blocks_of(data):
                    view = memoryview(block)
                    while view:
                        view = view[os.write(fd, view) :]
                os.fsync(fd)
                # What is read back should come from the disk, not from what was just written.
                os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
            finally:
                os.close(fd)
            if sha256_of(self._read(temporary)) != (size, sha256):
                raise StoreError(f"{path} did not arrive as it was sent, look after the disk (or the source changes)")
            os.replace(temporary, path)
            for folder in (path.parent, *made):
                self._sync(folder)
        except OSError as error:
            raise self._error("written", path, error) from error
        finally:
            try:
                os.unlink(temporary)
            except OSError:
                pass

    def _make_folders(self, folder: Path) -> list[Path]:
        """The folders in which one was made."""
        missing = []
        while not folder.is_dir():
            missing.append(folder)
            folder = folder.parent
        for each in reversed(missing):
            try:
                os.mkdir(each, 0o700)
            except FileExistsError:
                pass
        return [each.parent for each in missing]

    @staticmethod
    def _sync(folder: Path) -> None:
        fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(fd)
        except OSError as error:
            if error.errno != errno.EINVAL:  # a file system that has nothing to sync
                raise
        finally:
            os.close(fd)

    @staticmethod
    def _read(path: Path) -> Iterator[bytes]:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
        try:
            while block := os.read(fd, BLOCK_BYTES):
                yield block
        finally:
            os.close(fd)

    def stat(self, key: str) -> tuple[int, str | None] | None:
        try:
            return os.stat(self.root / key, follow_symlinks=False).st_size, None
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise self._error("looked at", self.root / key, error) from error

    def get(self, key: str) -> Iterator[bytes]:
        try:
            yield from self._read(self.root / key)
        except OSError as error:
            raise self._error("read", self.root / key, error) from error

    def list(self, prefix: str) -> Iterator[tuple[str, int]]:
        folder = self.root / prefix
        try:
            yield from self._below(folder, prefix if not prefix or prefix.endswith("/") else prefix + "/")
        except (FileNotFoundError, NotADirectoryError):
            return
        except OSError as error:
            raise self._error("listed", folder, error) from error

    def _below(self, folder: Path, prefix: str) -> Iterator[tuple[str, int]]:
        for entry in os.scandir(folder):
            if entry.is_dir(follow_symlinks=False):
                yield from self._below(Path(entry.path), f"{prefix}{entry.name}/")
            elif entry.is_file(follow_symlinks=False):
                about = entry.stat(follow_symlinks=False)
                if not entry.name.startswith(TEMPORARY):
                    yield prefix + entry.name, about.st_size
                elif time.time() - about.st_mtime > STALE_S:
                    Path(entry.path).unlink(missing_ok=True)


class S3Store:
    """A bucket, and what keys begin with there."""

    def __init__(self, bucket: str, prefix: str):
        try:
            import boto3
            import botocore.config
            import botocore.exceptions
        except ModuleNotFoundError as error:
            raise NoLibrary("boto3") from error
        self.bucket = bucket
        self.at_once = AT_ONCE
        self.prefix = prefix.strip("/") + "/" if prefix.strip("/") else ""
        self.url = f"s3://{bucket}/{self.prefix}".rstrip("/")
        self._failures: tuple[type[Exception], ...] = (
            botocore.exceptions.BotoCoreError, botocore.exceptions.ClientError, OSError,
        )  # fmt: skip
        self._client_error = botocore.exceptions.ClientError
        self._secrets = [os.environ[name] for name in SECRETS if os.environ.get(name)]
        config = botocore.config.Config(
            retries={"mode": "standard", "max_attempts": 6}, connect_timeout=10, read_timeout=60,
            request_checksum_calculation="when_required", response_checksum_validation="when_required",
        )  # fmt: skip
        try:
            session = boto3.Session()
            self._client: Any = session.client("s3", config=config)
            known = session.get_credentials()
            if known is None:
                raise StoreError(
                    f"there are no credentials for {self.url}, set AWS_PROFILE, or AWS_ACCESS_KEY_ID and "
                    "AWS_SECRET_ACCESS_KEY, or give the machine a role"
                )
            frozen = known.get_frozen_credentials()
            self._secrets += [each for each in (frozen.secret_key, frozen.token, frozen.access_key) if each]
        except self._failures as error:
            raise StoreError(self.clean(f"{self.url} cannot be used ({error})")) from error

    def clean(self, text: str) -> str:
        """Without anything secret, on one line."""
        for secret in self._secrets:
            if len(secret) >= 4:
                text = text.replace(secret, "…")
        return " ".join(text.split())

    def _error(self, doing: str, key: str, error: Exception) -> StoreError:
        if isinstance(error, self._client_error):
            told = error.response.get("Error", {})
            why = f"{told.get('Code', '?')}: {told.get('Message', '')}".rstrip(": ")
        else:
            why = str(error) or type(error).__name__
        return StoreError(self.clean(f"{self.url}/{key} cannot be {doing} ({why})"))

    def put(self, key: str, data: bytes | int, size: int, sha256: str) -> None:
        if size > OBJECT_BYTES_MAX:
            raise StoreError(f"{key} has {size} bytes, more than the 5 TiB that an object may have")
        if size > PART_BYTES:
            self._put_parts(key, data, size, sha256)
            return
        body: bytes | IO[bytes]
        body = data if isinstance(data, bytes) else os.fdopen(os.dup(data), "rb")
        try:
            if not isinstance(body, bytes):
                body.seek(0)
            self._client.put_object(
                Bucket=self.bucket, Key=self.prefix + key, Body=body, ContentLength=size,
                ChecksumSHA256=base64.b64encode(bytes.fromhex(sha256)).decode(),
            )  # fmt: skip
        except self._failures as error:
            raise self._error("written", key, error) from error
        finally:
            if not isinstance(body, bytes):
                body.close()
        if not same(self, key, size, sha256):
            raise StoreError(f"{self.url}/{key} did not arrive as it was sent, ship again")

    def _put_parts(self, key: str, data: bytes | int, size: int, sha256: str) -> None:
        """In parts, several at once, each with its own SHA-256: the object is there once all of them are, and is read
        back, since a store tells the checksum of parts' checksums. When one fails, all go."""
        part_bytes = max(PART_BYTES, -(-size // PARTS_MAX))
        about = {"Bucket": self.bucket, "Key": self.prefix + key}
        upload = None
        try:
            upload = self._client.create_multipart_upload(**about, ChecksumAlgorithm="SHA256")["UploadId"]

            def part(number: int) -> dict[str, Any]:
                at = number * part_bytes
                body = data[at : at + part_bytes] if isinstance(data, bytes) else _block(data, part_bytes, at)
                if len(body) != min(part_bytes, size - at):
                    raise StoreError(f"{key} changes while it is shipped, ship again when it is complete")
                check = base64.b64encode(hashlib.sha256(body).digest()).decode()
                told = self._client.upload_part(
                    **about, UploadId=upload, PartNumber=number + 1, Body=body, ChecksumSHA256=check
                )
                return {"PartNumber": number + 1, "ETag": told["ETag"], "ChecksumSHA256": check}

            with ThreadPoolExecutor(AT_ONCE) as pool:
                try:
                    parts = list(pool.map(part, range(-(-size // part_bytes))))
                except BaseException:
                    pool.shutdown(cancel_futures=True)
                    raise
            self._client.complete_multipart_upload(**about, UploadId=upload, MultipartUpload={"Parts": parts})
            upload = None
        except self._failures as error:
            raise self._error("written", key, error) from error
        finally:
            if upload is not None:
                self._drop(key, upload)
        if not same(self, key, size, sha256, read_back=True):
            raise StoreError(f"{self.url}/{key} did not arrive as it was sent, ship again")

    def _drop(self, key: str, upload: str) -> None:
        """The parts of an upload that came to nothing; where that fails, too, drop_stale does it another time."""
        try:
            self._client.abort_multipart_upload(Bucket=self.bucket, Key=self.prefix + key, UploadId=upload)
        except self._failures:
            pass

    def drop_stale(self, prefix: str, older_s: float = STALE_UPLOAD_S) -> int:
        """Removes the parts that shippers which were killed left: nobody sees them, and the store wants money for them.
        Returns how many uploads that were. A store that refuses to tell of them keeps them."""
        dropped, now = 0, datetime.now(timezone.utc)
        try:
            pages = self._client.get_paginator("list_multipart_uploads")
            for page in pages.paginate(Bucket=self.bucket, Prefix=self.prefix + prefix):
                for each in page.get("Uploads", ()):
                    if (now - each["Initiated"]).total_seconds() > older_s:
                        self._drop(each["Key"][len(self.prefix) :], each["UploadId"])
                        dropped += 1
        except self._failures:
            pass
        return dropped

    def _missing(self, error: Exception) -> bool:
        if not isinstance(error, self._client_error):
            return False
        code = error.response.get("Error", {}).get("Code")
        return code in ("404", "NoSuchKey", "NotFound")

    def stat(self, key: str) -> tuple[int, str | None] | None:
        try:
            told = self._client.head_object(Bucket=self.bucket, Key=self.prefix + key, ChecksumMode="ENABLED")
        except self._failures as error:
            if self._missing(error):
                return None
            raise self._error("looked at", key, error) from error
        sha = told.get("ChecksumSHA256")
        try:
            digest = base64.b64decode(sha).hex() if sha and "-" not in sha else None
        except ValueError:
            digest = None
        return int(told["ContentLength"]), digest

    def get(self, key: str) -> Iterator[bytes]:
        try:
            told = self._client.get_object(Bucket=self.bucket, Key=self.prefix + key)
            yield from told["Body"].iter_chunks(BLOCK_BYTES)
        except self._failures as error:
            raise self._error("read", key, error) from error

    def list(self, prefix: str) -> Iterator[tuple[str, int]]:
        self.drop_stale(prefix)
        try:
            pages = self._client.get_paginator("list_objects_v2").paginate(Bucket=self.bucket, Prefix=self.prefix + prefix)
            for page in pages:
                for each in page.get("Contents", ()):
                    yield each["Key"][len(self.prefix) :], int(each["Size"])
        except self._failures as error:
            raise self._error("listed", prefix, error) from error


def open_store(url: str) -> Store:
    """s3://bucket/prefix or file:///folder. Raises StoreError, with one sentence."""
    parts = urlsplit(url)
    if parts.username or parts.password or "@" in parts.netloc or parts.query or parts.fragment:
        raise StoreError(
            "credentials and parameters do not belong into the address of a target: give them by AWS_PROFILE, by the "
            "variables of AWS, or by the machine's role"
        )
    if parts.scheme == "s3" and parts.netloc:
        return S3Store(parts.netloc, unquote(parts.path))
    if parts.scheme == "file" and parts.netloc in ("", "localhost") and parts.path.startswith("/"):
        return FileStore(Path(os.path.normpath(unquote(parts.path))))
    raise StoreError(f"{url[:200]} is no target, give s3://BUCKET/PREFIX or file:///FOLDER")
