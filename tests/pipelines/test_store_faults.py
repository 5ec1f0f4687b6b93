"""What is written to a store that fails is there once and whole, or the writer hears of it."""

import re
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from fault_proxy import FAULTS, OUTAGES, FaultPlan, FaultProxy, fault_proxy, outage
from input_kit import row, write_job
from s3_kit import S3Server

from jobs.commands.compose import compose
from jobs.commands.plan import plan
from jobs.commands.validate import validate
from manifests.places import patience, s3_reader
from manifests.places.locations import (
    LocationError,
    StoreAwayError,
    expand,
    open_file,
    open_stream,
    read_bytes,
    stat,
)
from pipelines.storage import bucket as object_storage
from pipelines.storage import client as store_client
from pipelines.storage.error import PlaceError, StorageError
from pipelines.storage.storage import Storage, open_storage

CONTENT = b"the committed unit" * 20_000

REASONS = {
    "away": "connection refused|the connection broke off",
    "hang": "no answer in time",
    "reset": "the connection broke off",
    "lost-answer": "the connection broke off",
    "truncated-body": "the connection broke off",
    "error-500": "500 Internal Server Error: InternalError",
    "bad-gateway-502": "502 Bad Gateway",
    "slow-down-503": "503 Service Unavailable: SlowDown",
    "gateway-timeout-504": "504 Gateway Timeout",
    "too-many-429": "429 Too Many Requests: TooManyRequests",
}

CALLS: dict[str, Callable[[Storage], object]] = {
    "written": lambda storage: storage.put("rows/a", b"1"),
    "read": lambda storage: storage.read("rows/kept"),
    "listed": lambda storage: storage.list("rows", ""),
    "deleted": lambda storage: storage.delete("rows/a"),
}


@pytest.fixture
def storage(s3_uri: str) -> Storage:
    return open_storage(s3_uri)


