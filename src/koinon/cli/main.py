"""``koinon``: the commands. Nothing heavy is imported before a command needs it."""

from __future__ import annotations

import logging
import os
import signal
import sys
from pathlib import Path
from typing import Any

import click

from koinon.cli.exit_status import AppFileError, Exit
from koinon.cli.output import leave_to_json

_FLEET = ("cryptography", "httptools", "prometheus_client", "sqlalchemy", "starlette", "urllib3", "uvicorn", "uvloop")
_GOES_ON = "A run with --out, or between institutions, goes on from its last round: run the same line again."
_FOLDER = click.Path(path_type=Path, file_okay=False)
_FILE = click.Path(path_type=Path, exists=True, dir_okay=False)
_OUT_FILE = click.Path(path_type=Path, dir_okay=False)
_DIR = click.argument("folder", metavar="DIR", type=_FOLDER)
_CHANGES = click.option(
    "--set", "changes", multiple=True, metavar="FIELD=VALUE", help="Change a field, e.g. work.epochs=2."
)
_TRACK = click.option("--track", multiple=True, metavar="TRACKER:WHERE", help="Log every round, e.g. tensorboard:runs.")
_JSON = click.option(
    "--json",
    "as_json",
    is_flag=True,
    callback=leave_to_json,
    help="One JSON object on stdout, everything else on stderr.",
)
_PROXY = click.option("--proxy", help="HTTP proxy. Default: what HTTPS_PROXY says.")
_CERTIFICATE = click.option("--certificate", type=_FILE, help="mTLS: this party's certificate (PEM).")
_KEY = click.option("--key", type=_FILE, help="Its key.")


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="koinon")
def cli() -> None:
    """Federated learning: many parties train one model together and no party's data ever leaves its place."""


@cli.command()
@click.option("--out", type=_FOLDER, default=Path("koinon-demo"), show_default=True, help="Where the report goes.")
@click.option("--seeds", type=click.IntRange(1, 50), default=5, show_default=True, help="How many repetitions.")
@_JSON
def demo(out: Path, seeds: int, as_json: bool) -> None:
    """Four hospitals train a model of heart disease together: alone, together, pooled."""
    from koinon.cli.demo import run_demo

    run_demo(out, seeds, as_json=as_json)


@cli.command()
@click.argument("app_file", type=_FILE)
@click.option("--out", type=_FOLDER, help="Keep every round there; the same line again goes on from the last.")
@_CHANGES
@_TRACK
@_JSON
def run(app_file: Path, out: Path | None, changes: tuple[str, ...], track: tuple[str, ...], as_json: bool) -> None:
    """Train the App in APP_FILE until it stops."""
    from koinon.cli.commands import run_app

    run_app(app_file, out, changes, track, as_json=as_json)


@cli.command()
@click.argument("app_file", type=_FILE)
@_CHANGES
@_JSON
def check(app_file: Path, changes: tuple[str, ...], as_json: bool) -> None:
    """Say what the App in APP_FILE will do: what travels, how much, who sees it. Nothing is trained."""
    from koinon.cli.commands import check_app

    check_app(app_file, changes, as_json=as_json)


@cli.command()
@click.argument("app_file", type=_FILE)
@click.option(
    "--canaries", type=click.IntRange(1), default=1000, show_default=True, help="Made-up clients in each run."
)
@click.option("--runs", type=click.IntRange(1), default=1, show_default=True, help="How often to train with canaries.")
@_CHANGES
@_JSON
def audit(app_file: Path, canaries: int, runs: int, changes: tuple[str, ...], as_json: bool) -> None:
    """Attack the App in APP_FILE: is its noise what it claims, does its model tell whom it saw? Status 1 if not."""
    from koinon.cli.audit import audit_app

    audit_app(app_file, changes, canaries=canaries, runs=runs, as_json=as_json)


@cli.command()
@click.argument("folder", type=_FOLDER)
@_JSON
def report(folder: Path, as_json: bool) -> None:
    """Write FOLDER/report.html from a run kept with --out, also while it runs."""
    from koinon.cli.commands import report_run

    report_run(folder, as_json=as_json)


