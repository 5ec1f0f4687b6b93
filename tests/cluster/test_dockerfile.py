"""The Dockerfile, read instruction by instruction: no image is built in a test."""

import re
import subprocess
import sys
import tomllib

from cluster_kit import ROOT

from cluster.ignore_patterns import ignored_by

DOCKERFILE = ROOT / "cluster/Dockerfile"


def instructions() -> list[tuple[str, str]]:
    text = re.sub(r"(?m)^#.*\n", "", DOCKERFILE.read_text()).replace("\\\n", " ")
    return [
        (name, rest.strip())
        for line in text.splitlines()
        if line.strip()
        for name, _, rest in [line.partition(" ")]
    ]


def project() -> dict[str, object]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())


def copied() -> set[str]:
    return {
        source for name, rest in instructions() if name == "COPY" for source in rest.split()[:-1]
    }


def test_every_package_of_the_wheel_is_in_the_image():
    packages = project()["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]  # type: ignore[index]
    assert set(packages) <= copied()
    assert all((ROOT / source).exists() for source in copied())


def test_the_build_sees_what_is_copied_and_no_more():
    lines = (ROOT / "cluster/Dockerfile.dockerignore").read_text().splitlines()
    assert {line[1:] for line in lines if line.startswith("!")} == copied()
    assert "*" in lines
    ignored = ignored_by([line for line in lines if "__pycache__" in line])
    assert ignored("jobs/__pycache__")


def test_what_is_installed_is_what_the_project_asks_for_at_the_pinned_versions():
    (listing,) = [
        rest for name, rest in instructions() if "requirements.txt" in rest and name == "RUN"
    ]
    code = re.search(r'python -c "(.+?)"\s+>', listing)
    assert code is not None
    done = subprocess.run(
        [sys.executable, "-c", code.group(1).replace("\\\\n", "\\n")],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split("\n")[:-1] == project()["project"]["dependencies"]  # type: ignore[index]
    assert "--constraint constraints.txt" in listing


def test_the_image_is_offline_and_not_root():
    environment = dict(
        pair.split("=", 1)
        for name, rest in instructions()
        if name == "ENV"
        for pair in rest.split()
    )
    assert environment["HF_HUB_OFFLINE"] == "1"
    assert environment["RAY_USAGE_STATS_ENABLED"] == "0"
    users = [rest for name, rest in instructions() if name == "USER"]
    assert users == ["1000:1000"]
    after = [name for name, _ in instructions()][
        [name for name, _ in instructions()].index("USER") :
    ]
    assert "RUN" not in after


def test_the_image_sets_no_token_mode_so_that_it_also_runs_alone():
    """A private cluster makes its own token, unless the environment speaks of one."""
    assert "RAY_AUTH_MODE" not in " ".join(rest for name, rest in instructions() if name == "ENV")
