"""`difflate studio`."""

import argparse
import contextlib
import dataclasses

from difflate.cli.device import add_device_option, device_of
from difflate.errors import ConfigError
from difflate.limits import DEFAULT_LIMITS

_MIB = 2**20
_MAX_STEPS = 100


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    """Adds the command to the command line."""
    parser = subparsers.add_parser(
        "studio",
        help="a page in the browser to try codecs and generators on",
        description="Serve a page on which photographs and clips are dropped, compressed, compared and downloaded, and "
        "images are\ngenerated. It is for this machine alone unless --host says otherwise: there is no password. "
        "Nothing is loaded\nfrom a network, and what was dropped is removed at the end. Ctrl-C ends it.",
        epilog="examples:\n  difflate studio\n  difflate studio --port 8000\n"
        "  difflate studio --host 0.0.0.0 --upload-mib 8 --megapixels 4     for the network around",
    )
    parser.add_argument("--host", default="127.0.0.1", metavar="ADDRESS", help="to serve at (default: %(default)s)")
    parser.add_argument(
        "--port", type=int, default=7860, metavar="N", help="to serve at; 0: any that is free (default: %(default)s)"
    )
    parser.add_argument(
        "--upload-mib", type=int, default=64, metavar="N", help="largest file that is taken (default: %(default)s)"
    )
    parser.add_argument(
        "--megapixels", type=float, default=24, metavar="N", help="largest photograph (default: %(default)s)"
    )
    add_device_option(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Serves until it is interrupted, which is its usual end."""
    from difflate.studio.serving import serve

    for flag, value in (("--upload-mib", args.upload_mib), ("--megapixels", args.megapixels)):
        if not 0 < value < 2**16:
            raise ConfigError(f"{flag} (={value:g}) must be above 0 and below {2**16}")
    limits = dataclasses.replace(DEFAULT_LIMITS, pixels=int(args.megapixels * 10**6), steps=_MAX_STEPS)
    device = str(device_of(args.device))
    with contextlib.suppress(KeyboardInterrupt):
        serve(args.host, args.port, limits, args.upload_mib * _MIB, device, ready)
    return 0


def ready(address: str) -> None:
    """Says where the studio is."""
    print(f"Difflate studio at {address} (Ctrl-C ends it)", flush=True)
