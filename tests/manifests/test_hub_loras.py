"""LoRAs of the model hub: fetched once a machine, pinned, used offline, refused in a sentence."""

import errno
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hub_kit import Hub, opened, running_hub
from input_kit import adapter_config, kohya_tensors, row, safetensors_bytes, write_job

from jobs.job.inputs import prepare
from jobs.job.job_file import load_job
from manifests.loras.catalog import LoraEntry, read_lora_catalog
from manifests.loras.files import LoraFiles
from manifests.loras.local_lora import local_lora
from manifests.places.allowed_roots import allowed_roots
from manifests.places.hub_names import hub_file
from manifests.places.locations import LocationError, StoreAwayError
from pipelines.stages.lora_identity import LoraIdentity

CAT = safetensors_bytes(kohya_tensors())
OTHER_CAT = safetensors_bytes(kohya_tensors(seed=1))
PEFT_LAYER = "base_model.model.mid_block.attentions.0.transformer_blocks.0.attn2.to_k"
PEFT = {
    "adapter_model.safetensors": safetensors_bytes(
        {
            f"{PEFT_LAYER}.lora_A.weight": np.ones((4, 96), "f4"),
            f"{PEFT_LAYER}.lora_B.weight": np.ones((8, 4), "f4"),
        }
    ),
    "adapter_config.json": adapter_config(4, 8).encode(),
}


@pytest.fixture(scope="module")
def server() -> Iterator[Hub]:
    with running_hub() as hub:
        yield hub


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "hub"


@pytest.fixture
def hub(server: Hub, cache: Path) -> Iterator[Hub]:
    """An open hub with nothing in it."""
    vars(server).update(vars(Hub(endpoint=server.endpoint)))
    with opened(server, cache):
        yield server


def close(monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)


def entry(uri: str, **values: str) -> LoraEntry:
    return LoraEntry(name="cat", uri=uri, subject="cat", **values)  # pyright: ignore[reportArgumentType]


def problem(uri: str, **values: str) -> str:
    state = LoraFiles().state(entry(uri, **values))
    assert state.info is None
    return str(state.problem)


def test_a_file_is_fetched_once_and_then_nobody_is_asked(hub: Hub):
    commit = hub.commit("owner/name", {"loras/cat.safetensors": CAT})
    uri = f"owner/name@{commit}:loras/cat.safetensors"
    assert local_lora(uri).read_bytes() == CAT
    assert hub.downloads() == [f"/owner/name/resolve/{commit}/loras/cat.safetensors"]
    hub.requests.clear()
    assert local_lora(uri).read_bytes() == CAT
    assert hub.requests == []


def test_two_processes_of_a_machine_fetch_a_file_once(hub: Hub, cache: Path):
    commit = hub.commit("owner/name", {"cat.safetensors": CAT})
    code = "import sys; from manifests.loras.local_lora import local_lora; local_lora(sys.argv[1])"
    command = [sys.executable, "-c", code, f"owner/name@{commit}:cat.safetensors"]
    both = [subprocess.Popen(command, env=hub.environment(cache)) for _ in range(2)]
    assert [process.wait(60) for process in both] == [0, 0]
    assert len(hub.downloads()) == 1


def test_a_branch_is_one_commit_for_all_files_of_a_run_and_rows_are_given_that(hub: Hub):
    first = hub.commit("owner/name", {"cat.safetensors": CAT, "dog.safetensors": CAT})
    cat, dog = (entry(f"owner/name@main:{name}.safetensors") for name in ("cat", "dog"))
    files = LoraFiles()
    assert files.state(cat).problem is None
    second = hub.commit("owner/name", {"cat.safetensors": OTHER_CAT, "dog.safetensors": OTHER_CAT})
    assert files.state(dog).digest == files.state(cat).digest
    assert files.place(dog) == f"owner/name@{first}:dog.safetensors"
    assert sum("/revision/main" in asked for asked in hub.requests) == 1
    later = LoraFiles()
    assert later.state(cat).digest != files.state(cat).digest
    assert later.place(cat) == f"owner/name@{second}:cat.safetensors"
    assert local_lora(files.place(cat)).read_bytes() == CAT


