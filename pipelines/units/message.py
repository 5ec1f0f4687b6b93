"""How a unit travels between stages: as one Ray row, so that no block size can tear it.

The row holds the unit's id, its rows as Arrow's stream format and, as JSON, facts about the unit as
a whole that stages add to (seconds, LoRA cache events, memory).
"""

import json
from dataclasses import asdict, dataclass, replace

import pyarrow as pa


@dataclass(frozen=True, kw_only=True)
class HostUse:
    """Counters of a model host, since it was made or for one unit. Seconds are wall time.

    Attributes:
        model_load_seconds: Loading base models.
        lora_load_seconds: Reading LoRA files, while images are made.
        model_loads: Base models loaded: 0 for a unit where the actor held its already.
        lora_hits: LoRAs found in the cache.
        lora_misses: LoRAs read from files.
        lora_evictions: LoRAs put out of the cache.
        lora_copies: LoRAs sent to the memory of a GPU.
        lora_cache_bytes: What the cache holds now.
        peak_memory_bytes: Of the process: on a GPU of the last call, else so far.
    """

    model_load_seconds: float = 0.0
    lora_load_seconds: float = 0.0
    model_loads: int = 0
    lora_hits: int = 0
    lora_misses: int = 0
    lora_evictions: int = 0
    lora_copies: int = 0
    lora_cache_bytes: int = 0
    peak_memory_bytes: int = 0


@dataclass(frozen=True, kw_only=True)
class UnitFacts(HostUse):
    """What is known of a unit beyond its rows: what its model host did, and what it took.

    Attributes:
        generate_seconds: In the composer, LoRAs read there among them.
        score_seconds: DINO features and scores.
        encode_seconds: PNG encoding.
        write_seconds: Images and commit.
        rows_tried_alone: Rows made one by one after the unit failed as a whole.
        output_bytes: Written for this unit.
        device: What generated it.
        versions_json: Of the software that generated it.
        held_by: Another run that makes it, so that nothing was done here.
        is_done: It was committed before it was begun, so that nothing was done here.
    """

    generate_seconds: float = 0.0
    score_seconds: float = 0.0
    encode_seconds: float = 0.0
    write_seconds: float = 0.0
    rows_tried_alone: int = 0
    output_bytes: int = 0
    device: str = ""
    versions_json: str = "{}"
    held_by: str = ""
    is_done: bool = False

    @property
    def is_idle(self) -> bool:
        """Whether nothing was done here: its rows are as they were planned."""
        return self.is_done or bool(self.held_by)

    def to_json(self) -> str:
        """Return the facts as JSON; ``UnitFacts(**json.loads(text))`` reads them back."""
        return json.dumps(asdict(self))


@dataclass(frozen=True, kw_only=True)
class UnitMessage:
    """A unit between two stages."""

    unit_id: str
    rows: pa.Table
    facts: UnitFacts

    def with_facts(self, rows: pa.Table, **changes: float | str) -> "UnitMessage":
        """Return the message with other rows and changed facts."""
        return UnitMessage(unit_id=self.unit_id, rows=rows, facts=replace(self.facts, **changes))

    def to_batch(self) -> pa.Table:
        """Return the message as a table of one row."""
        return pa.table(
            {
                "unit_id": pa.array([self.unit_id], pa.string()),
                "rows_ipc": _one_binary(_to_ipc(self.rows)),
                "facts_json": pa.array([self.facts.to_json()], pa.string()),
            }
        )


def read_messages(batch: pa.Table) -> list[UnitMessage]:
    """Return the messages of a batch, usually one; their rows lie where the batch lies."""
    return [
        UnitMessage(
            unit_id=batch["unit_id"][n].as_py(),
            rows=_from_ipc(batch["rows_ipc"][n].as_buffer()),
            facts=UnitFacts(**json.loads(batch["facts_json"][n].as_py())),
        )
        for n in range(batch.num_rows)
    ]


def _one_binary(content: pa.Buffer) -> pa.Array:
    """Return an array of one value without a copy of it: it holds a whole unit's pixels."""
    offsets = pa.array([0, content.size], pa.int64()).buffers()[1]
    return pa.Array.from_buffers(pa.large_binary(), 1, [None, offsets, content])


def _to_ipc(rows: pa.Table) -> pa.Buffer:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, rows.schema) as writer:
        writer.write_table(rows)
    return sink.getvalue()


def _from_ipc(content: pa.Buffer) -> pa.Table:
    with pa.ipc.open_stream(content) as reader:
        return reader.read_all()