@cli.command()
@click.argument("link")
@click.argument("app_file", type=_FILE, required=False)
@_CHANGES
@click.option("--dir", "folder", type=_FOLDER, help="Where koinon join keeps what is its own. Default: koinon-NAME.")
@_PROXY
@_CERTIFICATE
@_KEY
@_JSON
def doctor(link: str, app_file: Path | None, changes: tuple[str, ...], as_json: bool, **options: Any) -> None:
    """Say what is wrong between here and the coordinator of LINK, and what to do. The invitation is not used up."""
    from koinon.cli.doctor import examine_link

    examine_link(link, app_file, changes, as_json=as_json, **options)


@cli.command()
@click.argument("app_files", type=_FILE, nargs=-1, required=True)
@click.option("--listen", default="127.0.0.1:8443", show_default=True, metavar="HOST:PORT", help="Where to listen.")
@click.option("--dir", "folder", type=_FOLDER, default=Path("koinon-fleet"), show_default=True, help="What is kept.")
@click.option("--url", help="The address as participants reach it, where it is not the one listened on.")
@click.option("--database", help="Rows go there, e.g. postgresql+psycopg://user@host/name. Default: SQLite in DIR.")
@click.option("--blobs", metavar="URL", help="Copy finished models there, too, e.g. s3://bucket/folder.")
@click.option("--certificate", type=_FILE, help="Your own certificate (PEM), in place of one made here.")
@_KEY
@click.option("--client-ca", type=_FILE, help="mTLS: clients must show a certificate of this authority.")
@click.option("--client-listen", metavar="HOST:PORT", help="Ask for clients' certificates there only.")
@click.option("--plain-http", is_flag=True, help="No TLS: only behind a proxy that speaks it, or for tests.")
@click.option("--allow-origin", "origins", multiple=True, help="A web page's origin that may call.")
@click.option("--trusted-proxy", "proxies", multiple=True, metavar="IP", help="Believe its X-Forwarded-For.")
@click.option("--links", type=click.IntRange(0, 1000), default=1, show_default=True, help="Join links on first start.")
@click.option("--chunk-bytes", type=click.IntRange(1 << 10, 4 << 20), default=4 << 20, hidden=True)
@click.option("--roster", type=_FILE, help="Who may take part in secure sums (koinon roster).")
@click.option(
    "--keyholder", "keyholders", multiple=True, metavar="LINK", envvar="KOINON_KEYHOLDER",
    help="Who decrypts encrypted sums; once for each.",
)  # fmt: skip
@click.option("--stay", is_flag=True, help="Go on serving when every run is over.")
@_TRACK
@click.option("--log-json", is_flag=True, help="On stderr one JSON object a line, for what happens.")
@_CHANGES
@_JSON
def serve(
    app_files: tuple[Path, ...], changes: tuple[str, ...], track: tuple[str, ...], as_json: bool, log_json: bool,
    **options: Any,
) -> None:  # fmt: skip
    """Coordinate the Apps in APP_FILES between parties that join, until they stop."""
    from koinon.cli.fleet import serve_apps
    from koinon.cli.fleet_options import settings

    serve_apps(app_files, changes, track, settings(**options), as_json=as_json, log_json=log_json)