@pytest.mark.parametrize("is_closed", [True, False], ids=["HF_HUB_OFFLINE", "no network"])
def test_without_the_hub_a_branch_is_the_commit_that_was_seen_last(
    hub: Hub, monkeypatch: pytest.MonkeyPatch, *, is_closed: bool
):
    cat = entry("owner/name@main:cat.safetensors")
    hub.commit("owner/name", {"cat.safetensors": OTHER_CAT})
    LoraFiles().state(cat)
    commit = hub.commit("owner/name", {"cat.safetensors": CAT})
    expected = LoraFiles().state(cat)
    hub.requests.clear()
    if is_closed:
        close(monkeypatch)
    else:
        hub.refusals["owner/name"] = (503, "")
    files = LoraFiles()
    assert files.state(cat) == expected
    assert files.place(cat) == f"owner/name@{commit}:cat.safetensors"
    assert hub.requests == ([] if is_closed else ["GET /api/models/owner/name/revision/main"])


@pytest.mark.parametrize("path", ["unet", "unet/", "unet/adapter_model.safetensors"])
def test_a_folder_of_peft_is_the_lora_that_it_is_on_a_disk(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str
):
    (tmp_path / "unet").mkdir()
    for name, content in PEFT.items():
        (tmp_path / "unet" / name).write_bytes(content)
    expected = LoraFiles().state(entry(str(tmp_path / "unet")))
    assert expected.problem is None
    commit = hub.commit("owner/name", {f"unet/{name}": content for name, content in PEFT.items()})
    cat = entry(f"owner/name@{commit}:{path}")
    assert LoraFiles().state(cat) == expected
    assert len(hub.downloads()) == 2
    close(monkeypatch)
    assert LoraFiles().state(cat) == expected


def test_at_the_root_of_a_repository_the_name_ends_with_the_colon(hub: Hub):
    commit = hub.commit("owner/name", PEFT | {"README.md": b"cat"})
    copy = local_lora(f"owner/name@{commit}:")
    assert {file.name for file in copy.parent.iterdir()} == set(PEFT)


def test_that_there_are_no_settings_beside_the_tensors_is_known_without_the_hub(
    hub: Hub, monkeypatch: pytest.MonkeyPatch
):
    from manifests.places import hub_files

    commit = hub.commit("owner/name", {"adapter_model.safetensors": CAT})
    cat = entry(f"owner/name@{commit}:")
    expected = LoraFiles().state(cat)
    assert expected.problem is None
    close(monkeypatch)
    monkeypatch.setattr(hub_files, "_sizes", {})
    assert LoraFiles().state(cat) == expected


