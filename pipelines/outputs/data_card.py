"""The data card: a README.md that tells people what the folder is and ``datasets`` how to load it.

The front matter's ``configs`` keep rows and errors apart; without it ``load_dataset`` would try to
read both as one table and fail. It also fails on a column that some files have and others do not,
so such a column is left out of them. Each config has a stamp, see ``card_stamp``. A README that
somebody else wrote is left alone.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pipelines.ledger.account import Account
from pipelines.outputs.card_stamp import stamp_of, stamped
from pipelines.storage.storage import Storage
from pipelines.units.schemas import ADDED_COLUMNS, ROWS

CARD_NAME = "README.md"
MARK = "<!-- written by clora; replaced by the next run -->"


@dataclass(frozen=True, kw_only=True)
class CardFacts:
    """What the card tells.

    Attributes:
        num_images: Images in the output, of all runs.
        num_errors: Rows in ``errors/``, of all tries; 0 leaves that table out.
        references_folder: Where references lie, relative to the output; None for none in it.
        account: The last run's; None while it works.
        stamp: Of the rows, see ``card_stamp``.
        job: The job as it was resolved.
        digests: Of the base model of rows that name none, and of the scorer's model.
        base_models: Digests of further base models, by the name that rows give them.
        loras: Of each LoRA in use: name, subject, kind, digest.
        lacking: Columns that units of earlier releases in the output do not have.
    """

    num_images: int
    num_errors: int
    references_folder: str | None
    account: Account | None
    stamp: str
    job: Mapping[str, Any]
    digests: Mapping[str, str | None]
    loras: Sequence[Mapping[str, Any]]
    base_models: Mapping[str, str] = field(default_factory=dict[str, str])
    lacking: Collection[str] = ()


def write_data_card(storage: Storage, facts: CardFacts) -> bool:
    """Write the card unless there is a README that is not ours; return whether it was written."""
    if is_foreign(_present(storage)):
        return False
    storage.put(CARD_NAME, data_card(facts).encode())
    return True


def restamp(storage: Storage, stamp: str) -> bool:
    """Put a stamp into the card that is there; return whether there is one that is ours."""
    present = _present(storage)
    if not present or is_foreign(present):
        return False
    storage.put(CARD_NAME, stamped(present, stamp).encode(errors="surrogateescape"))
    return True


def has_stamp(storage: Storage, stamp: str) -> bool:
    """Return whether there is a card with this stamp, or one that is not ours."""
    present = _present(storage)
    return bool(present) and (is_foreign(present) or stamp_of(present) == stamp)


def is_foreign(card: str) -> bool:
    """Return whether somebody else wrote it."""
    return bool(card.strip()) and MARK not in card


def _present(storage: Storage) -> str:
    try:
        return storage.read(CARD_NAME).decode(errors="surrogateescape")
    except FileNotFoundError:
        return ""


def data_card(facts: CardFacts) -> str:
    """Return the card as Markdown with YAML front matter."""
    card = "\n".join([*_front_matter(facts), "", MARK, "", *_body(facts), ""])
    return stamped(card, facts.stamp)


def _front_matter(facts: CardFacts) -> list[str]:
    lines = ["---", "tags:", "- synthetic", "- text-to-image", "- lora", "configs:"]
    lines += ["- config_name: images", "  default: true", "  data_files: rows/*.parquet"]
    if facts.lacking:
        lines += _columns_but(facts.lacking)
    # The same files without the one column that is large.
    lines += ["- config_name: scores", "  data_files: rows/*.parquet"]
    lines += _columns_but({"image", *facts.lacking})
    if facts.num_errors:
        lines += ["- config_name: errors", "  data_files: errors/*.parquet"]
    if facts.references_folder is not None:
        files = f"{facts.references_folder}/rows/*.parquet"
        lines += ["- config_name: references", f"  data_files: {files}"]
        # Other releases may have made some of them, and references have no such scores anyway.
        lines += _columns_but(ADDED_COLUMNS)
    return [*lines, "---"]


def _columns_but(left_out: Collection[str]) -> list[str]:
    return ["  columns:", *(f"  - {name}" for name in ROWS.names if name not in left_out)]


def _body(facts: CardFacts) -> list[str]:
    lines = [
        "# Composed images",
        "",
        f"{facts.num_images:,} images, each made by composing LoRAs on one base model; every image "
        f"is machine-made. {_last_run(facts.account)}",
        "",
        "```python",
        "import datasets",
        'rows = datasets.load_dataset("path/to/this/folder", split="train")',
        'rows[0]["image"]  # a PIL image',
        "# the same rows without images",
        'scores = datasets.load_dataset("path/to/this/folder", "scores", split="train")',
        "```",
        "",
        "| what | where |",
        "| --- | --- |",
        "| images with prompt, LoRAs, seed, scores, cost and versions | `rows/` |",
        "| the same images as PNG files, with their recipe inside | `images/` |",
        "| a line for each row of the manifest: its file and scores, or why it has none "
        "| `images.csv` |",
        "| rows without an image, and why | `errors/` |",
        "| how each run went | `runs/`, `metrics.prom` |",
        "| a look at some of them | `contact_sheet.png` |",
        "| methods compared, after `clora report` | `report/index.html`, `report/table.md` |",
        "",
        "`dino_min`, `dino_avg` and `dino_max` compare an image with what each of its LoRAs makes "
        "alone: the mean cosine of DINO features, over the LoRAs. `dino_apart` compares disjoint "
        "windows of the image, one for each LoRA, and takes the worst of the best such choice: it "
        "is low where subjects are blended. All four are empty where a LoRA has no references. "
        "`remarks` holds what was noticed while a row was read and is no mistake.",
        "",
        "## How they were made",
        "",
        f"Base model {_model(facts.job.get('base_model'), facts.digests.get('base_model'))}. "
        "Sampler settings are in every row (`sampler_json`).",
        "",
    ]
    if facts.base_models:
        places = facts.job["base_models"]
        lines += ["Rows that name a base model (in `carried_json`) have another:", ""]
        lines += [
            f"- `{_code(name)}`: {_model(places[name], digest)}"
            for name, digest in facts.base_models.items()
        ]
        lines.append("")
    if facts.loras:
        lines += ["| LoRA | kind | stands for | digest |", "| --- | --- | --- | --- |"]
        for lora in facts.loras:
            cells = [lora["name"], lora["kind"], lora["subject"] or "", lora["digest"][:12]]
            lines.append("| " + " | ".join(_cell(cell) for cell in cells) + " |")
        lines.append("")
    lines += [
        "## Limits",
        "",
        "The licences of the base model and of every LoRA apply to these images. A row made again "
        "in a batch of another size may differ in the last bits.",
    ]
    return lines


def _last_run(account: Account | None) -> str:
    if account is None:
        return "A run works here, or was killed; `clora status` says how far it is."
    return (
        f"Last run: {account.num_made:,} made, {account.num_failed:,} failed, "
        f"{account.num_skipped:,} skipped, of {account.num_rows:,} manifest rows."
    )


def _model(place: object, digest: object) -> str:
    return f"`{_code(place)}`, digest `{_code(digest)}`"


def _code(value: object) -> str:
    return str(value).replace("`", "'").replace("\n", " ")


def _cell(text: str) -> str:
    """Return text that cannot end a table cell or start HTML."""
    escaped = text.replace("&", "&amp;").replace("<", "&lt;").replace("|", "\\|")
    return escaped.replace("\n", " ")