@pytest.fixture
def proxy(
    s3_server: S3Server,
    storage: Storage,  # noqa: ARG001 - it sets the environment that is changed here
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[FaultProxy]:
    with fault_proxy(s3_server.port) as running:
        monkeypatch.setenv("AWS_ENDPOINT_URL", running.endpoint)
        monkeypatch.setattr(patience, "FIRST_PAUSE_S", 0.01)
        monkeypatch.setattr(patience, "LONGEST_PAUSE_S", 0.05)
        yield running


@pytest.fixture
def fault(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """One of the outages; of a store that says nothing, not much silence is waited for."""
    if request.param == "hang":
        monkeypatch.setattr(store_client, "REQUEST_S", 0.3)
        monkeypatch.setattr(store_client, "SLOWEST_BYTES_PER_S", 10**9)
        monkeypatch.setattr(object_storage, "COPY_S", 0.3)
        monkeypatch.setattr(s3_reader, "REQUEST_S", 1.0)
    return request.param


each_outage = pytest.mark.parametrize("fault", OUTAGES, indirect=True)


@pytest.mark.parametrize("fault", FAULTS)
def test_a_commit_through_a_failing_store_is_made_once_and_its_writer_knows(
    storage: Storage, proxy: FaultProxy, fault: str
):
    proxy.plan = FaultPlan(fault=fault, method="PUT", most=2)
    assert storage.put_if_absent("rows/a.parquet", CONTENT)
    assert proxy.plan.num_failed == 2 or fault in ("latency", "truncated-body")
    assert proxy.plan.num_failed >= 1
    assert storage.read("rows/a.parquet") == CONTENT
    assert not storage.put_if_absent("rows/a.parquet", b"another")


@pytest.mark.parametrize("fault", FAULTS)
def test_of_two_writers_the_second_loses_whatever_the_store_does(
    storage: Storage, proxy: FaultProxy, fault: str
):
    assert storage.put_if_absent("rows/a.parquet", b"first")
    proxy.plan = FaultPlan(fault=fault, method="PUT", most=2)
    assert not storage.put_if_absent("rows/a.parquet", CONTENT)
    assert storage.read("rows/a.parquet") == b"first"


@pytest.mark.parametrize("fault", FAULTS)
def test_reading_listing_and_deleting_outlast_a_failing_store(
    storage: Storage, proxy: FaultProxy, fault: str, s3_uri: str
):
    storage.put("rows/a.parquet", CONTENT)
    proxy.plan = FaultPlan(fault=fault, share=0.5, most=12, seed=3)
    assert storage.read("rows/a.parquet") == CONTENT
    with storage.open("rows/a.parquet") as file:
        file.seek(-9, 2)
        assert file.read() == CONTENT[-9:]
    assert storage.exists("rows/a.parquet")
    assert storage.list("rows", ".parquet") == ["rows/a.parquet"]
    assert list(storage.walk("rows")) == ["rows/a.parquet"]
    storage.put("rows/a.parquet", b"new")
    assert storage.read("rows/a.parquet") == b"new"
    assert read_bytes(f"{s3_uri}/rows/a.parquet", max_bytes=10) == b"new"
    storage.delete("rows/a.parquet")
    assert not storage.exists("rows/a.parquet")
    assert proxy.plan.num_failed


@each_outage
def test_an_outage_of_any_kind_that_is_shorter_than_the_time_is_not_seen(
    storage: Storage, proxy: FaultProxy, s3_uri: str, fault: str
):
    for part in ("made", "kept"):
        storage.put(f"rows/{part}", CONTENT)

    def away() -> None:
        proxy.plan = outage(fault, seconds=0.05)

    away()
    assert storage.put_if_absent("rows/unit", CONTENT)
    assert proxy.plan.num_failed
    away()
    storage.move("rows/made", "damaged/made")
    away()
    assert storage.read("rows/kept") == CONTENT
    away()
    storage.delete("rows/kept")
    away()
    assert storage.list("rows", "") == ["rows/unit"]
    away()
    assert sorted(storage.walk("")) == ["damaged/made", "rows/unit"]
    away()
    assert read_bytes(f"{s3_uri}/rows/unit", max_bytes=10**6) == CONTENT


@each_outage
def test_a_store_that_stays_away_is_named_with_the_object_what_was_tried_and_the_way_out(
    storage: Storage,
    proxy: FaultProxy,
    s3_uri: str,
    monkeypatch: pytest.MonkeyPatch,
    fault: str,
):
    storage.put("rows/kept", CONTENT)
    if fault == "hang":
        monkeypatch.setattr(store_client, "REQUEST_S", 0.1)
        store_client.client.cache_clear()
    patient, hasty = (open_storage(s3_uri, retry_s=seconds) for seconds in (0.1, 0.0))
    for verb, call in CALLS.items():
        # Uploads and deletions have no body to break off.
        kind = "reset" if fault == "truncated-body" and verb in ("written", "deleted") else fault
        store_client._patience.cache_clear()
        proxy.plan = outage(kind)
        with pytest.raises(StorageError) as raised:
            call(patient)
        assert re.fullmatch(
            rf"{s3_uri}/rows(/a|/kept)? cannot be {verb} \(({REASONS[kind]}); tried \d+ times in "
            r"[\d.]+ s\); check that the store is up and can be reached, and run the same command "
            r"again: what is committed stays \(resources\.store_retry_s in the job file sets for "
            r"how long is tried\)",
            str(raised.value),
        ), raised.value
        assert not isinstance(raised.value, PlaceError)
        with pytest.raises(StorageError, match=r"; tried once"):
            call(hasty)


def test_reading_an_open_file_ends_with_a_sentence_too(
    storage: Storage, proxy: FaultProxy, s3_uri: str
):
    storage.put("rows/a", CONTENT)

    def read() -> None:
        with open_storage(s3_uri, retry_s=0.1).open("rows/a") as file:
            proxy.plan = outage("reset")
            file.read()

    with pytest.raises(StorageError, match=r"rows/a cannot be read \(.*; tried \d+ times in 0"):
        read()


@pytest.mark.parametrize("endpoint", ["a name that nobody has", "one that accepts nothing"])
def test_a_host_that_is_not_there_is_tried_for_as_long(
    s3_uri: str, monkeypatch: pytest.MonkeyPatch, endpoint: str
):
    monkeypatch.setattr(store_client, "CONNECT_S", 0.1)
    with socket.socket() as busy, socket.socket() as first, socket.socket() as second:
        busy.bind(("127.0.0.1", 0))
        busy.listen(0)
        for waiting in (first, second):
            waiting.setblocking(False)
            waiting.connect_ex(busy.getsockname())
        host, reason = f"127.0.0.1:{busy.getsockname()[1]}", "no answer in time"
        if endpoint.startswith("a name"):
            host, reason = "nowhere.invalid", "the name of the host cannot be resolved"
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{host}")
        with pytest.raises(StorageError, match=rf"\({reason}; tried \d+ times in 0\.[4-9] s\)"):
            open_storage(s3_uri, retry_s=0.4).put("a", b"1")


@pytest.mark.parametrize(
    ("fault", "error", "sentence"),
    [
        ("expired", StorageError, r"403 Forbidden: ExpiredToken.*check the bucket, the cred"),
        ("no-conditions-501", StorageError, r"501 Not Implemented: NotImplemented"),
        ("no-bucket-404", PlaceError, r"there is no bucket s3://clora-tests; make it, or name"),
    ],
)
def test_a_refusal_ends_every_call_at_once(
    storage: Storage, proxy: FaultProxy, fault: str, error: type[StorageError], sentence: str
):
    for call in ("written", "listed"):
        proxy.plan = FaultPlan(fault=fault)
        with pytest.raises(error, match=sentence):
            CALLS[call](storage)
        assert proxy.plan.num_failed == 1


def test_a_commit_that_meets_another_one_under_way_asks_again_because_that_may_come_to_nothing(
    storage: Storage, proxy: FaultProxy
):
    proxy.plan = FaultPlan(fault="conflict-409", method="PUT", most=2)
    assert storage.put_if_absent("rows/a", b"ours")
    proxy.plan = FaultPlan(fault="conflict-409", method="PUT", most=2)
    assert not storage.put_if_absent("rows/a", b"another")
    assert storage.read("rows/a") == b"ours"


@pytest.mark.parametrize(
    "name", ["redirect", "LegoBuilder", "dns error", "169.254.1.1", "(code: X)"]
)
def test_words_in_a_name_are_not_taken_for_the_answer_of_the_store(
    monkeypatch: pytest.MonkeyPatch, name: str
):
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        for variable in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            monkeypatch.setenv(variable, "any")
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{closed.getsockname()[1]}")
        with pytest.raises(StorageError, match=r"\(connection refused; tried \d+ times"):
            open_storage(f"s3://bucket/{name}", retry_s=0.05).read("a")


@pytest.mark.parametrize("endpoint", ["localhost:9000", "http://", "ftp://host", "http://[::1"])
def test_an_endpoint_that_is_no_url_is_refused(
    storage: Storage, monkeypatch: pytest.MonkeyPatch, endpoint: str
):
    monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
    with pytest.raises(PlaceError, match=r"AWS_ENDPOINT_URL should be http\(s\)://host:port"):
        storage.put("a", b"1")


def test_the_more_is_sent_the_longer_an_answer_is_waited_for_with_few_clients():
    sizes = [0, 1000, 10**6, 10**7, 10**8, 10**9]
    waits_s = [store_client.upload_s(size) for size in sizes]
    assert waits_s == sorted(waits_s)
    assert waits_s[0] == store_client.REQUEST_S
    for size, wait_s in zip(sizes, waits_s, strict=True):
        assert 0.9 < wait_s / (15 + size / 524_288) < 2.1
    assert len({store_client.upload_s(size) for size in range(0, 10**9, 10**6)}) < 12


@each_outage
def test_an_input_whose_store_stays_away_is_named_with_what_was_tried(
    storage: Storage,
    proxy: FaultProxy,
    s3_uri: str,
    monkeypatch: pytest.MonkeyPatch,
    fault: str,
):
    monkeypatch.setattr(s3_reader, "RETRY_S", 0.05)
    storage.put("rows/a.csv", CONTENT)
    uri = f"{s3_uri}/rows/a.csv"
    proxy.plan = outage(fault)
    reads: list[Callable[[], object]] = [lambda: read_bytes(uri, max_bytes=10**7)]
    if fault not in ("truncated-body", "hang"):  # a head has no body; and that would take long
        reads += [lambda: stat(uri), lambda: expand(uri, suffixes=(".csv",))]
    sentence = rf"{uri} cannot be read \(.*; tried \d+ times in .* s.*\); check that the store is"
    for read in reads:
        with pytest.raises(StoreAwayError, match=sentence):
            read()


def test_a_job_whose_manifest_is_in_a_store_that_is_away_may_be_tried_again(
    storage: Storage,
    proxy: FaultProxy,
    s3_uri: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    monkeypatch.setattr(s3_reader, "RETRY_S", 0.05)
    storage.put("rows.csv", b"prompt\n")
    job = write_job(tmp_path, [row()], manifest=f"{s3_uri}/rows.csv")
    proxy.plan = outage("away")
    for command in (validate, plan, compose):
        assert command(job) == 1
        assert "rows.csv cannot be read (" in capsys.readouterr().err
    proxy.plan = FaultPlan()
    assert validate(job) == 2


def test_an_input_that_breaks_off_while_it_is_read_is_read_on_from_there(
    storage: Storage, proxy: FaultProxy, s3_uri: str
):
    content = bytes(range(256)) * 1000
    storage.put("a.bin", content)
    for opened in (open_stream, open_file):
        with opened(f"{s3_uri}/a.bin") as source:
            start = source.read(100_000)
            proxy.plan = FaultPlan(fault="truncated-body", most=3)
            assert start + source.read(100_000) + source.read() == content
        assert proxy.plan.num_failed == 3
    with open_file(f"{s3_uri}/a.bin") as source:
        assert source.read_at(7, 1000) == content[1000:1007]
        assert source.size() == len(content)


@pytest.mark.parametrize("fault", ["expired", "no-bucket-404"])
def test_an_input_that_is_refused_is_named_at_once(
    storage: Storage, proxy: FaultProxy, s3_uri: str, fault: str
):
    storage.put("a.csv", b"1")
    proxy.plan = FaultPlan(fault=fault)
    with pytest.raises(LocationError):
        read_bytes(f"{s3_uri}/a.csv", max_bytes=10)
    assert proxy.plan.num_failed <= 2
