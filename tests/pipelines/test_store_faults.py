"""What is written to a store that fails is there once and whole, or the writer is told."""

from collections.abc import Iterator

import pytest
from fault_proxy import FAULTS, FaultPlan, FaultProxy, fault_proxy
from s3_kit import S3Server

from manifests.locations import read_bytes
from pipelines import store_client
from pipelines.storage import Storage, StorageError, open_storage

CONTENT = b"the committed unit" * 20_000


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
        monkeypatch.setattr(store_client, "FIRST_PAUSE_S", 0.01)
        yield running


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


def test_a_store_that_stays_down_is_told_with_the_object_s_name(
    storage: Storage, proxy: FaultProxy, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(store_client, "NUM_TRIES", 2)
    proxy.plan = FaultPlan(fault="reset")
    with pytest.raises(StorageError, match=r"rows/a cannot be used .*and that the store is up"):
        storage.put_if_absent("rows/a", b"1")


def test_credentials_that_expired_end_the_write_at_once(storage: Storage, proxy: FaultProxy):
    proxy.plan = FaultPlan(fault="expired")
    with pytest.raises(StorageError, match=r"ExpiredToken.*check the bucket, the credentials"):
        storage.put("rows/a", b"1")
    assert proxy.plan.num_failed == 1