@cli.command()
@click.argument("link")
@click.argument("app_file", type=_FILE)
@click.option("--data", help="Where this party's examples are: what the App's data= takes. Default: the App's own.")
@click.option("--name", help="This party's name. Default: the name of the machine.")
@click.option("--dir", "folder", type=_FOLDER, help="What is kept. Default: koinon-NAME.")
@click.option("--run", help="Which run, where the coordinator has several of the same app.")
@click.option("--once", is_flag=True, help="Send one update and end.")
@click.option("--threads", type=click.IntRange(1, 1024), default=1, show_default=True, help="CPU cores to use at most.")
@_PROXY
@_CERTIFICATE
@_KEY
@click.option("--minimum-cohort", type=click.IntRange(1), default=1, help="Take no part in smaller rounds.")
@click.option("--largest-norm", type=float, help="Take no part unless updates are clipped to this norm.")
@click.option("--require-noise", is_flag=True, help="Take no part unless the channel adds noise.")
@click.option("--most-rounds", type=click.IntRange(1), help="Answer so many rounds, over all runs of the folder.")
@click.option("--roster", type=_FILE, help="Take part in secure sums with its members only.")
@click.option("--roster-key", metavar="KEY", help="Whose signature the roster must bear.")
@click.option(
    "--patience",
    type=click.FloatRange(0.0),
    default=86_400.0,
    show_default=True,
    help="Seconds to wait for the coordinator.",
)
@_CHANGES
def join(link: str, app_file: Path, changes: tuple[str, ...], threads: int, **options: Any) -> None:
    """Take part in the run that LINK leads to, with the App in APP_FILE and this party's own data."""
    from koinon.cli.fleet import join_app
    from koinon.cli.fleet_options import floors, limit_cores, place, reach

    limit_cores(threads)
    given = {name: options.pop(name) for name in ("once", "run")}
    join_app(link, app_file, changes, place(options), reach(link, options), floors=floors(options), **given)


@cli.command()
@click.option("--listen", default="127.0.0.1:8444", show_default=True, metavar="HOST:PORT", help="Where to listen.")
@click.option(
    "--dir", "folder", type=_FOLDER, default=Path("koinon-keyholder"), show_default=True, help="What is kept."
)
@click.option("--url", help="The address as the coordinator reaches it, where it is not the one listened on.")
@click.option("--floor", type=click.IntRange(2), default=3, show_default=True, help="Decrypt no sum of fewer clients.")
@click.option("--roster", type=_FILE, help="Decrypt sums of its members only.")
@click.option("--roster-key", metavar="KEY", help="Whose signature the roster must bear.")
def keyholder(**options: Any) -> None:
    """Decrypt the sums of encrypted rounds for one coordinator, at another institution than its own."""
    from koinon.cli.keyholder import hold_keys

    hold_keys(**options)


@cli.group()
def roster() -> None:
    """Say who may take part in secure sums, by a file signed with a key that no coordinator holds."""


@roster.command("new")
@click.argument("file", type=_OUT_FILE)
@click.argument("federation")
def roster_new(file: Path, federation: str) -> None:
    """Begin FILE, the roster of FEDERATION, without members."""
    from koinon.cli.roster import new_roster

    new_roster(file, federation)


@roster.command("key")
@_DIR
def roster_key(folder: Path) -> None:
    """Print the key of the party that keeps its own in DIR (koinon join --dir), made now if it has none."""
    from koinon.cli.roster import own_key

    own_key(folder)


@roster.command("add")
@click.argument("file", type=_FILE)
@click.argument("name")
@click.argument("key")
def roster_add(file: Path, name: str, key: str) -> None:
    """Add the party NAME with its KEY to FILE."""
    from koinon.cli.roster import add_member

    add_member(file, name, key)


@roster.command("remove")
@click.argument("file", type=_FILE)
@click.argument("name")
def roster_remove(file: Path, name: str) -> None:
    """Strike the party NAME out of FILE."""
    from koinon.cli.roster import remove_member

    remove_member(file, name)


@roster.command("sign")
@click.argument("file", type=_FILE)
@click.option("--key", type=_OUT_FILE, default=Path("roster.key"), show_default=True, help="Made if there is none.")
def roster_sign(file: Path, key: Path) -> None:
    """Sign FILE, and print the key that every party has to know."""
    from koinon.cli.roster import sign_roster

    sign_roster(file, key)


@cli.command()
@_DIR
@click.option("--name", help="Whom the link is for.")
@click.option("--count", type=click.IntRange(1, 1000), default=1, show_default=True)
@click.option("--hours", type=float, default=168.0, show_default=True, help="How long it can be used.")
def invite(folder: Path, name: str | None, count: int, hours: float) -> None:
    """Print join links of the coordinator in DIR, each good for one party, once."""
    from koinon.cli.fleet import operate
    from koinon.cli.output import say

    body = {"count": count, "name": name, "hours": hours}
    for link in operate(folder, "POST", "/v1/admin/invitations", body)["links"]:
        say(link)


