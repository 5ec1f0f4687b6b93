"""A real S3 server on loopback for tests: SeaweedFS, one process, in a folder of its own."""

import json
import secrets
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import obstore
from free_ports import free_ports
from obstore.store import S3Store

BUCKET = "clora-tests"
READY_S = 120.0


@dataclass(frozen=True)
class S3Server:
    """A server that runs: where, and what the environment of its clients holds."""

    port: int
    environment: dict[str, str]

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"


@contextmanager
def running_s3(folder: Path) -> Iterator[S3Server]:
    """Run a server with one bucket (``BUCKET``); end it by its own process id."""
    access, secret = f"key{secrets.token_hex(4)}", secrets.token_hex(16)
    identity = {
        "name": "tests",
        "credentials": [{"accessKey": access, "secretKey": secret}],
        "actions": ["Admin", "Read", "Write", "List", "Tagging"],
    }
    identities = folder / "identities.json"
    identities.write_text(json.dumps({"identities": [identity]}))
    ports = free_ports(10)
    names = ("master", "volume", "filer", "s3")
    flags = {"dir": folder, "ip": "127.0.0.1", "ip.bind": "127.0.0.1", "s3.config": identities}
    flags |= {f"{name}.port": ports[index] for index, name in enumerate(names)}
    flags |= {f"{name}.port.grpc": ports[4 + index] for index, name in enumerate(names)}
    # These two are fixed otherwise, and a second server on the machine could not start.
    flags |= {"s3.port.iceberg": ports[8], "s3.port.lance": ports[9]}
    flags |= {"volume.max": 20, "master.volumeSizeLimitMB": 64, "master.telemetry": "false"}
    weed = Path(sys.executable).with_name("weed")
    command = [str(weed), "server", "-s3", *(f"-{name}={value}" for name, value in flags.items())]
    log = (folder / "weed.log").open("w")
    process = subprocess.Popen(command, stdout=log, stderr=log, cwd=folder)
    server = S3Server(
        port=ports[3],
        environment={
            "AWS_ACCESS_KEY_ID": access,
            "AWS_SECRET_ACCESS_KEY": secret,
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{ports[3]}",
            "AWS_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
        },
    )
    try:
        _make_bucket(server, process, folder / "weed.log")
        yield server
    finally:
        # It would take its time to say goodbye, and nothing that it holds is wanted any more.
        process.kill()
        process.wait()


def _make_bucket(server: S3Server, process: subprocess.Popen[bytes], log: Path) -> None:
    from pyarrow import fs

    deadline = time.monotonic() + READY_S
    while True:
        assert process.poll() is None, f"the server ended: {log.read_text()[-2000:]}"
        try:
            fs.S3FileSystem(
                access_key=server.environment["AWS_ACCESS_KEY_ID"],
                secret_key=server.environment["AWS_SECRET_ACCESS_KEY"],
                endpoint_override=f"127.0.0.1:{server.port}",
                scheme="http",
                region="us-east-1",
                allow_bucket_creation=True,
                retry_strategy=fs.AwsStandardS3RetryStrategy(max_attempts=1),
            ).create_dir(BUCKET)
            obstore.put(_store(server), "ready", b"")
        except Exception:  # noqa: BLE001 - whatever it says while it starts
            assert time.monotonic() < deadline, f"no answer: {log.read_text()[-2000:]}"
            time.sleep(0.3)
        else:
            return


def _store(server: S3Server) -> S3Store:
    return S3Store(
        BUCKET,
        endpoint=server.endpoint,
        access_key_id=server.environment["AWS_ACCESS_KEY_ID"],
        secret_access_key=server.environment["AWS_SECRET_ACCESS_KEY"],
        region="us-east-1",
        client_options={"allow_http": True},
        retry_config={"max_retries": 0},
    )
