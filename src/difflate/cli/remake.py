"""``difflate report``: the page of a report, made anew from what was measured."""

import argparse
from pathlib import Path

NAME = "report.html"


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
    parser.add_argument(
        "--overlay",
        action="append",
        default=[],
        type=Path,
        metavar="FILE",
        help="draw the curve of others, a result file of CompressAI; may be given several times",
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """0; what is wrong is raised."""
    from difflate import files
    from difflate.evaluate.compressai import read_overlay
    from difflate.evaluate.html import report_page
    from difflate.evaluate.pictures import PictureFolder
    from difflate.evaluate.results import read_results

    results = read_results(args.source)
    overlays = [read_overlay(path) for path in args.overlay]
    pictures = PictureFolder(args.source) if results.protocol.get("pictures") else None
    page = report_page(results.records, results.protocol, anchor=results.anchor, overlays=overlays, pictures=pictures)
    out, data = args.source / NAME, page.encode("utf-8", "backslashreplace")
    files.atomic_write(out, data, force=True)
    print(f"{out}: {len(data) / 1e6:.1f} MB; open it in a browser")
    return 0
