"""Blobs from one registry to another, without disk: HEAD, mount, or a stream from GET to PUT."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from threading import Event, Lock
from typing import Literal

from app.registry.auth import MIN_PUT_BYTES
from app.registry.client import BlobStream, RegistryClient
from app.registry.errors import RegistryError
from app.registry.transport import Body
from app.rules.events import Descriptor

MOUNT_REFUSED = ("auth", "forbidden", "unsupported", "server")  # the blob is uploaded instead

Outcome = Literal["present", "mounted", "copied"]


class _Flight:
    """A copy on its way: to which repository, and how it ended."""

    def __init__(self, repository: str) -> None:
        self.repository = repository
        self.done = Event()
        self.error: BaseException | None = None


class BlobCopier:
    """Copies blobs to one target; threads that want the same digest there share one upload.

    `on_bytes` is called with the number of bytes of each piece before it is sent, and may wait.
    """

    def __init__(
        self, target: RegistryClient, on_bytes: Callable[[int], None] = lambda size_bytes: None
    ) -> None:
        self._target = target
        self._on_bytes = on_bytes
        self._flights: dict[str, _Flight] = {}
        self._lock = Lock()

    def copy_blob(
        self,
        source: RegistryClient,
        blob: Descriptor,
        source_repository: str,
        target_repository: str,
        candidates: Sequence[str] = (),
    ) -> Outcome:
        """Make the target's repository have the blob; says what that took.

        `candidates` are other repositories of the target that may have it already.

        Raises:
            RegistryError: its `registry` tells whose fault it is. When another thread's upload of
                the digest to the repository failed there, its error is raised here too.
        """
        while True:
            with self._lock:
                flight = self._flights.get(blob.digest)
                if flight is None:
                    mine = self._flights[blob.digest] = _Flight(target_repository)
                    break
            flight.done.wait()
            is_same = flight.repository == target_repository
            if flight.error is None and is_same:
                return "present"
            if flight.error is None:
                candidates = (flight.repository, *candidates)
            elif is_same and self._is_of_target(flight.error):
                raise flight.error
        try:
            return self._copy(source, blob, source_repository, target_repository, candidates)
        except BaseException as error:
            mine.error = error
            raise
        finally:
            with self._lock:
                del self._flights[blob.digest]
            mine.done.set()

    def _is_of_target(self, error: BaseException) -> bool:
        return isinstance(error, RegistryError) and error.registry == self._target.url

    def _copy(
        self,
        source: RegistryClient,
        blob: Descriptor,
        source_repository: str,
        repository: str,
        candidates: Sequence[str],
    ) -> Outcome:
        target = self._target
        if target.has_blob(repository, blob.digest):
            return "present"
        upload = ""
        for candidate in dict.fromkeys(candidates):
            if candidate == repository:
                continue
            try:
                upload = target.start_upload(repository, blob.digest, candidate)
            except RegistryError as error:
                if error.error_class not in MOUNT_REFUSED:
                    raise
                continue
            if not upload:
                return "mounted"
        while True:
            size = self._body_size(blob)
            try:
                with source.open_blob(source_repository, blob) as stream:
                    upload = upload or target.start_upload(repository)
                    self._upload(stream, blob, repository, upload, size)
                return "copied"
            except RegistryError as error:
                if error.error_class != "too_large" or size <= MIN_PUT_BYTES:
                    raise
            limit = max(MIN_PUT_BYTES, size // 4)
            target.max_put_bytes = min(target.max_put_bytes, target.chunk_bytes, limit)
            upload = ""

    def _body_size(self, blob: Descriptor) -> int:
        """How many bytes go into one request: all, unless that is too much for the target."""
        target = self._target
        whole = blob.size <= target.max_put_bytes
        return blob.size if whole else min(target.chunk_bytes, target.max_put_bytes)

    def _upload(
        self, stream: BlobStream, blob: Descriptor, repository: str, upload: str, size: int
    ) -> None:
        start = 0
        while size < blob.size and start < blob.size:
            length = min(size, blob.size - start)
            body = Body(self._counted(stream.take(length)), length)
            upload = self._target.patch_upload(repository, upload, start, body)
            start += length
        left = blob.size - start
        if not left:
            stream.check()  # of an empty blob; of others the last piece was
        body = Body(self._counted(stream.take(left)), left)
        self._target.put_upload(repository, upload, blob.digest, body)

    def _counted(self, pieces: Iterator[bytes]) -> Iterator[bytes]:
        for piece in pieces:
            self._on_bytes(len(piece))
            yield piece
