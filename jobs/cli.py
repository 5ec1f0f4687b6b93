"""The ``clora`` command: names, options and exit codes. What commands do is in their own modules.

Here a command is what a person sees of it: its parameters and a line of help. The function that
does it has the same parameters, and its module is imported when the command runs, so that
``clora --help`` waits for nothing.
"""

from collections.abc import Callable, Sequence
from enum import StrEnum
from functools import wraps
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any

import typer

app = typer.Typer(
    name="clora",
    help="Compose several LoRAs in one image, for tables of prompts, on a laptop or a cluster.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
loras_app = typer.Typer(help="Look at LoRA files, and convert them.", no_args_is_help=True)
app.add_typer(loras_app, name="loras")

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


def _does(work: str, *, group: typer.Typer = app, **fixed: object) -> Callable[[Any], Any]:
    """Register a command.

    Args:
        work: ``MODULE.FUNCTION`` in this package, which returns the exit code.
        group: What the command belongs to.
        fixed: Arguments that the command line cannot change.
    """
    module, _, function = work.rpartition(".")

    def registered(shown: Any) -> Any:
        @wraps(shown)
        def run(**given: object) -> None:
            work = getattr(import_module(f"jobs.commands.{module}"), function)
            raise typer.Exit(work(**given, **fixed))

        return group.command()(run)

    return registered


@app.callback()
def _root(
    *,
    version: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version."),
    ] = False,
) -> None:
    """Compose several LoRAs in one image, for tables of prompts, on a laptop or a cluster."""


@_does("demo.demo")
def demo(
    out: Annotated[Path, typer.Option(metavar="DIR", help="Where everything goes.")] = Path(
        "demo_out"
    ),
) -> None:
    """Run a small job on the embedded world, offline."""


@_does("validate.validate")
def validate(path: JobPath) -> None:
    """Check job file, manifest, LoRA files and output; list every problem. Exit 0, 1 or 2."""


@_does("plan.plan")
def plan(path: JobPath) -> None:
    """Show what a run would make and what it costs; start nothing. Exit 0, 1 or 2."""


@_does("compose.compose")
def compose(
    path: JobPath,
    address: Address = None,
    limit: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="Only the manifest's first N rows.")
    ] = None,
    metrics_port: MetricsPort = None,
    log_format: Log = LogFormat.text,
) -> None:
    """Make the rows that are not made yet. Exit 0 all made, 1 try again, 2 bad input."""


@_does("compose.compose", only_failed=True)
def retry(path: JobPath, address: Address = None) -> None:
    """Try rows again that failed, and rows that were corrected since. Exit as compose."""


@_does("catalog.catalog")
def catalog(
    path: Annotated[Path, typer.Argument(metavar="SPEC", help="A catalog's spec, or a job file.")],
    address: Address = None,
    metrics_port: MetricsPort = None,
    log_format: Log = LogFormat.text,
) -> None:
    """Render what changed since last time and publish it as an edition. Exit as compose."""


@_does("submit.submit")
def submit(
    path: JobPath,
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
    log_format: Log = LogFormat.text,
) -> None:
    """Run the job on a cluster and show its log; Ctrl-C lets go of it. Exit as compose."""


@_does("status.status")
def status(output: OutPath) -> None:
    """Show how far an output is, from its files alone. Exit 0 if all is made, else 1."""


@_does("verify.verify")
def verify(
    output: OutPath,
    *,
    repair: Annotated[
        bool,
        typer.Option("--repair", help="Restore images from rows; set aside what is damaged."),
    ] = False,
) -> None:
    """Check that every committed row has its image, once, unchanged. Exit 0 or 1."""


@_does("gc.gc")
def gc(
    output: OutPath,
    *,
    delete: Annotated[bool, typer.Option("--delete", help="Remove them.")] = False,
) -> None:
    """Show files of an output that nothing refers to; a killed run leaves some."""


@_does("sweep.sweep")
def sweep(
    path: Annotated[Path, typer.Argument(metavar="SPEC", help="The sweep file (YAML).")],
) -> None:
    """Write out a grid, or a published testbed, as manifest and job. Exit 0 or 2."""


@_does("table.table")
def table(output: OutPath, clip_model: ClipModel = None) -> None:
    """Compare the methods of an output, with intervals; Markdown, CSV and JSON. Exit 0 or 2."""


@_does("report.report")
def report(output: OutPath, clip_model: ClipModel = None) -> None:
    """Write a static page about an output: pictures, plots, provenance. Exit 0 or 2."""