def test_the_catalog_s_sha256_pins_the_file(hub: Hub):
    hub.commit("owner/name", {"cat.safetensors": CAT})
    uri = "owner/name@main:cat.safetensors"
    right = LoraFiles().state(entry(uri)).info
    assert right is not None
    assert LoraFiles().state(entry(uri, sha256=right.file_sha256)).problem is None
    said = problem(uri, sha256="0" * 64)
    assert said.startswith(f"{uri} has the sha256 {right.file_sha256} and the catalog says 0000")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("owner/nam@main:cat.safetensors",
         "does not exist: the hub has no repository 'owner/nam', or it is private; correct the "
         "name, or set HF_TOKEN"),
        ("owner/name@mayn:cat.safetensors",
         "does not exist: 'owner/name' has no revision 'mayn'; write a branch, a tag or best a "
         "commit"),
        (f"owner/name@{'0' * 40}:cat.safetensors", "has no revision '000000"),
        ("owner/name@main:cta.safetensors",
         "does not exist: the repository has no such file at this revision; did you mean "
         "'cat.safetensors'?"),
        ("owner/name@main:many",
         "is a folder without adapter_model.safetensors; name the file: "
         "owner/name@main:many/a.safetensors, owner/name@main:many/b.safetensors"),
        ("owner/name@main:",
         "is a folder without adapter_model.safetensors; name the file: "
         "owner/name@main:cat.safetensors, owner/name@main:many/a.safetensors, "
         "owner/name@main:many/b.safetensors"),
        ("owner/name@main:text", "no file in it ends in .safetensors; "),
        ("owner/name@main:none", "the repository has no such file or folder at this revision; "),
        ("owner/name@main:cat.bin",
         "does not end in .safetensors, and only that format is read; known: cat.safetensors, "),
        ("owner/gated@main:cat.safetensors",
         "may not be read: 'owner/gated' is gated; accept its terms on its page, and set HF_TOKEN"),
        ("owner/private@main:cat.safetensors", "or it is private; correct the name, or set "),
        ("owner/forbidden@main:cat.safetensors",
         "may not be read (HTTP status 403); set HF_TOKEN to a token that may read "
         "'owner/forbidden'"),
        ("owner/token@main:cat.safetensors", "may not be read (HTTP status 401); set HF_TOKEN to "),
        ("owner/na--me@main:cat.safetensors", "cannot be fetched from the hub (Cannot have -- "),
    ],
)  # fmt: skip
def test_what_cannot_be_had_is_one_sentence_with_a_way_out(hub: Hub, name: str, words: str):
    files = ("cat.safetensors", "cat.bin", "many/a.safetensors", "many/b.safetensors", "text/x.txt")
    hub.commit("owner/name", dict.fromkeys(files, CAT))
    hub.refusals |= {
        "owner/gated": (403, "GatedRepo"),
        "owner/private": (401, "RepoNotFound"),
        "owner/token": (401, ""),
        "owner/forbidden": (403, ""),
    }
    said = problem(name)
    assert said.startswith(f"{name} ")
    assert words in said
    assert hub.downloads() == []
    assert "\n" not in said


def test_a_name_without_a_revision_is_told_what_it_lacks(tmp_path: Path):
    (tmp_path / "loras.yaml").write_text(
        "loras:\n- {name: cat, uri: 'owner/name:cat.safetensors', subject: cat}\n"
    )
    catalog = read_lora_catalog(str(tmp_path / "loras.yaml"))
    said = str(LoraFiles().state(catalog["cat"]).problem)
    assert "does not exist; if it is a file of the hub, write owner/name@REVISION:cat." in said


def test_the_address_of_a_page_is_told_how_the_file_is_named():
    said = problem("https://huggingface.co/owner/name/resolve/main/cat.safetensors")
    assert said.endswith("; for a file of the hub write owner/name@main:cat.safetensors")


def test_what_is_neither_here_nor_to_be_fetched_names_the_switch(
    hub: Hub, monkeypatch: pytest.MonkeyPatch
):
    commit = hub.commit("owner/name", {"cat.safetensors": CAT})
    close(monkeypatch)
    for revision in ("main", commit):
        said = problem(f"owner/name@{revision}:cat.safetensors")
        assert "is not on this machine, and HF_HUB_OFFLINE closes the hub; unset it once" in said
    assert hub.requests == []


def test_a_hub_that_does_not_answer_ends_the_command_and_blames_no_row(
    hub: Hub, monkeypatch: pytest.MonkeyPatch
):
    from huggingface_hub import constants

    from manifests.places import hub_files

    hub.refusals["owner/name"] = (503, "")
    with pytest.raises(StoreAwayError, match=r"cannot be fetched from the hub \(HTTP status 503; "):
        LoraFiles().state(entry("owner/name@main:cat.safetensors"))
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{silent.getsockname()[1]}")
        monkeypatch.setattr(hub_files, "REQUEST_S", 0.2)
        with pytest.raises(StoreAwayError, match=r"timed out; .* check the network, proxy and HF_"):
            local_lora("owner/name@main:cat.safetensors")
    with pytest.raises(StoreAwayError, match=r"\(Connection refused; "):
        local_lora("owner/name@main:cat.safetensors")