@cli.command()
@_DIR
@_JSON
def status(folder: Path, as_json: bool) -> None:
    """Say how the runs of the coordinator in DIR stand, and what they wait for."""
    from koinon.cli.fleet_status import show_status

    show_status(folder, as_json=as_json)


@cli.command()
@_DIR
def clients(folder: Path) -> None:
    """List the parties of the coordinator in DIR."""
    from koinon.cli.fleet_status import show_clients

    show_clients(folder)


@cli.command()
@_DIR
@click.argument("client")
def revoke(folder: Path, client: str) -> None:
    """Shut CLIENT (a name or an identifier) out of the coordinator in DIR, for good."""
    from koinon.cli.fleet_status import revoke_client

    revoke_client(folder, client)


@cli.command()
@_DIR
@click.option("--database", help="The coordinator's rows, where they are not in DIR.")
@_JSON
def verify(folder: Path, database: str | None, as_json: bool) -> None:
    """Check the signed receipts in DIR, a coordinator's or a participant's, and what is there against them. Offline."""
    from koinon.cli.verify import verify

    verify(folder, database, as_json=as_json)


def _changes_a_run(name: str, does: str) -> None:
    """Add the command that changes a run."""

    @cli.command(name, help=f"{does} a run of the coordinator in DIR: RUN, or the only one.")
    @_DIR
    @click.argument("run", required=False)
    def command(folder: Path, run: str | None) -> None:
        from koinon.cli.fleet_status import change_run

        change_run(folder, run, name)


for _name, _does in (("pause", "Rest"), ("resume", "Go on with"), ("cancel", "End, before its time,")):
    _changes_a_run(_name, _does)


def main() -> None:
    """Run a command and end with its exit status."""
    from koinon.errors import ClientError, ConfigurationError, KoinonError
    from koinon.runtimes.environment import settings

    os.environ.update(settings(os.environ))  # this process is koinon's own
    os.environ.setdefault("KERAS_BACKEND", "jax")
    signal.signal(signal.SIGTERM, _terminated)
    try:
        cli.main(standalone_mode=False)
    except (click.exceptions.Abort, KeyboardInterrupt):
        _end(f"Interrupted. {_GOES_ON}", Exit.INTERRUPTED)
    except click.ClickException as error:
        error.show()
        sys.exit(Exit.USAGE)
    except AppFileError as error:
        _end(str(error), Exit.APP)
    except ConfigurationError as error:
        _end(f"Error: {error}", Exit.USAGE)
    except ClientError as error:
        from koinon.cli.app_file import users_traceback

        _end(f"{users_traceback(error)}\nError: {error}".lstrip(), Exit.FAILED)
    except KoinonError as error:
        _end(f"Error: {error}", Exit.FAILED)
    except ModuleNotFoundError as error:
        if error.name in ("jax", "jaxlib"):
            _end("Error: this computes with JAX, which is not installed. Run: pip install 'koinon[jax]'", Exit.FAILED)
        if error.name in _FLEET:
            _end(f"Error: a fleet needs {error.name}. Run: pip install 'koinon[fleet,jax]'", Exit.FAILED)
        raise


def _terminated(number: int, frame: object) -> None:
    """End as after Ctrl-C: whatever is open is closed on the way out, which being told again does not cut short."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    _end(f"Told to end. {_GOES_ON}", Exit.TERMINATED)


def _end(message: str, status: Exit) -> None:
    if logging.getLogger("koinon").handlers:  # a coordinator's: standard error may be for programs
        level = logging.INFO if status in (Exit.INTERRUPTED, Exit.TERMINATED) else logging.ERROR
        logging.getLogger("koinon.fleet").log(level, message)
    else:
        click.echo(message, err=True)
    sys.exit(status)
