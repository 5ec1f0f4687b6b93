"""The ``clora`` command: names, options and exit codes. What commands do is in their own modules.

Every command imports its module when it runs, so that ``clora --help`` waits for nothing.
"""

from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

__all__ = ["app", "main"]

app = typer.Typer(
    name="clora",
    help="Compose several LoRAs in one image, for tables of prompts, on a laptop or a cluster.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

JobPath = Annotated[Path, typer.Argument(metavar="JOB", help="The job file (YAML).")]
OutPath = Annotated[str, typer.Argument(metavar="OUT", help="An output folder.")]
ClipModel = Annotated[
    str | None,
    typer.Option("--clip", metavar="DIR", help="CLIP model: how well images show their prompts."),
]
ImagePath = Annotated[Path, typer.Argument(metavar="IMAGE", help="A PNG of an output.")]
Address = Annotated[
    str | None,
    typer.Option(metavar="A", help="Ray cluster; default: $RAY_ADDRESS, else this machine alone."),
]


MetricsPort = Annotated[
    str | None,
    typer.Option(metavar="[HOST:]PORT", help="Serve metrics while it runs; on loopback alone."),
]


class LogFormat(StrEnum):
    """How progress is told where no terminal shows a bar."""

    text = "text"
    json = "json"


Log = Annotated[LogFormat, typer.Option("--log", help="Progress for people, or as JSON lines.")]


def _show_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"clora-batch {version('clora-batch')}")
        raise typer.Exit


@app.callback()
def _root(
    *,
    version: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version."),
    ] = False,
) -> None:
    """Compose several LoRAs in one image, for tables of prompts, on a laptop or a cluster."""


@app.command()
def demo(
    out: Annotated[Path, typer.Option(metavar="DIR", help="Where everything goes.")] = Path(
        "demo_out"
    ),
) -> None:
    """Run a small job on the embedded world, offline."""
    from jobs.demo import demo as run

    raise typer.Exit(run(out))


@app.command()
def validate(job: JobPath) -> None:
    """Check job file, manifest, LoRA files and output; list every problem. Exit 0, 1 or 2."""
    from jobs.validate import validate as run

    raise typer.Exit(run(job))


@app.command()
def plan(job: JobPath) -> None:
    """Show what a run would make and what it costs; start nothing. Exit 0, 1 or 2."""
    from jobs.plan import plan as run

    raise typer.Exit(run(job))


@app.command()
def compose(
    job: JobPath,
    address: Address = None,
    limit: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="Only the manifest's first N rows.")
    ] = None,
    metrics_port: MetricsPort = None,
    log: Log = LogFormat.text,
) -> None:
    """Make the rows that are not made yet. Exit 0 all made, 1 try again, 2 bad input."""
    from jobs.compose import compose as run

    raise typer.Exit(
        run(job, address=address, limit=limit, metrics_port=metrics_port, log_format=log.value)
    )


@app.command()
def retry(job: JobPath, address: Address = None) -> None:
    """Try rows again that failed, and rows that were corrected since. Exit as compose."""
    from jobs.compose import compose as run

    raise typer.Exit(run(job, address=address, only_failed=True))


@app.command()
def catalog(
    spec: Annotated[Path, typer.Argument(metavar="SPEC", help="A catalog's spec, or a job file.")],
    address: Address = None,
    metrics_port: MetricsPort = None,
    log: Log = LogFormat.text,
) -> None:
    """Render what changed since last time and publish it as an edition. Exit as compose."""
    from jobs.catalog import catalog as run

    raise typer.Exit(run(spec, address=address, metrics_port=metrics_port, log_format=log.value))


@app.command()
def submit(
    job: JobPath,
    address: Annotated[
        str | None,
        typer.Option(metavar="A", help="Dashboard, http://HOST:8265; default: $RAY_ADDRESS."),
    ] = None,
    submission_id: Annotated[
        str | None,
        typer.Option("--id", metavar="ID", help="Name of the work; default: made from it."),
    ] = None,
    working_dir: Annotated[
        Path, typer.Option(metavar="DIR", help="Folder that is sent: the checkout, or the job's.")
    ] = Path(),
    metrics_port: MetricsPort = None,
    log: Log = LogFormat.text,
) -> None:
    """Run the job on a cluster and show its log; Ctrl-C lets go of it. Exit as compose."""
    from jobs.submit import submit as run

    raise typer.Exit(
        run(
            job,
            address=address,
            submission_id=submission_id,
            working_dir=working_dir,
            metrics_port=metrics_port,
            log_format=log.value,
        )
    )