def test_a_download_that_is_cut_short_leaves_nothing_and_succeeds_later(
    hub: Hub, cache: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("time.sleep", lambda _: None)
    hub.cut_after = 100
    commit = hub.commit("owner/name", {"cat.safetensors": CAT})
    uri = f"owner/name@{commit}:cat.safetensors"
    with pytest.raises(StoreAwayError, match=f"received 100 bytes, expected {len(CAT)}"):
        local_lora(uri)
    assert not [file for file in cache.rglob("*") if file.is_file() and file.stat().st_size == 100]
    hub.cut_after = None
    assert local_lora(uri).read_bytes() == CAT


def test_a_full_disk_is_named(hub: Hub, cache: Path, monkeypatch: pytest.MonkeyPatch):
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("huggingface_hub.file_download.http_get", full)
    commit = hub.commit("owner/name", {"cat.safetensors": CAT})
    with pytest.raises(StoreAwayError) as caught:
        local_lora(f"owner/name@{commit}:cat.safetensors")
    assert f"cannot be kept in {cache} (No space left on device); make room" in str(caught.value)


def test_a_file_that_is_too_large_is_not_fetched(hub: Hub):
    from manifests.places import hub_files

    commit = hub.commit("owner/name", {"cat.safetensors": CAT})
    named = hub_file(f"owner/name@{commit}:cat.safetensors")
    assert named is not None
    with pytest.raises(LocationError, match=f"has {len(CAT):,} bytes; at most 10 are fetched"):
        hub_files.hub_copy(named, max_bytes=10)
    assert hub.downloads() == []


def test_a_bad_file_is_called_as_the_catalog_calls_it(hub: Hub):
    hub.commit("owner/name", {"cat.safetensors": b"\x80\x02}q\x00."})
    uri = "owner/name@main:cat.safetensors"
    assert problem(uri).startswith(f"{uri} is a Python pickle")


@pytest.mark.parametrize(
    ("roots", "is_open"),
    [
        ("/srv", False),
        ("/srv,hf://other", False),
        ("", False),
        ("/srv,hf://owner", True),
        ("hf://", True),
    ],
)
def test_a_service_opens_repositories_by_name(tmp_path: Path, roots: str, *, is_open: bool):
    uri = "owner/name@main:cat.safetensors"
    (tmp_path / "loras.yaml").write_text(f"loras:\n- {{name: cat, uri: '{uri}', subject: cat}}\n")
    roots = f"{tmp_path},{roots}"
    catalog = read_lora_catalog(
        str(tmp_path / "loras.yaml"), allowed=allowed_roots({"CLORA_ALLOWED_ROOTS": roots})
    )
    if is_open:
        assert catalog["cat"].uri == uri
    else:
        (refused,) = catalog.problems
        assert f"'{uri}' is outside the places that this service opens" in refused.problem


def test_rows_have_the_commit_and_the_key_of_the_same_file_on_a_disk(hub: Hub, tmp_path: Path):
    job = write_job(tmp_path, [row()])
    on_disk = prepare(load_job(job)).rows[0]
    folder = tmp_path / "loras"
    commit = hub.commit(
        "owner/name", {f"{name}.safetensors": (folder / f"{name}.safetensors").read_bytes()
                       for name in ("cat", "dog", "ink")}
    )  # fmt: skip
    text = (folder / "loras.yaml").read_text()
    (folder / "loras.yaml").write_text(text.replace("uri: ", "uri: owner/name@main:"))
    of_hub = prepare(load_job(job)).rows[0]
    assert [lora.uri for lora in of_hub.loras] == [
        f"owner/name@{commit}:{name}.safetensors" for name in ("cat", "dog")
    ]
    assert of_hub.key == on_disk.key
    # What an actor does with them, on a machine that has none.
    local = of_hub.with_local_files(
        local_lora=lambda uri: str(local_lora(uri)), local_mask=lambda uri: uri
    )
    assert [LoraIdentity().problem(lora) for lora in local.loras] == [None, None]
