"""How the report grows: ``python -m benchmarks.report [rows ...]``.

For each number of rows it makes an output of small synthetic images, writes its report in a process
of its own and prints the time, the peak of that process's memory, the size of what was written,
and, where there is a Chromium, how long the page takes to show pictures. Linux only.
"""

import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from report_kit import METHODS, write_output

from pipelines.evaluation.evaluate import evaluate
from pipelines.report.write import write_report
from pipelines.storage.local import LocalStorage
from pipelines.units.damages import Damages

NUM_SETS = 3


def write(folder: Path) -> None:
    """Write the report of ``folder``; print seconds and peak memory in MiB."""
    start = time.perf_counter()
    storage = LocalStorage(folder)
    damages = Damages(note=print)
    evaluation = evaluate(storage, damages=damages)
    write_report(storage, evaluation, title="benchmark", facts=[], damages=damages)
    print(f"{time.perf_counter() - start:.1f} {_peak_mib():.0f}")


def _peak_mib() -> float:
    """Return the most memory this process has held; what the parent held does not count."""
    status = Path("/proc/self/status").read_text()
    line = next(line for line in status.splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) / 1024


def opening_s(folder: Path) -> float | None:
    """Return how long a fresh Chromium takes from going to the page to its first picture."""
    chromium = shutil.which("chromium")
    if chromium is None:
        return None
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=chromium, headless=True, args=["--no-sandbox", "--disable-gpu"]
        )
        page = browser.new_page(viewport={"width": 1280, "height": 900})
        start = time.perf_counter()
        page.goto((folder / "report" / "index.html").as_uri())
        page.locator(".cell img").first.scroll_into_view_if_needed()
        page.wait_for_selector(".cell img")
        elapsed = time.perf_counter() - start
        browser.close()
    return elapsed


def main() -> None:
    """Print a line per number of rows."""
    if sys.argv[1:2] == ["--write"]:
        write(Path(sys.argv[2]))
        return
    print("rows  write_s  peak_mib  files  mib  open_s")
    for text in sys.argv[1:] or ["100", "10000"]:
        num_seeds = max(1, int(text) // (NUM_SETS * len(METHODS)))
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name) / "out"
            write_output(folder, num_seeds=num_seeds)
            command = [sys.executable, "-m", "benchmarks.report", "--write", str(folder)]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            seconds, peak = done.stdout.split()
            files = [path for path in (folder / "report").rglob("*") if path.is_file()]
            size_mib = sum(path.stat().st_size for path in files) / 2**20
            opened = opening_s(folder)
            shown = "-" if opened is None else f"{opened:.2f}"
            num_rows = num_seeds * NUM_SETS * len(METHODS)
            print(f"{num_rows}  {seconds}  {peak}  {len(files)}  {size_mib:.1f}  {shown}")


if __name__ == "__main__":
    main()
