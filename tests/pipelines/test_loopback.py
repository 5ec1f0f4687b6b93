"""What a private cluster needs of this machine's network, before Ray waits for it."""

import errno
import os
import socket
from typing import Any

import pytest

from pipelines.session import loopback
from pipelines.session.cluster_error import ClusterError, ClusterRefusesError
from pipelines.session.loopback import check_loopback


@pytest.mark.parametrize("number", [errno.EADDRINUSE, errno.EMFILE, errno.ENETUNREACH])
def test_a_machine_without_ports_files_or_loopback_is_a_sentence(
    monkeypatch: pytest.MonkeyPatch, number: int
):
    def fail(*_arguments: Any, **_options: Any) -> None:
        raise OSError(number, os.strerror(number))

    name = "create_connection" if number == errno.ENETUNREACH else "socket"
    monkeypatch.setattr(loopback.socket, name, fail)
    with pytest.raises(ClusterError) as refused:
        check_loopback({})
    assert f"cannot listen at 127.0.0.1 ({os.strerror(number)})" in str(refused.value)
    assert "ulimit -n" in str(refused.value)
    assert refused.value.exit_code == 1


def test_a_wanted_port_that_is_taken_is_said_with_the_way_out_and_a_free_one_is_left_free():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ClusterError, match=f"'{port}' cannot be used .*in use.*unset RAY_GCS"):
            check_loopback({"RAY_GCS_SERVER_PORT": str(port)})
    check_loopback({"RAY_GCS_SERVER_PORT": str(port)})
    socket.create_server(("127.0.0.1", port)).close()


@pytest.mark.parametrize("wanted", ["tcp://10.0.0.1:6379", "65536", "-1"])
def test_a_wanted_port_that_is_no_port_is_refused(wanted: str):
    with pytest.raises(ClusterRefusesError, match="is no port; unset RAY_GCS_SERVER_PORT"):
        check_loopback({"RAY_GCS_SERVER_PORT": wanted})
