"""`millm doctor`: check this machine, a line each, and say how to mend what is missing."""

from typing import Annotated

import msgspec
import typer
from rich.console import Console
from rich.markup import escape

from millm.cli import checks
from millm.cli.engine_checks import check_engine
from millm.cli.finding import CheckResult
from millm.cli.options import HomeFolder, Host, Port
from millm.errors import CannotStart
from millm.settings import Settings, hf_cache_folder

_STATUS_MARKS = {"ok": "[green]✓[/]", "warning": "[yellow]![/]", "failure": "[red]✗[/]"}


def run(
    as_json: Annotated[bool, typer.Option("--json", help="A list of {check, status, detail, fix}.")] = False,
    online: Annotated[bool, typer.Option("--online", help="Ask Hugging Face whether it accepts the token.")] = False,
    host: Host = None,
    port: Port = None,
    home: HomeFolder = None,
) -> None:
    """Check this machine and say how to mend what is missing; exit code 1 if something has to be.

    Example:

        millm doctor --port 8010
    """
    findings = run_checks(online=online, host=host, port=port, home=home)
    if as_json:
        typer.echo(msgspec.json.format(msgspec.json.encode(findings)).decode())
    else:
        _print_results(findings)
    if any(finding.status == "failure" for finding in findings):
        raise typer.Exit(1)


def run_checks(*, online: bool, **options: object) -> list[CheckResult]:
    """`options` as `Settings.load` takes them."""
    findings = [checks.check_python(), checks.check_packages(), *check_engine(), checks.check_machine()]
    try:
        settings = Settings.load(**options)
    except CannotStart as error:
        return [*findings, CheckResult("settings", "failure", error.message, "correct that variable or option")]
    home = settings.home_folder
    return [
        *findings,
        checks.check_disk(home),
        checks.check_cache(hf_cache_folder(), settings.download_reserve_bytes),
        checks.check_home(home),
        checks.check_port(settings.host, settings.port),
        checks.check_demo(home, settings.demo_wheel),
        checks.check_token(settings, online=online),
        checks.check_pages(),
    ]


def _print_results(results: list[CheckResult]) -> None:
    console = Console(highlight=False)
    for finding in results:
        fix = f" → {finding.fix}" if finding.fix else ""
        line = f" {_STATUS_MARKS[finding.status]} {finding.check:<12} {escape(finding.detail + fix)}"
        console.print(line, soft_wrap=True)
