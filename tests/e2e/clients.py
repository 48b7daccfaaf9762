"""What people and programs do with the two servers, as sentences: no test speaks HTTP itself."""

from __future__ import annotations

import hashlib
import html
import json
import re
import subprocess
from pathlib import Path
from typing import Any

import requests
from images import IMAGE, INDEX, Image
from processes import PASSWORDS, TOKEN, Registry, Server

DOCKER = "docker/27.3.1 go/go1.22.7 git-commit/41ca978 kernel/6.1.0 os/linux arch/amd64"
ENVELOPE = "application/vnd.docker.distribution.events.v1+json"
SKOPEO_S = 60.0

Item = dict[str, Any]


class _Client:
    """A session that takes nothing from the environment: no proxy, no netrc."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.session = requests.Session()
        self.session.trust_env = False

    def close(self) -> None:
        self.session.close()


class Account(_Client):
    """Somebody who uses the API and reads the pages by HTTP Basic.

    Who is patient looks when all is worked in that the server accepted.
    """

    def __init__(
        self, server: Server, name: str, password: str | None = None, patient: bool = True
    ) -> None:
        super().__init__(server.url)
        self.session.auth = (name, password or PASSWORDS[name])
        self._server = server
        self._is_patient = patient

    def get(self, path: str, **parameters: Any) -> requests.Response:
        self._wait()
        return self.session.get(f"{self.url}{path}", params=parameters, timeout=10)

    def items(self, collection: str, **filters: Any) -> list[Item]:
        """All items of a list of the API, over all of its pages."""
        self._wait()
        found: list[Item] = []
        url: str | None = f"{self.url}/api/v1/{collection}?limit=500&total=1"
        while url:
            answer = self.session.get(url, params=filters, timeout=30)
            assert answer.status_code == 200, answer.text
            page = answer.json()
            found += page["items"]
            url, filters = page["next"], {}
        assert len(found) == page["total"]
        return found

    def records(self, **filters: Any) -> list[Item]:
        return self.items("records", **filters)

    def tags(self, **filters: Any) -> list[Item]:
        return self.items("tags", **filters)

    def repositories(self, **filters: Any) -> list[Item]:
        return self.items("repositories", **filters)

    def read(self, path: str, **parameters: Any) -> str:
        """The text of a page, without markup."""
        answer = self.get(path, **parameters)
        assert answer.status_code == 200, answer.text
        assert answer.headers["Content-Type"].startswith("text/html")
        return " ".join(html.unescape(re.sub(r"<[^>]*>", " ", answer.text)).split())

    def _wait(self) -> None:
        if self._is_patient:
            self._server.wait_until_worked_in()


class Webhook(_Client):
    """Whoever posts envelopes to the server as a registry does."""

    def __init__(self, server: Server, token: str = TOKEN) -> None:
        super().__init__(server.url)
        self.session.headers.update({"Authorization": f"Bearer {token}", "Content-Type": ENVELOPE})

    def post(self, *events: Any, timeout_s: float = 10.0) -> requests.Response:
        """Send events, whatever they are, in one envelope."""
        return self.post_body(json.dumps({"events": events}).encode(), timeout_s)

    def post_body(self, body: bytes, timeout_s: float = 10.0) -> requests.Response:
        return self.session.post(f"{self.url}/events", data=body, timeout=timeout_s)

    def is_acknowledged(self, event: Item) -> bool:
        """Send one event once, with the time-out of a registry."""
        try:
            return self.post(event, timeout_s=1.0).status_code == 202
        except requests.RequestException:
            return False


class DockerClient(_Client):
    """The requests of `docker` 20.10 and later."""

    def __init__(self, registry: Registry, name: str) -> None:
        super().__init__(f"{registry.url}/v2")
        self.session.auth = (name, PASSWORDS[name])
        self.session.headers.update({"User-Agent": DOCKER, "Accept": f"{INDEX}, {IMAGE}"})

    def look_up(self, repository: str, tag: str) -> str:
        """Ask for the digest of a tag, as `docker pull` begins and `docker manifest` ends."""
        answer = self.session.head(f"{self.url}/{repository}/manifests/{tag}", timeout=10)
        assert answer.status_code == 200
        return answer.headers["Docker-Content-Digest"]

    def get_manifest(self, repository: str, digest: str) -> Item:
        answer = self.session.get(f"{self.url}/{repository}/manifests/{digest}", timeout=10)
        assert answer.status_code == 200
        return answer.json()

    def pull(self, repository: str, tag: str, architecture: str = "amd64") -> None:
        """`docker pull` of an image or of the one for an architecture."""
        manifest = self.get_manifest(repository, self.look_up(repository, tag))
        for child in manifest.get("manifests", []):
            if child["platform"]["architecture"] == architecture:
                manifest = self.get_manifest(repository, child["digest"])
        for blob in [manifest["config"], *manifest["layers"]]:
            answer = self.session.get(f"{self.url}/{repository}/blobs/{blob['digest']}", timeout=10)
            assert answer.status_code == 200


class Publisher(_Client):
    """Stores what it is told to, in a spelling of JSON that nobody else uses.

    Returns descriptors as manifests name them.
    """

    def __init__(self, registry: Registry, name: str) -> None:
        super().__init__(f"{registry.url}/v2")
        self.session.auth = (name, PASSWORDS[name])
        self.session.headers["User-Agent"] = DOCKER
        self._put: set[tuple[str, str]] = set()

    def put_blob(self, repository: str, content: bytes, media_type: str) -> Item:
        digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
        if (repository, digest) not in self._put:
            begun = self.session.post(f"{self.url}/{repository}/blobs/uploads/", timeout=10)
            answer = self.session.put(
                begun.headers["Location"], params={"digest": digest}, data=content, timeout=30
            )
            assert answer.status_code == 201, answer.text
            self._put.add((repository, digest))
        return {"mediaType": media_type, "digest": digest, "size": len(content)}

    def put_manifest(self, repository: str, tag: str, media_type: str, **content: Any) -> Item:
        """Store a manifest under a tag, or under its digest without one."""
        document = {"mediaType": media_type, "schemaVersion": 2, **content}
        body = json.dumps(document, indent=7).encode() + b"\n \n"
        digest = f"sha256:{hashlib.sha256(body).hexdigest()}"
        self._put_body(repository, tag or digest, media_type, body)
        return {"mediaType": media_type, "digest": digest, "size": len(body)}

    def add_tag(self, repository: str, item: Item, tag: str) -> None:
        """Give an image one more tag."""
        kind, url = item["mediaType"], f"{self.url}/{repository}/manifests/{item['digest']}"
        answer = self.session.get(url, headers={"Accept": kind}, timeout=10)
        self._put_body(repository, tag, kind, answer.content)

    def _put_body(self, repository: str, reference: str, media_type: str, body: bytes) -> None:
        url = f"{self.url}/{repository}/manifests/{reference}"
        answer = self.session.put(url, data=body, headers={"Content-Type": media_type}, timeout=10)
        assert answer.status_code == 201, answer.text

    def delete(self, repository: str, digest: str) -> None:
        """Delete a manifest, and with it all of its tags."""
        url = f"{self.url}/{repository}/manifests/{digest}"
        assert self.session.delete(url, timeout=10).status_code == 202


class Skopeo:
    """skopeo, as one account of the registry."""

    def __init__(self, registry: Registry, name: str, home: Path) -> None:
        self._registry = registry
        self._credentials = f"{name}:{PASSWORDS[name]}"
        self._home = home

    def push(self, image: Image, reference: str, *options: str) -> None:
        """Copy an image, with all its platforms, to `repository:tag`."""
        kept = () if "--format" in options else ("--preserve-digests",)
        target = f"docker://{self._registry.address}/{reference}"
        self._run("copy", "--all", *kept, *options, *self._there("dest-"), image.source, target)

    def pull(self, reference: str, directory: Path) -> None:
        """Copy an image, with all its platforms, out of the registry."""
        source = f"docker://{self._registry.address}/{reference}"
        self._run("copy", "--all", *self._there("src-"), source, f"dir:{directory}")

    def inspect(self, reference: str) -> Item:
        """What skopeo says about an image, from the registry."""
        source = f"docker://{self._registry.address}/{reference}"
        return json.loads(self._run("inspect", *self._there(), source))

    def digest(self, reference: str) -> str:
        """The digest of the bytes that a tag or digest names, whatever they are."""
        source = f"docker://{self._registry.address}/{reference}"
        raw = self._run("inspect", "--raw", *self._there(), source)
        return f"sha256:{hashlib.sha256(raw.encode()).hexdigest()}"

    def tags(self, repository: str) -> list[str]:
        source = f"docker://{self._registry.address}/{repository}"
        return sorted(json.loads(self._run("list-tags", *self._there(), source))["Tags"])

    def delete(self, reference: str) -> None:
        self._run("delete", *self._there(), f"docker://{self._registry.address}/{reference}")

    def _there(self, prefix: str = "") -> list[str]:
        return [f"--{prefix}tls-verify=false", f"--{prefix}creds={self._credentials}"]

    def _run(self, *arguments: str) -> str:
        finished = subprocess.run(
            ["skopeo", "--insecure-policy", *arguments],
            env={"HOME": str(self._home), "PATH": "/usr/local/bin:/usr/bin:/bin"},
            capture_output=True,
            text=True,
            timeout=SKOPEO_S,
            check=False,
        )
        assert finished.returncode == 0, finished.stderr
        return finished.stdout
