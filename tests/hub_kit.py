"""A model hub on loopback for tests: the few endpoints that fetching a file takes."""

import hashlib
import json
import os
import sys
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Lock, Thread
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest

from manifests.places.hub_problems import may_pass
from manifests.places.patience import Patience


@dataclass
class Hub:
    """What the server holds and how it misbehaves.

    Attributes:
        endpoint: Where it is.
        commits: Files of each repository, by commit.
        branches: The commit of each branch, by repository.
        refusals: Status and error code that a repository is refused with.
        cut_after: Bytes after which each download breaks off; None: never.
        requests: What it was asked, as ``METHOD /path``.
    """

    endpoint: str = ""
    commits: dict[str, dict[str, dict[str, bytes]]] = field(default_factory=dict)
    branches: dict[str, dict[str, str]] = field(default_factory=dict)
    refusals: dict[str, tuple[int, str]] = field(default_factory=dict)
    cut_after: int | None = None
    requests: list[str] = field(default_factory=list)
    lock: Lock = field(default_factory=Lock)

    def commit(self, repository: str, files: dict[str, bytes], *, branch: str = "main") -> str:
        """Put files into a repository, in place of those there; return the commit."""
        commits = self.commits.setdefault(repository, {})
        commit = f"{len(commits) + 1:040x}"
        commits[commit] = files
        self.branches.setdefault(repository, {})[branch] = commit
        return commit

    def downloads(self) -> list[str]:
        """Return the paths that were fetched."""
        asked = [said.split(" ", 1) for said in self.requests]
        return [path for method, path in asked if method == "GET" and "/resolve/" in path]

    def environment(self, cache: Path) -> dict[str, str]:
        """Return the environment of a process that uses the hub."""
        return os.environ | {
            "HF_ENDPOINT": self.endpoint,
            "HF_HUB_CACHE": str(cache),
            "HF_HUB_OFFLINE": "0",
            "HF_HUB_DISABLE_TELEMETRY": "1",
        }


@contextmanager
def running_hub() -> Generator[Hub]:
    """Serve a hub until the block ends."""
    hub = Hub()

    class Handler(_Handler):
        served = hub

    server = _Server(("127.0.0.1", 0), Handler)
    hub.endpoint = f"http://127.0.0.1:{server.server_port}"
    thread = Thread(target=lambda: server.serve_forever(poll_interval=0.01), daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Server(ThreadingHTTPServer):
    def handle_error(self, request: Any, client_address: Any) -> None:
        """Print what goes wrong here, and nothing of a client that breaks off."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    served: Hub
    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def log_message(self, format: str, *_: Any) -> None:
        """Say nothing."""

    def _answer(self) -> None:
        hub, path = self.served, unquote(urlsplit(self.path).path)
        with hub.lock:
            hub.requests.append(f"{self.command} {path}")
        is_question = path.startswith("/api/models/")
        parts = path.removeprefix("/api/models").lstrip("/").split("/", 3)
        if len(parts) < 4:  # whatever else the client asks of a hub
            return self._refuse(404, "")
        owner, name, _, rest = parts
        repository = f"{owner}/{name}"
        if repository in hub.refusals:
            return self._refuse(*hub.refusals[repository])
        if repository not in hub.commits:
            return self._refuse(404, "RepoNotFound")
        revision, _, file = (rest, "", "") if is_question else rest.partition("/")
        commit = hub.branches[repository].get(revision, revision)
        files = hub.commits[repository].get(commit)
        if files is None:
            return self._refuse(404, "RevisionNotFound")
        if is_question:
            return self._describe(repository, commit, files)
        if file not in files:
            return self._refuse(404, "EntryNotFound", commit)
        return self._give(files[file], commit)

    def _describe(self, repository: str, commit: str, files: dict[str, bytes]) -> None:
        siblings = [{"rfilename": name, "size": len(files[name])} for name in files]
        body = json.dumps({"id": repository, "sha": commit, "siblings": siblings}).encode()
        self._send(200, {"Content-Type": "application/json"}, body)

    def _give(self, content: bytes, commit: str) -> None:
        etag = hashlib.sha256(content).hexdigest()
        headers = {"X-Repo-Commit": commit, "ETag": f'"{etag}"', "X-Linked-Size": str(len(content))}
        self._send(200, headers, content, cut_after=self.served.cut_after)

    def _refuse(self, status: int, code: str, commit: str = "") -> None:
        self._send(status, {"X-Error-Code": code} | ({"X-Repo-Commit": commit} if commit else {}))

    def _send(
        self, status: int, headers: dict[str, str], body: bytes = b"", cut_after: int | None = None
    ) -> None:
        self.send_response(status)
        for name, value in (headers | {"Content-Length": str(len(body))}).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body[:cut_after])
            self.close_connection = cut_after is not None


@contextmanager
def opened(hub: Hub, cache: Path) -> Generator[None]:
    """Have this process use the hub, and give up on it at once."""
    from huggingface_hub import constants

    from manifests.places import hub_files

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(constants, "ENDPOINT", hub.endpoint)
        template = hub.endpoint + "/{repo_id}/resolve/{revision}/{filename}"
        patch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        patch.setattr(constants, "HF_HUB_OFFLINE", False)
        patch.setattr(constants, "HF_HUB_CACHE", str(cache))
        patch.setattr(hub_files, "RETRY_S", 0.0)
        patch.setattr(hub_files, "_sizes", {})
        patch.setattr(hub_files, "_patience", Patience(may_pass))
        yield
