import socket
import urllib.request

import psutil
import pytest
from free_ports import free_ports

from pipelines.metrics.run import RunMetrics
from pipelines.metrics.server import MetricsAddress, MetricsPortError, parse_address, served


def test_a_port_alone_is_on_loopback():
    assert parse_address("9200") == MetricsAddress(host="127.0.0.1", port=9200)
    assert parse_address("0.0.0.0:9200") == MetricsAddress(host="0.0.0.0", port=9200)  # noqa: S104
    assert parse_address("[::1]:9200") == MetricsAddress(host="::1", port=9200)


@pytest.mark.parametrize("text", ["", "nine", "0", "70000", "host:", "127.0.0.1", "9200/tcp", "-1"])
def test_anything_else_is_refused_with_the_form_it_should_have(text: str):
    with pytest.raises(MetricsPortError, match="PORT or HOST:PORT"):
        parse_address(text)


def test_metrics_are_served_within_the_block_and_no_longer():
    (port,) = free_ports(1)
    address = parse_address(str(port))
    with served(RunMetrics(12).registry, address):
        with urllib.request.urlopen(f"http://{address}/metrics", timeout=10) as answer:
            assert "clora_rows_remaining 12.0" in answer.read().decode()
        listening = psutil.Process().net_connections("tcp")
        assert {each.laddr.ip for each in listening if each.laddr.port == port} == {"127.0.0.1"}
    with pytest.raises(OSError, match="refused"):
        urllib.request.urlopen(f"http://{address}/metrics", timeout=10)


def test_a_port_that_is_taken_is_a_sentence():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = MetricsAddress(host="127.0.0.1", port=taken.getsockname()[1])
        with (
            pytest.raises(MetricsPortError, match=f"served at {address}.*choose another port"),
            served(RunMetrics(1).registry, address),
        ):
            pass


def listening() -> set[tuple[str, int]]:
    """Return where this process takes connections."""
    connections = psutil.Process().net_connections("tcp")
    return {tuple(each.laddr) for each in connections if each.status == psutil.CONN_LISTEN}


def test_without_an_address_nothing_listens():
    before = listening()
    with served(RunMetrics(1).registry, None):
        assert listening() == before
