"""Answer over HTTP: `python -m jaxclf.serve --run runs/focal_attention`."""

import argparse
import signal
import socket
import sys
from pathlib import Path

from jaxclf.cli import CommandParser, run_command
from jaxclf.errors import ConfigError, StoppedError
from jaxclf.inference.load import load

EPILOG = """\
  curl localhost:8000/predict -H 'Content-Type: application/json' -d '{"text": "a text"}'

/ is a page for a reader, /docs says what is taken and given, /metrics counts. /ready answers 200
once all is compiled; nothing is compiled after. Nobody is asked for a name or a password: give
another --host only where a gateway does. Texts are never logged.

What waits is bounded by --queue: beyond it requests are refused with 429 and Retry-After. SIGTERM
and SIGINT let what was accepted be answered, within --deadline, and end with 143 and 130; a second
one ends at once.
"""


def build_parser() -> CommandParser:
    parser = CommandParser("serve", __doc__, epilog=EPILOG)
    parser.add_argument(
        "--run", type=Path, required=True, help="a finished run, an ensemble, or a model/"
    )
    parser.add_argument(
        "--host", default="127.0.0.1", help="default: 127.0.0.1, this machine alone"
    )
    parser.add_argument("--port", type=int, default=8000, help="default: 8000; 0: any that is free")
    parser.add_argument(
        "--queue", metavar="TOKENS", type=int, default=32768, help="that may wait (default: 32768)"
    )
    parser.add_argument(
        "--deadline",
        metavar="SECONDS",
        type=float,
        default=30.0,
        help="that a request may wait for its answer (default: 30)",
    )
    return parser


def main(argv: list[str] | None = None) -> int:
    return run_command(build_parser(), _command, argv)


def _command(args: argparse.Namespace) -> None:
    try:
        from jaxclf.service.server import serve
        from jaxclf.service.service import make_service
    except ModuleNotFoundError as error:
        raise ConfigError(f"no {error.name}: pip install 'jaxclf[serve]'") from None

    if not args.deadline > 0:
        raise ConfigError(f"--deadline {args.deadline:g}: give more than 0 seconds")
    with listen(args.host, args.port) as listener:
        service = make_service(load(args.run), name_of(args.run), args.queue, args.deadline)
        number = serve(service, listener)
    said = "all that was accepted is answered"
    raise StoppedError(f"{signal.Signals(number).name}: {said}", number)


def listen(host: str, port: int) -> socket.socket:
    """A socket that takes connections. Raises ConfigError where the address cannot be had."""
    if not 0 <= port < 2**16:
        raise ConfigError(f"--port {port}: give one from 0 to {2**16 - 1}")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family)
    except OSError as error:
        where = f"--host {host} --port {port}"
        raise ConfigError(f"{where}: {error.strerror}; give another") from None


def name_of(run: Path) -> str:
    """What to call the model of a folder."""
    path = run.resolve()
    return path.parent.name if path.name == "model" else path.name


if __name__ == "__main__":
    sys.exit(main())
