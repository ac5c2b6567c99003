"""``koinon``: the commands. Nothing heavy is imported before a command needs it."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import click

from koinon.cli.exit_status import Exit

_FOLDER = click.Path(path_type=Path, file_okay=False)
_FILE = click.Path(path_type=Path, exists=True, dir_okay=False)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="koinon")
def cli() -> None:
    """Federated learning: many parties train one model together and no party's data ever leaves its place."""


@cli.command()
@click.option("--out", type=_FOLDER, default=Path("koinon-demo"), show_default=True, help="Where the report goes.")
@click.option("--seeds", type=click.IntRange(1, 50), default=5, show_default=True, help="How many repetitions.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object on stdout, everything else on stderr.")
def demo(out: Path, seeds: int, as_json: bool) -> None:
    """Four hospitals train a model of heart disease together: alone, together, pooled."""
    from koinon.cli.demo import run_demo

    run_demo(out, seeds, as_json=as_json)


@cli.command()
@click.argument("app_file", type=_FILE)
@click.option("--out", type=_FOLDER, help="Keep every round there; the same line again goes on from the last.")
@click.option("--set", "changes", multiple=True, metavar="FIELD=VALUE", help="Change a field, e.g. work.epochs=2.")
@click.option("--track", multiple=True, metavar="TRACKER:WHERE", help="Log every round, e.g. tensorboard:runs.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object on stdout, everything else on stderr.")
def run(app_file: Path, out: Path | None, changes: tuple[str, ...], track: tuple[str, ...], as_json: bool) -> None:
    """Train the App in APP_FILE until it stops."""
    from koinon.cli.commands import run_app

    run_app(app_file, out, changes, track, as_json=as_json)


@cli.command()
@click.argument("app_file", type=_FILE)
@click.option("--set", "changes", multiple=True, metavar="FIELD=VALUE", help="Change a field, e.g. work.epochs=2.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object on stdout, everything else on stderr.")
def check(app_file: Path, changes: tuple[str, ...], as_json: bool) -> None:
    """Say what the App in APP_FILE will do: what travels, how much, who sees it. Nothing is trained."""
    from koinon.cli.commands import check_app

    check_app(app_file, changes, as_json=as_json)


@cli.command()
@click.argument("folder", type=_FOLDER)
@click.option("--json", "as_json", is_flag=True, help="One JSON object on stdout, everything else on stderr.")
def report(folder: Path, as_json: bool) -> None:
    """Write FOLDER/report.html from a run kept with --out, also while it runs."""
    from koinon.cli.commands import report_run

    report_run(folder, as_json=as_json)


@cli.command()
@click.argument("link")
@click.argument("app_file", type=_FILE, required=False)
@click.option("--set", "changes", multiple=True, metavar="FIELD=VALUE", help="Change a field, as koinon join does.")
@click.option("--state", type=_FOLDER, default=Path(), help="Where koinon join keeps its state: its disk is looked at.")
@click.option("--proxy", metavar="URL", help="HTTP proxy; else HTTPS_PROXY and NO_PROXY decide.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object on stdout, everything else on stderr.")
def doctor(
    link: str, app_file: Path | None, changes: tuple[str, ...], state: Path, proxy: str | None, as_json: bool
) -> None:
    """Say what is wrong between here and the coordinator of LINK, and what to do. The invitation is not used up."""
    from koinon.cli.doctor import examine_link

    examine_link(link, app_file, changes, state, proxy, as_json=as_json)


def main() -> None:
    """Run a command and end with its exit status."""
    from koinon.errors import ConfigurationError, KoinonError
    from koinon.runtimes.environment import settings

    os.environ.update(settings(os.environ))  # this process is koinon's own
    os.environ.setdefault("KERAS_BACKEND", "jax")
    try:
        cli.main(standalone_mode=False)
    except click.exceptions.Abort:
        _end("Interrupted. A run with --out goes on from its last round: run the same line again.", Exit.INTERRUPTED)
    except click.ClickException as error:
        error.show()
        sys.exit(Exit.USAGE)
    except KeyboardInterrupt:
        _end("Interrupted. A run with --out goes on from its last round: run the same line again.", Exit.INTERRUPTED)
    except ConfigurationError as error:
        _end(f"Error: {error}", Exit.USAGE)
    except KoinonError as error:
        _end(f"Error: {error}", Exit.FAILED)
    except ModuleNotFoundError as error:
        if error.name not in ("jax", "jaxlib"):
            raise
        _end("Error: this computes with JAX, which is not installed. Run: pip install 'koinon[jax]'", Exit.FAILED)


def _end(message: str, status: Exit) -> None:
    click.echo(message, err=True)
    sys.exit(status)
