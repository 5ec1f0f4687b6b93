"""The cluster launcher's file, checked by the schema and the rules that Ray itself checks with."""

import copy
import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from cluster_kit import ROOT


def config() -> dict[str, Any]:
    return yaml.safe_load((ROOT / "cluster/launcher/aws.yaml").read_text())


def schema() -> dict[str, Any]:
    import ray.autoscaler

    return json.loads((Path(ray.autoscaler.__file__).parent / "ray-schema.json").read_text())


def test_the_file_is_what_ray_s_schema_allows():
    jsonschema.validate(config(), schema())


@pytest.mark.parametrize("where", [(), ("available_node_types", "gpu_spot"), ("docker",)])
def test_a_misspelt_setting_would_be_seen(where: tuple[str, ...]):
    values = copy.deepcopy(config())
    part = values
    for name in where:
        part = part[name]
    part["max_worker"] = 8
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(values, schema())


def test_ray_s_own_rules_hold_with_its_defaults_for_the_provider():
    from ray.autoscaler._private.util import fillout_defaults, validate_config

    validate_config(fillout_defaults(config()))


def test_every_start_command_has_the_token_that_is_copied_to_every_machine():
    values = config()
    (token,) = values["file_mounts"]
    for name in ("head_start_ray_commands", "worker_start_ray_commands"):
        (start,) = [text for text in values[name] if "ray start" in text]
        assert f"RAY_AUTH_MODE=token RAY_AUTH_TOKEN_PATH={token};" in start


def test_gpu_machines_are_spot_and_come_from_none():
    workers = config()["available_node_types"]["gpu_spot"]
    assert workers["node_config"]["InstanceMarketOptions"] == {"MarketType": "spot"}
    assert workers["min_workers"] == 0 < workers["max_workers"]
