"""The commands: serve, check, plugins, demo, top, key.

Exit codes: 0 ended as asked, 1 failed, 2 wrong use or wrong configuration, 3 drained but streams were cut. What a
command needs is imported when it runs, so that `--help` and `--version` answer at once.
"""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click

from streamgate import __version__

if TYPE_CHECKING:
    from streamgate.control.config import Config

WRONG = 2  # click's own code for wrong use
KEY_NAME = re.compile(r"[A-Za-z0-9._-]{1,64}")  # as the configuration takes it

_config_option = click.option(
    "--config", "file", type=click.Path(path_type=Path), metavar="FILE", help="YAML file; none is needed."
)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="streamgate")
def main() -> None:
    """A gateway for LLM token streams."""


@main.command()
@_config_option
@click.option("--upstream", multiple=True, metavar="URL", help="An upstream; may be repeated. Replaces the file's.")
@click.option("--listen", metavar="HOST:PORT", help="Where clients connect.  [default: 127.0.0.1:8080]")
@click.option("--admin", metavar="HOST:PORT", help="Metrics and probes.  [default: 127.0.0.1:9464]")
@click.option("--fd", type=click.IntRange(min=3), metavar="N", help="Serve on this listening socket, already open.")
@click.option(
    "--drain-timeout", type=float, metavar="S", help="For running streams to end after SIGTERM.  [default: 120]"
)
@click.option("--lameduck", type=float, metavar="S", help="Newcomers are served this long after SIGTERM.  [default: 0]")
@click.option("--log-format", type=click.Choice(["json", "console"]), help="[default: json]")
@click.option("--log-level", type=click.Choice(["debug", "info", "warning", "error"]), help="[default: info]")
def serve(file: Path | None, fd: int | None, **flags: Any) -> NoReturn:
    """Serve. Without an upstream, the embedded demo upstream answers."""
    config = _load(file, flags)
    from streamgate.server import serve as run  # noqa: PLC0415

    sys.exit(run(config, fd=fd))


@main.command()
@_config_option
def check(file: Path | None) -> None:
    """Check the configuration and print what is in force, secrets hidden."""
    config = _load(file, {})
    from streamgate.control.config import effective  # noqa: PLC0415

    click.echo(effective(config), nl=False)


@main.command()
@_config_option
def plugins(file: Path | None) -> None:
    """List the plugins: what is installed, with hooks and settings, and what is configured, in order."""
    from streamgate.control.listing import configured_page, installed_page  # noqa: PLC0415
    from streamgate.hooks.finding import installed  # noqa: PLC0415

    there = installed()
    click.echo(installed_page(there))
    click.echo(configured_page(_load(file, {})), nl=False)
    if any(plugin.problem for plugin in there):
        sys.exit(WRONG)


@main.command()
def demo() -> NoReturn:
    """Show it: a scripted upstream, the gateway, one client; prints the stream, then what was measured."""
    from streamgate.demo.show import run  # noqa: PLC0415
    from streamgate.server import running  # noqa: PLC0415

    sys.exit(run(running))


@main.command()
@click.option("--admin", default="http://127.0.0.1:9464", metavar="URL", show_default=True, help="The admin port.")
@click.option(
    "--token",
    envvar="STREAMGATE_ADMIN__TOKEN",
    metavar="TOKEN",
    help="The admin token, '${NAME}' or file:/path; needed where the port is not on loopback.",
)
@click.option("--once", is_flag=True, help="Print one table and end.")
def top(admin: str, token: str | None, once: bool) -> NoReturn:
    """Show the streams of a running gateway, live."""
    from streamgate.control.top import run  # noqa: PLC0415

    sys.exit(run(admin, token, once=once))


@main.group()
def key() -> None:
    """Make a client's key, or the digest of one."""


@key.command("new")
@click.option("--name", metavar="NAME", help="As logs will call it.  [default: of its digest]")
def new(name: str | None) -> None:
    """Print a new key, this once, and the lines for the configuration, which hold its SHA-256 alone."""
    from streamgate.admission.keys import digest_of, new_key  # noqa: PLC0415

    made = new_key()
    digest = digest_of(made)
    name = f"key-{digest[:8]}" if name is None else name
    if not KEY_NAME.fullmatch(name):
        raise click.BadParameter("expected letters, digits, dots, dashes and underscores", param_hint="--name")
    click.echo(
        f"{made}\n\n# Only the client needs the key above. For the gateway:\nkeys:\n"
        f'  - {{name: "{name}", sha256: "{digest}"}}'
    )


@key.command("hash")
def hash_key() -> None:
    """Read a key from standard input and print its SHA-256, for `keys[].sha256`."""
    from streamgate.admission.keys import digest_of  # noqa: PLC0415

    typed = sys.stdin.isatty()
    given = click.prompt("Key", hide_input=True, err=True) if typed else sys.stdin.readline().rstrip("\r\n")
    if not given or not given.isascii() or not given.isprintable() or " " in given:
        raise click.UsageError("expected a key on standard input: one line of printable ASCII without spaces")
    click.echo(digest_of(given))


def _load(file: Path | None, flags: dict[str, Any]) -> Config:
    """The configuration; every mistake goes to stderr, and the command ends with code 2."""
    from streamgate.control.config import ConfigError, load  # noqa: PLC0415

    try:
        return load(file, os.environ, flags)
    except ConfigError as error:
        for problem in error.problems:
            click.echo(f"streamgate: {problem}", err=True)
        sys.exit(WRONG)
