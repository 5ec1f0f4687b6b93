"""A short run of the fuzzing that `make fuzz` does at length."""

from fuzz.adapter_files import fuzz_adapters
from fuzz.lora_headers import fuzz_headers
from fuzz.manifest_rows import FORMATS, fuzz_rows


def test_two_thousand_damaged_lora_files_are_a_report_or_a_sentence(tmp_path):
    counts = fuzz_headers(0, 2000, seed=0, folder=tmp_path)
    assert counts.total() == 2000
    assert min(counts["accepted"], counts["refused"]) > 100  # both ways are gone


def test_two_thousand_mutated_rows_of_each_format_are_rows_or_problems(tmp_path):
    counts = fuzz_rows(0, 120, seed=0, folder=tmp_path)
    for kind in FORMATS:
        assert counts[f"{kind} rows written"] == 2000
        assert min(counts[f"{kind} good"], counts[f"{kind} problems"]) > 50


def test_of_a_hundred_adapters_whole_and_damaged_the_check_says_what_the_run_says(tmp_path):
    counts = fuzz_adapters(0, 100, seed=0, folder=tmp_path)
    assert counts.total() == 400
    assert counts["whole accepted"] > 80
    assert min(counts["damaged accepted"], counts["damaged refused"]) > 50
