"""The benchmark of kinds measures what it says: each adapter is read, and changes the UNet."""

import pytest
import torch
from diffusers import UNet2DConditionModel

from benchmarks.adapter_files import KINDS, NORMS
from benchmarks.adapter_kinds import MIXED, Bench, Cost, table
from clora_core.lora.bank import LoraBank
from clora_core.lora.kinds.decomposed import Decomposed
from clora_core.lora.kinds.difference import Difference
from clora_core.lora.kinds.factor import Factor
from clora_core.lora.kinds.hadamard import Hadamard
from clora_core.lora.kinds.kronecker import Kronecker
from clora_core.lora.kinds.rotation import Rotation

READ_AS = (
    (("LoRA", "LoCon"), Factor),
    (("LoHa",), Factor | Hadamard),
    (("whole",), Difference),
    (("LoKr",), Kronecker),
    (("DoRA",), Decomposed),
    (("OFT", "BOFT"), Rotation),
)


@pytest.fixture(scope="module")
def bench(tmp_path_factory):
    torch.manual_seed(0)
    unet = UNet2DConditionModel(
        sample_size=8,
        cross_attention_dim=32,
        attention_head_dim=2,
        block_out_channels=(16, 32),
        layers_per_block=1,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        norm_num_groups=8,
    )
    return Bench(tmp_path_factory.mktemp("adapters"), unet)


def outputs(bench, case):
    found = []
    handle = bench.unet.register_forward_hook(lambda _module, _args, out: found.append(out.sample))
    bench.with_bank(LoraBank(bench.unet, case.loras, "unet"), case.weights)
    bench.call()
    handle.remove()
    return found


def test_files_are_of_the_kind_that_their_line_says(bench):
    for starts, expected in READ_AS:
        for kind in [kind for kind in KINDS if kind.startswith(starts)]:
            updates = bench.made[kind].factors.of("unet").values()
            assert len(updates) > 60
            assert all(isinstance(update, expected) for update in updates), kind


def test_every_adapter_changes_every_lane_that_has_one(bench):
    for name, case in bench.cases().items():
        changed, bare = outputs(bench, case)
        by_lane = [not torch.allclose(a, b) for a, b in zip(changed, bare, strict=True)]
        assert by_lane == [True] * len(bare), name


def test_a_line_of_the_table_has_medians_beside_the_bare_unet(bench):
    cost = Cost([2.0, 1.0, 3.0], [0.2, 0.1, 0.4], 3 * 2**20, 150)
    [*_, line] = table(bench, 0.5, 100, {"eight kinds": cost})
    assert line == "| eight kinds |  |  |  | 0.40 | 3 | 2.00x (1.00-3.00) | 1.50 |"
    assert len(bench.made) == len(KINDS) + len([NORMS])
    assert set(MIXED) <= set(KINDS)