@_does("export.export")
def export(
    output: OutPath,
    webdataset: Annotated[
        str | None,
        typer.Option(metavar="DIR", help="Folder for tar shards of images, captions, rows."),
    ] = None,
    folder: Annotated[
        str | None,
        typer.Option(metavar="DIR", help="Folder for PNG files with readable names, images.csv."),
    ] = None,
    names: Annotated[
        str,
        typer.Option(
            "--name",
            metavar="TEMPLATE",
            help="Of files in --folder: {row_id}, {method}, {seed}, {key}, {width}, {height}, "
            "{prompt}, {base_model}, columns of the manifest; / makes folders.",
        ),
    ] = "{row_id}-{method}-{seed}.png",
) -> None:
    """Write the images of an output as shards, or as files with readable names. Exit 0, 1 or 2."""


@_does("show.show")
def show(path: ImagePath) -> None:
    """Print what an image says of itself: infotext and recipe. Exit 0 or 2."""


@_does("render.render")
def render(
    path: ImagePath,
    job_path: Annotated[
        Path | None,
        typer.Option(
            "--job", metavar="JOB", help="Names base model and LoRAs; default: the image's own."
        ),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Default: again-KEY.png, here.")
    ] = None,
    maps: Annotated[
        bool, typer.Option("--maps", help="Add its attention maps and masks to the output.")
    ] = False,
) -> None:
    """Make an image again from what it says of itself. Exit 0 the same, 1 another, 2 bad input."""


class Naming(StrEnum):
    """Whose names the tensors of a written LoRA get."""

    kohya = "kohya"
    peft = "peft"


@_does("lora_files.fuse.fuse")
def fuse(
    path: JobPath,
    loras: Annotated[
        list[str] | None,
        typer.Argument(metavar="[LORA[:WEIGHT]...]", help="Of its catalog; none: of its rows."),
    ] = None,
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder of the files.")] = Path("fused"),
    method: Annotated[
        str | None, typer.Option(metavar="M", help="Recipe for named LoRAs; default: the job's.")
    ] = None,
    naming: Annotated[Naming, typer.Option(help="Names of the tensors.")] = Naming.kohya,
    *,
    half: Annotated[bool, typer.Option("--half", help="Write float16, half as large.")] = False,
) -> None:
    """Write several LoRAs fused into one file, for use elsewhere. Exit 0, 1 or 2."""


@_does("lora_files.inspect.inspect", group=loras_app)
def inspect(
    paths: Annotated[
        list[str],
        typer.Argument(
            metavar="FILE...", help="LoRA files; or owner/name@revision:file of the hub."
        ),
    ],
    as_catalog: Annotated[
        bool, typer.Option("--catalog", help="Write a LoRA catalog (YAML) of the files instead.")
    ] = False,
) -> None:
    """Say what LoRA files are, or what is wrong with them. Exit 0, 1, or 2 if one is no use."""


@_does("lora_files.convert.convert", group=loras_app)
def convert(
    path: Annotated[str, typer.Argument(metavar="FILE", help="A LoRA file, as inspect takes it.")],
    out: Annotated[Path, typer.Option(metavar="PLAIN.safetensors", help="The file to write.")],
    rank: Annotated[
        int | None,
        typer.Option(
            metavar="N", help="Highest rank of a layer; default: 128, and factors stay as they are."
        ),
    ] = None,
    max_error: Annotated[
        float | None,
        typer.Option(metavar="E", help="Lowest rank that has this error; default: 0.01."),
    ] = None,
    base_model: Annotated[
        str | None,
        typer.Option(metavar="M", help="As a job names one; DoRA, GLoRA, OFT, BOFT depend on it."),
    ] = None,
    naming: Annotated[Naming, typer.Option(help="Names of the tensors.")] = Naming.kohya,
    leave_out: Annotated[
        str | None,
        typer.Option(
            metavar="WHAT", help="What may be left out: norms,biases,words or some of them."
        ),
    ] = None,
    *,
    half: Annotated[bool, typer.Option("--half", help="Write float16, half as large.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace a file that is there.")] = False,
) -> None:
    """Write an adapter of any kind as a plain LoRA, and say how near it is. Exit 0, 1 or 2."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line; ends the process with the command's exit code."""
    app(args=None if arguments is None else list(arguments), prog_name="clora")


if __name__ == "__main__":
    main()
