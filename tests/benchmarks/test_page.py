import io
from pathlib import Path

import pytest
import torch
from engine_kit import NOW
from evaluation_kit import FIXTURE, table
from PIL import Image
from report_kit import commit_scored, write_output

from benchmarks.fusing_cost import Fused, fused_adapters
from benchmarks.page import Benchmark, benchmark_page, main
from clora_core.fuse.adapter_file import encode_adapter
from clora_core.fuse.ingredient import FusedAdapter, by_component
from clora_core.lora.kinds.factor import Factor
from pipelines.evaluation.comparison import compare
from pipelines.evaluation.evaluate import Evaluation
from pipelines.evaluation.interference import interference
from pipelines.evaluation.results import read_results
from pipelines.fusing.fused_files import fused_name
from pipelines.ledger.account import take_account
from pipelines.ledger.ledger import read_ledger
from pipelines.ledger.run_record import RunRecord, new_run_id, write_run_record
from pipelines.outputs.publish import SHEET_NAME
from pipelines.storage.local import LocalStorage

NINE_TENTHS = {"mean": 0.9, "low": 0.8, "high": 1.0}


def test_the_page_says_where_the_reference_loses_and_what_suffers():
    results = read_results(table(FIXTURE))
    alone = {"a": (0.9, 3), "b": (0.9, 3)}
    evaluation = Evaluation(
        results=tuple(results),
        comparison=compare(results),
        interferences=(interference(results, arm="clora", alone=alone),),
        failures=(),
        reasons=(),
    )
    page = benchmark_page(
        Benchmark(
            name="benchmark",
            title="A benchmark",
            evaluation=evaluation,
            facts=[("images", "7")],
            ceiling={"presence_all": NINE_TENTHS, "identity_all": NINE_TENTHS},
            others={"Triples": (evaluation, None)},
            fusions=[
                Fused(method="ziplora", num_loras=2, seconds=s, evaluations=400, final_loss=0.1)
                for s in (1.0, 9.0, 2.0)
            ],
        )
    )
    assert "| ziplora | 3 | 2 | 2.0 (9.0) | 400 | 0.100 |" in page
    # Set a + c: clora 0.5, merge 0.75. Set a + b: clora 0.375, merge (0.25 + 0 + 1) / 3.
    assert "| a + c | 0.500 | 0.750 | merge |" in page
    assert "| a + b | 0.375 | 0.417 | merge |" in page
    assert "2 of 2" in page
    assert "| b | a | 0.900 | 0.500 |" in page
    assert "- images: 7" in page
    assert page.count("all found in 0.900 [0.800, 1.000]") == 1  # the triples have no ceiling
    assert "all themselves in 0.900 [0.800, 1.000]" in page
    # The lead is the reference less the method: merge is ahead by means over sets.
    comparison = compare(results)
    [difference] = [each for each in comparison.differences if each.arm == "merge"]
    lead = -difference.by_metric_over_sets["dino_min"].mean
    assert page.count(f"| {lead:+.3f} [") == 2  # the pairs' table and the triples'


def test_what_fusing_cost_is_read_from_the_adapters_themselves(tmp_path: Path):
    storage = LocalStorage(tmp_path)
    facts = {"method": "mix-of-show", "seconds": 1.5, "loras": [{}, {}, {}]}
    facts["settings"] = {"mix_of_show_steps": 7}
    factor = Factor(torch.ones(1, 2), torch.ones(2, 1), 1.0)
    adapter = FusedAdapter(factors=by_component({("unet", "a"): factor}), final_loss=0.25)
    storage.put(fused_name("ab"), encode_adapter(adapter, facts))
    assert fused_adapters(storage) == [
        Fused(method="mix-of-show", num_loras=3, seconds=1.5, evaluations=21, final_loss=0.25)
    ]


def record(storage: LocalStorage, num_rows: int) -> None:
    ledger = read_ledger(storage)
    account = take_account(ledger.made_tables(), before=ledger, after=ledger)
    write_run_record(
        storage,
        RunRecord(
            run_id=new_run_id(NOW),
            started_at=NOW.isoformat(),
            num_rows=num_rows,
            job={"scoring": {"references": 3}},
            digests={"base_model": "ab" * 32, "dino": None},
            state="finished",
            account=account,
        ),
    )


def test_an_output_with_failures_gets_no_page(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    storage = write_output(tmp_path / "out", num_seeds=1)
    record(storage, 13)
    assert main([storage.uri, str(tmp_path / "docs")]) == 1
    assert "is not complete" in capsys.readouterr().err
    assert not (tmp_path / "docs").exists()


def test_a_complete_output_gets_page_and_picture(tmp_path: Path):
    from engine_kit import rows

    storage = LocalStorage(tmp_path / "emoji_benchmark")
    commit_scored(storage, "u1", [*rows(3), *rows(3, method="merge")])
    sink = io.BytesIO()
    Image.new("RGB", (4000, 800), "#77bbdd").save(sink, "PNG")
    storage.put(SHEET_NAME, sink.getvalue())
    record(storage, 6)
    assert main([storage.uri, str(tmp_path / "docs")]) == 0
    page = (tmp_path / "docs/benchmark.md").read_text()
    assert "images: 6" in page
    assert "base model: `abababababababab`" in page
    picture = Image.open(tmp_path / "docs/images/benchmark.png")
    assert picture.size == (3200, 640)
    assert picture.getpixel((0, 0)) == (0x77, 0xBB, 0xDD)