@app.command()
def status(out: OutPath) -> None:
    """Show how far an output is, from its files alone. Exit 0 if all is made, else 1."""
    from jobs.status import status as run

    raise typer.Exit(run(out))


@app.command()
def verify(
    out: OutPath,
    *,
    repair: Annotated[
        bool,
        typer.Option("--repair", help="Restore images from rows; set aside what is damaged."),
    ] = False,
) -> None:
    """Check that every committed row has its image, once, unchanged. Exit 0 or 1."""
    from jobs.verify import verify as run

    raise typer.Exit(run(out, repair=repair))


@app.command()
def gc(
    out: OutPath,
    *,
    delete: Annotated[bool, typer.Option("--delete", help="Remove them.")] = False,
) -> None:
    """Show files of an output that nothing refers to; a killed run leaves some."""
    from jobs.gc import gc as run

    raise typer.Exit(run(out, delete=delete))


@app.command()
def sweep(
    spec: Annotated[Path, typer.Argument(metavar="SPEC", help="The sweep file (YAML).")],
) -> None:
    """Write out a grid of LoRAs, prompts, seeds and methods as manifest and job. Exit 0 or 2."""
    from jobs.sweep import sweep as run

    raise typer.Exit(run(spec))


@app.command()
def table(out: OutPath, clip: ClipModel = None) -> None:
    """Compare the methods of an output, with intervals; Markdown, CSV and JSON. Exit 0 or 2."""
    from jobs.table import table as run

    raise typer.Exit(run(out, clip_model=clip))


@app.command()
def report(out: OutPath, clip: ClipModel = None) -> None:
    """Write a static page about an output: pictures, plots, provenance. Exit 0 or 2."""
    from jobs.report import report as run

    raise typer.Exit(run(out, clip_model=clip))


@app.command()
def export(
    out: OutPath,
    webdataset: Annotated[
        str, typer.Option(metavar="DIR", help="Folder for tar shards of images, captions, rows.")
    ],
) -> None:
    """Write the images of an output as WebDataset shards. Exit 0 or 2."""
    from jobs.export import export as run

    raise typer.Exit(run(out, webdataset=webdataset))


@app.command()
def show(image: ImagePath) -> None:
    """Print what an image says of itself: infotext and recipe. Exit 0 or 2."""
    from jobs.show import show as run

    raise typer.Exit(run(image))


@app.command()
def render(
    image: ImagePath,
    job: Annotated[
        Path | None,
        typer.Option(metavar="JOB", help="Names base model and LoRAs; default: the image's own."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Default: again-KEY.png, here.")
    ] = None,
    maps: Annotated[
        bool, typer.Option("--maps", help="Add its attention maps and masks to the output.")
    ] = False,
) -> None:
    """Make an image again from what it says of itself. Exit 0 the same, 1 another, 2 bad input."""
    from jobs.render import render as run

    raise typer.Exit(run(image, job_path=job, out=out, maps=maps))


loras_app = typer.Typer(help="Look at LoRA files.", no_args_is_help=True)
app.add_typer(loras_app, name="loras")


@loras_app.command("inspect")
def loras_inspect(
    files: Annotated[list[Path], typer.Argument(metavar="FILE...", help="LoRA files.")],
    catalog: Annotated[
        bool, typer.Option("--catalog", help="Write a LoRA catalog (YAML) of the files instead.")
    ] = False,
) -> None:
    """Say what LoRA files are, or what is wrong with them. Exit 0, or 2 if one is no use."""
    from jobs.loras import inspect as run

    raise typer.Exit(run(files, as_catalog=catalog))


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line; ends the process with the command's exit code."""
    app(args=None if arguments is None else list(arguments), prog_name="clora")
