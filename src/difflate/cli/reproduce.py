"""``difflate reproduce``: printed results of the papers, computed again."""

import argparse
import json
from pathlib import Path


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds the command to those of ``difflate``."""
    parser = subparsers.add_parser(
        "reproduce",
        help="compute Table 1 or Figure 3 of Scribano et al. 2023 again",
        description="Table 1: SSIM and PSNR of the four codecs on three images, printed, with the printed values' "
        "wrap-around,\nand true. Figure 3: what adding one to every index does with arbitrary and with ordered "
        "codewords.\nNeeds pip install 'difflate[eval]'.",
        epilog="examples:\n  difflate reproduce table1 --images sipi/\n"
        "  difflate reproduce figure3 --images sipi/ --out figure3.png",
    )
    parser.add_argument("what", choices=("table1", "figure3"), help="the result to compute")
    parser.add_argument(
        "--images", type=Path, required=True, metavar="FOLDER", help="folder with baboon.png, peppers.png and lenna.png"
    )
    parser.add_argument("--out", type=Path, metavar="FILE", help="table1: JSON file; figure3: PNG file (required)")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of text")
    parser.add_argument("-f", "--force", action="store_true", help="overwrite FILE if it is there")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """0; failures are raised."""
    from difflate.errors import ConfigError
    from difflate.evaluate.markdown import cell, markdown_table
    from difflate.files import atomic_write, check_output

    if args.out is None and args.what == "figure3":
        raise ConfigError("reproduce figure3 needs --out FILE.png")
    if args.out:
        check_output(args.out, args.force)
    if args.what == "table1":
        from difflate.reproduce.table1 import format_table, table1

        result = table1(args.images)
        data = (json.dumps(result, indent=1, allow_nan=False) + "\n").encode()
        text = format_table(result)
    else:
        from difflate.reproduce.figure3 import PANELS, figure3

        data, result = figure3(args.images)
        titles = ["image", *(f"{panel}: PSNR dB" for panel in PANELS[1:])]
        rows = [
            [row["image"], *("identical" if value is None else cell(value, 2) for value in row["psnr"])]
            for row in result["rows"]
        ]
        text = markdown_table(titles, rows)
    if args.out:
        atomic_write(args.out, data, args.force)
    print(json.dumps(result, allow_nan=False) if args.json else text, end="\n" if args.json else "")
    return 0
