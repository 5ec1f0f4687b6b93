"""What a command left in an output with a damaged file: nothing wrong passed on, nothing lost."""

import hashlib
import io
import re
import tarfile
from collections.abc import Iterator

from damage_commands import COMMANDS, LOOKERS, MAKERS, Outcome, say
from damage_world import NUM_ASKED, TIMES

from jobs.commands.verify import verify
from pipelines.ledger.ledger import survey
from pipelines.outputs.card_stamp import stamped
from pipelines.outputs.data_card import CARD_NAME
from pipelines.storage.local import LocalStorage
from pipelines.units.output_files import DAMAGED_FOLDER
from pipelines.upkeep.verify import nested_outputs, verify_units

__all__ = ["wrong_results"]

_WAY_OUT = re.compile(r"`clora verify (\S+) --repair`")


def wrong_results(outcome: Outcome) -> Iterator[str]:
    """Yield what is wrong with what a command did; runs others on the same output afterwards."""
    run = outcome.run
    yield from _changed(outcome)
    if run.command == "export":
        yield from _wrongly_exported(outcome)
    if run.command == "gc --delete":
        yield from _wrongly_deleted(outcome)
    if run.code == 0:
        if run.command in MAKERS:
            yield from _not_made(outcome)
        if run.command == "status":
            yield from _not_whole(outcome)
        if run.command in ("table", "report"):
            yield from _wrong_figures(outcome)
    if run.command == "verify --repair":
        yield from _lost(outcome)
        yield from _not_repaired(outcome)
    if run.code == 2 and run.command == "compose":
        yield from _no_way_out(outcome)


def _is_lost_unit(outcome: Outcome) -> bool:
    """Return whether rows are as if they had never been made."""
    kinds = ("unit", "reference unit")
    return outcome.case.kind in kinds and outcome.case.damage == "missing"


def _changed(outcome: Outcome) -> Iterator[str]:
    """Yield files that the command had no business with."""
    command, before, after = outcome.run.command, outcome.run.before, outcome.run.after
    own_folder = {"table": "tables/", "report": "report/"}.get(command, "")
    for name in sorted(before.keys() | after.keys()):
        if before.get(name) == after.get(name):
            continue
        if command in LOOKERS or not name.startswith(own_folder):
            yield f"changes {name}"
        if "rows/unit-" in name and name in before and command != "verify --repair":
            yield f"changes the committed unit {name}"
        is_image = name.startswith("images/") and name in outcome.case.pristine and name in after
        if is_image and after[name] != outcome.case.pristine[name] and not _is_lost_unit(outcome):
            yield f"writes another image into {name}"


def _wrongly_exported(outcome: Outcome) -> Iterator[str]:
    digests: dict[str, str] = {}
    for shard in (outcome.run.world.folder / "shards").glob("*.tar"):
        with tarfile.open(fileobj=io.BytesIO(shard.read_bytes())) as tar:
            digests |= {
                entry.name: _digest(tar.extractfile(entry).read())
                for entry in tar.getmembers()
                if entry.name.endswith(".png")
            }
    committed = {
        name.rpartition("/")[2]: _digest(content)
        for name, content in outcome.case.pristine.items()
        if name.startswith("images/")
    }
    if not digests.items() <= committed.items():
        yield "exports an image that was not committed"
    if outcome.run.code == 0 and digests != committed and not _is_lost_unit(outcome):
        yield f"ends with 0 and exports {len(digests)} of {len(committed)} images"


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _wrongly_deleted(outcome: Outcome) -> Iterator[str]:
    for name in outcome.run.before.keys() - outcome.run.after.keys():
        if not (name.startswith("images/") and _is_lost_unit(outcome)):
            yield f"deletes {name}"


def _not_made(outcome: Outcome) -> Iterator[str]:
    """Yield what is not made or damaged; an image of the same size is not looked into."""
    case, storage = outcome.case, LocalStorage(outcome.run.world.out)
    ledger = survey(storage)
    num_made, num_asked = len(ledger.made), NUM_ASKED[case.world]
    if num_made != num_asked or ledger.num_doubled:
        yield f"ends with 0, {num_made} of {num_asked} made, {ledger.num_doubled} doubled"
    is_unseen = case.kind in ("image", "reference image") and outcome.keeps_size
    # Where nothing is to be made no reference is needed, and none is looked at.
    is_unseen |= case.world == "whole" and case.kind.startswith("reference")
    for folder in ("", *nested_outputs(storage)):
        for check in verify_units(LocalStorage(outcome.run.world.out / folder)):
            for problem in check.problems:
                if not (is_unseen and outcome.name in problem):
                    yield f"ends with 0, and verify finds: {problem}"


def _not_whole(outcome: Outcome) -> Iterator[str]:
    for name, content in outcome.case.pristine.items():
        is_lost_unit = name.startswith("rows/") and name not in outcome.run.after
        is_lost_image = name.startswith("images/") and (
            len(outcome.run.after.get(name, b"")) != len(content)
        )
        if is_lost_unit or is_lost_image:
            yield f"ends with 0 without {name}"


def _wrong_figures(outcome: Outcome) -> Iterator[str]:
    """Yield figures and new thumbnails that differ from those of the undamaged output."""
    if _is_lost_unit(outcome):
        return
    before, after = outcome.run.before, outcome.run.after
    for name, content in outcome.case.pristine.items():
        is_figure = name.endswith((".csv", "table.md", "table.json", "index.js"))
        is_new = before.get(name) != after.get(name)
        is_own = name.startswith("tables/" if outcome.run.command == "table" else "report/")
        if is_own and after.get(name) != content and (is_figure or (is_new and "thumbs" in name)):
            yield f"ends with 0 and writes another {name}"


def _unstamped(card: bytes) -> str:
    return stamped(card.decode(errors="replace"), "")


def _lost(outcome: Outcome) -> Iterator[str]:
    """Yield files whose content is nowhere any more after a repair."""
    after = outcome.run.after
    kept = {content for name, content in after.items() if f"{DAMAGED_FOLDER}/" in name}
    for name, content in outcome.run.before.items():
        is_restored = after.get(name) == outcome.case.pristine[name]
        # latest.json is a copy of what the newest edition says, whichever that is.
        is_rewritten = name == "latest.json" and outcome.case.kind == "edition"
        is_here = after.get(name) == content or content in kept
        # Rows that were set aside must not be loaded from a cache.
        is_restamped = name == CARD_NAME and _unstamped(content) == _unstamped(after.get(name, b""))
        if not (is_here or is_restored or is_rewritten or is_restamped):
            yield f"loses the content of {name}"


def _not_repaired(outcome: Outcome) -> Iterator[str]:
    for command in ("compose", "status", "verify"):
        code, said = say(COMMANDS[command], outcome.run.world, outcome.case.place)
        if code != 0:
            yield f"and then {command} ends with {code}: {said.strip()}"
    yield from _not_made(outcome)


def _no_way_out(outcome: Outcome) -> Iterator[str]:
    """Yield why the repair that was named does not let the same command make all rows."""
    for place in dict.fromkeys(_WAY_OUT.findall(outcome.run.said)):
        code, said = say(verify, place, repair=True, times=TIMES)
        if code != 0:
            yield f"names a way out that ends with {code}: {said.strip()}"
    for command in (outcome.run.command, "verify"):
        code, said = say(COMMANDS[command], outcome.run.world, outcome.case.place)
        if code != 0:
            yield f"after the way out {command} ends with {code}: {said.strip()}"
    yield from _not_made(outcome)
