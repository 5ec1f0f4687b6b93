"""The ``clora`` command: names, options and exit codes. What commands do is in their own modules.

Every command imports its module when it runs, so that ``clora --help`` waits for nothing.
"""

from collections.abc import Sequence
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
Address = Annotated[
    str | None,
    typer.Option(metavar="A", help="Ray cluster; default: $RAY_ADDRESS, else this machine alone."),
]


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
    """Check job file, manifest and LoRA files; list every problem. Exit 0 or 2."""
    from jobs.validate import validate as run

    raise typer.Exit(run(job))


@app.command()
def plan(job: JobPath) -> None:
    """Show what a run would make and what it costs; start nothing. Exit 0 or 2."""
    from jobs.plan import plan as run

    raise typer.Exit(run(job))


@app.command()
def compose(
    job: JobPath,
    address: Address = None,
    limit: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="Only the manifest's first N rows.")
    ] = None,
) -> None:
    """Make the rows that are not made yet. Exit 0 all made, 1 some failed, 2 bad input."""
    from jobs.compose import compose as run

    raise typer.Exit(run(job, address=address, limit=limit))


@app.command()
def retry(job: JobPath, address: Address = None) -> None:
    """Try the rows that failed again, however often they did, and no others."""
    from jobs.compose import compose as run

    raise typer.Exit(run(job, address=address, only_failed=True))


@app.command()
def status(
    out: Annotated[str, typer.Argument(metavar="OUT", help="An output folder.")],
) -> None:
    """Show how far an output is, from its files alone. Exit 0 if all is made, else 1."""
    from jobs.status import status as run

    raise typer.Exit(run(out))


@app.command()
def verify(
    out: Annotated[str, typer.Argument(metavar="OUT", help="An output folder.")],
) -> None:
    """Check that every committed row has its image, once, unchanged. Exit 0 or 1."""
    from jobs.verify import verify as run

    raise typer.Exit(run(out))


@app.command()
def gc(
    out: Annotated[str, typer.Argument(metavar="OUT", help="An output folder.")],
    *,
    delete: Annotated[bool, typer.Option("--delete", help="Remove them.")] = False,
) -> None:
    """Show files of an output that nothing refers to; a killed run leaves some."""
    from jobs.gc import gc as run

    raise typer.Exit(run(out, delete=delete))


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line; ends the process with the command's exit code."""
    app(args=None if arguments is None else list(arguments), prog_name="clora")


if __name__ == "__main__":
    main()
