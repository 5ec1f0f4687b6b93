"""Ray's own client, against a small server that answers as a dashboard does."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from jobs.remote.job_server import open_job_server
from jobs.remote.server_error import ServerError, ServerRefusesError

JOB = {"type": "SUBMISSION", "entrypoint": "python", "submission_id": "n", "status": "FAILED"}


class Dashboard:
    """Answers by path: (status, value)."""

    def __init__(self) -> None:
        self.answers: dict[str, tuple[int, Any]] = {
            "/api/version": (200, {"ray_version": "2.60.0", "version": "4"}),
            "/api/v0/cluster_metadata": (
                200,
                {"data": {"rayVersion": "2.60.0", "pythonVersion": "3.11.9"}},
            ),
            "/api/jobs/": (200, [JOB, {**JOB, "type": "DRIVER", "submission_id": None}]),
            "/api/jobs/n": (200, {**JOB, "driver_exit_code": 2}),
            "/api/jobs/m": (200, {**JOB, "status": "RUNNING"}),
        }
        self.address = ""


@pytest.fixture
def dashboard() -> Iterator[Dashboard]:
    board = Dashboard()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, value = board.answers.get(self.path, (404, {}))
            self.send_response(status)
            self.end_headers()
            self.wfile.write(json.dumps(value).encode())

        def log_message(self, *_arguments: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    board.address = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield board
    server.shutdown()
    server.server_close()
    thread.join()


def test_versions_jobs_and_ends_are_read_as_ray_tells_them(dashboard: Dashboard):
    server = open_job_server(dashboard.address)
    assert server.address == dashboard.address
    assert server.versions() == ("2.60.0", "3.11.9")
    assert server.jobs() == [("n", "FAILED"), (None, "FAILED")]
    end = server.end("n")
    assert end is not None
    assert (end.status, end.driver_exit_code) == ("FAILED", 2)
    assert server.end("m") is None


def test_a_job_that_is_gone_is_a_sentence(dashboard: Dashboard):
    with pytest.raises(ServerError, match="404"):
        open_job_server(dashboard.address).end("gone")


@pytest.mark.parametrize("status", [401, 403])
def test_a_missing_or_wrong_token_is_told_with_the_way_out(dashboard: Dashboard, status: int):
    dashboard.answers["/api/version"] = (status, "Unauthorized")
    with pytest.raises(ServerError, match=r"wants a token .* set RAY_AUTH_MODE=token"):
        open_job_server(dashboard.address)


@pytest.mark.parametrize("answer", [(200, {"data": {}}), (200, []), (404, "no")])
def test_a_dashboard_that_tells_no_version_is_refused(
    dashboard: Dashboard, answer: tuple[int, Any]
):
    dashboard.answers["/api/v0/cluster_metadata"] = answer
    with pytest.raises(ServerError, match="does not tell its version"):
        open_job_server(dashboard.address).versions()


def test_something_that_is_no_dashboard_is_refused(dashboard: Dashboard):
    dashboard.answers["/api/version"] = (404, "no")
    with pytest.raises(ServerError, match="refuses: Version check returned 404"):
        open_job_server(dashboard.address)


@pytest.mark.parametrize("answer", [{"version": "4"}, [], "Welcome"])
def test_another_web_server_is_no_dashboard(dashboard: Dashboard, answer: Any):
    dashboard.answers["/api/version"] = (200, answer)
    with pytest.raises(ServerRefusesError, match="is not the dashboard of a Ray cluster"):
        open_job_server(dashboard.address)


def test_the_address_that_is_given_comes_before_ray_s_variables(
    dashboard: Dashboard, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("RAY_ADDRESS", "http://127.0.0.1:1")
    assert open_job_server(dashboard.address).address == dashboard.address
