"""``difflate report``: the page of a report, made anew from what was measured."""

import argparse
from pathlib import Path

from difflate.cli.arguments import add_overlay_option


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds the command to those of ``difflate``."""
    parser = subparsers.add_parser(
        "report",
        help="make the page of a report anew, with curves of others, without measuring again",
        description="Writes REPORT/report.html anew from the results.json and the pictures that `difflate eval --out "
        "REPORT` left\nthere. Nothing is measured, and nothing else in REPORT changes.",
        epilog="examples:\n  difflate report report/ --overlay vtm.json --overlay bpg.json\n"
        "  difflate report report/     as it was, without curves of others",
    )
    parser.add_argument("source", type=Path, metavar="REPORT", help="folder of the report")
    add_overlay_option(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """0; what is wrong is raised."""
    from difflate.evaluate.compressai import read_overlay
    from difflate.evaluate.report import remake_page

    page = remake_page(args.source, [read_overlay(path) for path in args.overlay])
    print(f"{page}: {page.stat().st_size / 1e6:.1f} MB; open it in a browser")
    return 0
