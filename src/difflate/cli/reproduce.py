"""``difflate reproduce``: printed results of the papers, computed again."""

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

Result = tuple[dict[str, Any], str, bytes | None]
"""What JSON holds, the same as text, and a PNG file if it is a figure."""


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds the command to those of ``difflate``."""
    parser = subparsers.add_parser(
        "reproduce",
        help="compute printed results of the papers again",
        description="Computes a table or a figure of a paper again and prints it beside the printed values.\n"
        "Needs pip install 'difflate[eval]', those that train also 'difflate[train]' and the weights of AlexNet and "
        "VGG16.",
        epilog="examples:\n  difflate reproduce table1 --images sipi/\n"
        "  difflate reproduce figure3 --images sipi/ --out figure3.png\n"
        "  difflate reproduce diffae-table1 --images imagenet/ bsds/ --minutes 3 --out table1.json\n"
        "  difflate reproduce diffae-table4 --images kodak/\n"
        "  difflate reproduce diffae-table7 --clips clips/\n"
        "  difflate reproduce diffae-table6 --clips clips/ --models 2=runs/video-2 4=runs/video-4 diffae-small",
    )
    results = parser.add_subparsers(dest="what", required=True, metavar="RESULT")
    for name, about, fill, compute, is_figure in _RESULTS:
        own = results.add_parser(name, help=about, description=about[0].upper() + about[1:] + ".")
        fill(own)
        kind = "PNG file (required)" if is_figure else "JSON file, or Markdown if its name ends in .md"
        own.add_argument("--out", type=Path, metavar="FILE", help=kind)
        own.add_argument("--json", action="store_true", help="print one JSON object instead of text")
        own.add_argument("-f", "--force", action="store_true", help="overwrite FILE if it is there")
        own.set_defaults(run=run, compute=compute, is_figure=is_figure)


def run(args: argparse.Namespace) -> int:
    """0; failures are raised."""
    from difflate.errors import ConfigError
    from difflate.files import atomic_write, check_output

    if args.out is None and args.is_figure:
        raise ConfigError(f"reproduce {args.what} needs --out FILE.png")
    if args.out:
        check_output(args.out, args.force)
    result, text, picture = args.compute(args)
    if args.out:
        as_json = json.dumps(result, indent=1, allow_nan=False, ensure_ascii=False) + "\n"
        data = picture or (text if args.out.suffix == ".md" else as_json).encode()
        atomic_write(args.out, data, args.force)
    print(json.dumps(result, allow_nan=False) if args.json else text, end="\n" if args.json else "")
    return 0


def _add_sipi(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--images", type=Path, required=True, metavar="FOLDER", help="folder with baboon.png, peppers.png and lenna.png"
    )


def _add_jpeg(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--images", nargs="+", required=True, metavar="FOLDER", help="folders of images")
    parser.add_argument("--px", type=int, default=512, metavar="N", help="side of the images (default: %(default)s)")
    parser.add_argument("--max-images", type=int, metavar="N", help="N images, evenly spaced")


def _add_clips(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--clips", nargs="+", required=True, metavar="CLIP", help="clips, or folders of them")
    parser.add_argument(
        "--i3d",
        type=Path,
        metavar="FILE",
        help="I3D's weights as safetensors, for FVD (docs/video.md; default: no FVD)",
    )
    parser.add_argument(
        "--every", type=int, default=4, metavar="N", help="VGG16 looks at one of N frames (default: %(default)s)"
    )


def _add_models(parser: argparse.ArgumentParser) -> None:
    _add_clips(parser)
    parser.add_argument(
        "--models",
        nargs="+",
        default=[],
        metavar="LINE=CODEC",
        help="codecs, as in difflate eval, for a line of the table (2, 4, 8, finetuned, data, attention); others have "
        "lines of their own",
    )


def _add_scale(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--images", nargs="+", required=True, metavar="FOLDER", help="folders of images to train on")
    parser.add_argument(
        "--minutes", type=float, default=3.0, metavar="M", help="of training, for each model (default: %(default)g)"
    )
    parser.add_argument("--steps", type=int, metavar="N", help="of training, for each model, if that is sooner")
    parser.add_argument("--px", type=int, default=64, metavar="N", help="side of the crops (default: %(default)s)")
    parser.add_argument("--guidance", type=float, default=1.0, metavar="W", help="in decoding (default: %(default)g)")
    parser.add_argument("--width", type=int, default=64, metavar="N", help="of the U-Nets (default: %(default)s)")
    parser.add_argument(
        "--work",
        type=Path,
        default=Path("runs/reproduce-diffae"),
        metavar="FOLDER",
        help="trained models; those that are there are not trained again (default: %(default)s)",
    )


def _scale(args: argparse.Namespace) -> Any:
    from difflate.reproduce.diffae_models import Scale

    given = {key: getattr(args, key) for key in ("images", "work", "minutes", "steps", "px", "guidance", "width")}
    return Scale(**{key: value for key, value in given.items() if value is not None})


def _table1(args: argparse.Namespace) -> Result:
    from difflate.reproduce.table1 import format_table, table1

    result = table1(args.images)
    return result, format_table(result), None


def _figure3(args: argparse.Namespace) -> Result:
    from difflate.evaluate.markdown import cell, markdown_table
    from difflate.reproduce.figure3 import PANELS, figure3

    data, result = figure3(args.images)
    titles = ["image", *(f"{panel}: PSNR dB" for panel in PANELS[1:])]
    rows = [
        [row["image"], *("identical" if value is None else cell(value, 2) for value in row["psnr"])]
        for row in result["rows"]
    ]
    return result, markdown_table(titles, rows), data


def _diffae_table(args: argparse.Namespace) -> Result:
    from difflate.reproduce.diffae_tables import format_rows, table

    result = table(args.what, _scale(args), progress=not args.json)
    return result, format_rows(result), None


def _diffae_table4(args: argparse.Namespace) -> Result:
    from difflate.reproduce.diffae_jpeg import format_table4, table4

    result = table4(args.images, args.px, args.max_images)
    return result, format_table4(result), None


def _diffae_table6(args: argparse.Namespace) -> Result:
    from difflate.reproduce.diffae_video import format_video, table6

    result = table6(args.clips, args.models, args.i3d, args.every)
    return result, format_video(result), None


def _diffae_table7(args: argparse.Namespace) -> Result:
    from difflate.reproduce.diffae_video import format_video, table7

    result = table7(args.clips, args.i3d, args.every)
    return result, format_video(result), None


def _diffae_figure6(args: argparse.Namespace) -> Result:
    from difflate.reproduce.diffae_figure6 import figure6, format_shares

    data, result = figure6(_scale(args), progress=not args.json)
    return result, format_shares(result), data


_RESULTS: tuple[tuple[str, str, Callable[..., None], Callable[..., Result], bool], ...] = (
    (
        "table1",
        "Scribano et al. 2023: SSIM and PSNR of four codecs, wrapped around and true",
        _add_sipi,
        _table1,
        False,
    ),
    ("figure3", "Scribano et al. 2023: one added to every index, arbitrary and ordered", _add_sipi, _figure3, True),
    ("diffae-table1", "Rampas 2024: targets and weights of the loss, small models", _add_scale, _diffae_table, False),
    ("diffae-table2", "Rampas 2024: pretrained, random, larger encoder", _add_scale, _diffae_table, False),
    ("diffae-table3", "Rampas 2024: a VQGAN, and 1, 10 and 30 steps of diffusion", _add_scale, _diffae_table, False),
    ("diffae-table4", "Rampas 2024: JPEG at five qualities, true pairs", _add_jpeg, _diffae_table4, False),
    ("diffae-table6", "Rampas 2024: video models, beside codecs of clips", _add_models, _diffae_table6, False),
    ("diffae-table7", "Rampas 2024: clips in AVC at five rate factors", _add_clips, _diffae_table7, False),
    ("diffae-figure6", "Rampas 2024: at which times of the diffusion the loss is", _add_scale, _diffae_figure6, True),
)
"""Name, what it is, options, what computes it, whether it is a figure."""
