"""``difflate study``: a page that asks people which of two pictures they prefer, and the score of their answers."""

import argparse
import json
import statistics
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from difflate.errors import ConfigError

if TYPE_CHECKING:
    from difflate.evaluate.answers import Answers

DEFAULT_NAME = "study.html"


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds the command to those of ``difflate``."""
    parser = subparsers.add_parser(
        "study",
        help="ask people which of two pictures at equal bytes they prefer, and score their answers",
        description="Makes one page from a report that `difflate eval --out REPORT` wrote: pairs of pictures of one "
        "image in files\nof equal size, blind, in random order and on random sides. The page saves answers.json. "
        "--score says\nhow often each codec was preferred, with 95 % intervals.",
        epilog="examples:\n  difflate study report/\n  difflate study report/ --codecs avif,cdc-small --bpp .15 .4 "
        "--original -o study.html\n  difflate study --score answers.json others.json --report report/",
    )
    parser.add_argument("source", nargs="?", type=Path, metavar="REPORT", help="folder of the report")
    parser.add_argument("-o", "--out", type=Path, metavar="PAGE", help=f"the page (default: REPORT/{DEFAULT_NAME})")
    parser.add_argument(
        "--tolerance",
        type=float,
        metavar="PERCENT",
        help="how much larger than the smaller the other file of a pair may be (default: 5)",
    )
    parser.add_argument(
        "--bpp", nargs=2, type=float, metavar=("LOW", "HIGH"), help="only files between these rates (default: all)"
    )
    parser.add_argument("--codecs", metavar="LIST", help="only pairs of these codecs, separated by commas")
    parser.add_argument("--pairs", type=int, metavar="N", help="at most N pairs, of all codecs in turn (default: 40)")
    parser.add_argument("--seed", type=int, metavar="S", help="which pairs, where there are more (default: 0)")
    parser.add_argument(
        "--original",
        action="store_true",
        help="show the original too, and ask which picture is closer to it instead of which looks better",
    )
    parser.add_argument("--score", nargs="+", type=Path, metavar="ANSWERS", help="score files that the page saved")
    parser.add_argument(
        "--report", type=Path, metavar="REPORT", help="with --score: the answers must be to this report"
    )
    parser.add_argument("--json", action="store_true", help="with --score: print one JSON object instead of the table")
    parser.add_argument("-f", "--force", action="store_true", help="overwrite a page that is there")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """0; what is wrong is raised."""
    making = ("out", "tolerance", "bpp", "codecs", "pairs", "seed", "original", "force", "source")
    if args.score:
        for name in making:
            if getattr(args, name) not in (None, False):
                flag = "REPORT" if name == "source" else f"--{name}"
                raise ConfigError(f"{flag} is for making a page, not for --score; the answers' report goes to --report")
        return _score(args)
    if args.report or args.json:
        raise ConfigError(f"{'--report' if args.report else '--json'} goes with --score")
    if args.source is None:
        raise ConfigError("name the folder of a report, or --score with answers")
    return _make(args)


def _make(args: argparse.Namespace) -> int:
    from difflate import files
    from difflate.evaluate.pictures import PictureFolder
    from difflate.evaluate.results import read_results
    from difflate.evaluate.study import Pairing, study_page

    out = args.out or args.source / DEFAULT_NAME
    given = {
        "tolerance": args.tolerance and args.tolerance / 100,
        "bpp_range": args.bpp and tuple(args.bpp),
        "codecs": args.codecs and tuple(name.strip() for name in args.codecs.split(",") if name.strip()),
        "most": args.pairs,
        "seed": args.seed,
    }
    pairing = Pairing(**{key: value for key, value in given.items() if value is not None}, original=args.original)
    results = read_results(args.source)
    files.check_output(out, args.force)
    page, count = study_page(results, PictureFolder(args.source), pairing)
    data = page.encode("utf-8", "backslashreplace")
    files.atomic_write(out, data, args.force)
    print(f"{out}: {count} pairs, {len(data) / 1e6:.1f} MB; open it in a browser, it saves answers.json")
    return 0


def _score(args: argparse.Namespace) -> int:
    from difflate.evaluate.answers import check_together, left_share, preferences, read_answers
    from difflate.evaluate.results import read_results

    report = read_results(args.report).digest if args.report else None
    answers = [read_answers(path) for path in args.score]
    check_together(answers, report)
    found = preferences(answers)
    times = [answer.ms / 1000 for person in answers for answer in person.answers]
    if args.json:
        data = {
            "report": answers[0].report,
            "question": answers[0].question,
            "people": len(answers),
            "answers": len(times),
            "unanswered": sum(person.trials - len(person.answers) for person in answers),
            "left_share": left_share(answers),
            "median_s": statistics.median(times),
            "preferences": [{**asdict(preference), "share": preference.share} for preference in found],
        }
        print(json.dumps(data, allow_nan=False))
        return 0
    from difflate.evaluate.markdown import markdown_table

    def interval(bounds: tuple[float, float] | None) -> str:
        return "–" if bounds is None else f"{100 * bounds[0]:.0f} to {100 * bounds[1]:.0f} %"

    rows = [
        [
            f"{preference.codec} over {preference.against}",
            f"{preference.chosen} of {preference.answers}",
            str(preference.images),
            f"{100 * preference.share:.0f} %",
            interval(preference.wilson),
            interval(preference.bootstrap),
        ]
        for preference in found
    ]
    asked = {"better": "looks better", "closer": "is closer to the original"}[answers[0].question]
    print(f"Which picture of two at equal bytes {asked}:\n")
    print(markdown_table(["preference", "chosen", "images", "share", "Wilson", "over images"], rows))
    print(_about(answers, left_share(answers), statistics.median(times)), end="")
    return 0


def _about(answers: "list[Answers]", left: float, median_s: float) -> str:
    missing = sum(person.trials - len(person.answers) for person in answers)
    people = f"{len(answers)} {'person' if len(answers) == 1 else 'people'}"
    return (
        f"95 % intervals. Wilson: as if all answers were independent; over images: bootstrap of the images with all "
        f"their\nanswers, for other images than these. {people}, median {median_s:.1f} s an answer, the left picture "
        f"in {100 * left:.0f} %"
        f"{f', {missing} pairs not answered' if missing else ''}.\n"
    )
