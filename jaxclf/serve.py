"""Answer over HTTP."""

import argparse
import signal
import sys
from pathlib import Path

from jaxclf.cli import CommandParser, run_command
from jaxclf.errors import ConfigError, StoppedError

EPILOG = """\
examples:
  jaxclf serve --run runs/focal_attention
  curl localhost:8000/predict -H 'Content-Type: application/json' -d '{"text": "a text"}'

/ is a web page, /docs documents the requests and responses, /metrics has counters, and /ready
answers 200 after compilation. There is no authentication: bind to a public --host only behind an
authenticating proxy. Texts are never logged. Responses name the model and jaxclf's version.
Requests for other hosts than localhost, --host and each --allow-host get 421.

Requests beyond --max-queue-tokens are refused with 429 and Retry-After. After SIGTERM or SIGINT
accepted requests are answered, within --request-timeout; a second signal stops at once. The exit
code is 143 or 130.
"""


def build_parser() -> CommandParser:
    parser = CommandParser("serve", __doc__, epilog=EPILOG)
    parser.add_argument(
        "--run", type=Path, required=True, help="folder of a run, model, ensemble or cascade"
    )
    for name, metavar, default, text in (
        ("--host", None, "127.0.0.1", "address to listen on"),
        ("--port", None, 8000, "0 takes a free one"),
        ("--root-path", "PATH", "/", "prefix of its paths behind a proxy"),
        ("--max-queue-tokens", "TOKENS", 32768, "most tokens waiting in the queue"),
        ("--request-timeout", "SECONDS", 30.0, "longest time until a request is answered"),
    ):
        text += " (default: %(default)s)"
        parser.add_argument(name, metavar=metavar, type=type(default), default=default, help=text)
    for name, metavar, text in (
        ("--allow-host", "NAME", "another host name that requests are answered for (repeatable)"),
        ("--origin", "ORIGIN", "of pages that may call it, as https://app.example (repeatable)"),
    ):
        parser.add_argument(name, metavar=metavar, action="append", default=[], help=text)
    text = "leave X-Model-Digest and X-Jaxclf-Version out of the responses"
    parser.add_argument("--no-model-headers", action="store_true", help=text)
    return parser


def run(args: argparse.Namespace) -> None:
    if not args.request_timeout > 0:
        raise ConfigError(f"--request-timeout {args.request_timeout:g}: must be above 0 seconds")
    # jax is imported only now: help and wrong arguments do not wait for it.
    try:
        from jaxclf.service.app import make_app
        from jaxclf.service.middleware import parse_hosts, parse_origins
        from jaxclf.service.server import listen, serve
        from jaxclf.service.service import make_service
    except ModuleNotFoundError as error:
        raise ConfigError(f"{error.name} is missing: pip install 'jaxclf[serve]'") from None
    from jaxclf.inference.load import load

    hosts, origins = parse_hosts(args.host, args.allow_host), parse_origins(args.origin)
    root_path = f"/{args.root_path.strip('/')}".rstrip("/")
    path = args.run.resolve()
    name = path.parent.name if path.name == "model" else path.name
    with listen(args.host, args.port) as listener:
        service = make_service(load(args.run), name, args.max_queue_tokens, args.request_timeout)
        app = make_app(service, hosts, not args.no_model_headers, origins, root_path)
        number = serve(service, app, listener, root_path)
    raise StoppedError(f"stopped by {signal.Signals(number).name}; all requests answered", number)


def main(argv: list[str] | None = None) -> int:
    return run_command(build_parser(), run, argv)


if __name__ == "__main__":
    sys.exit(main())
