"""A search in several processes of one machine."""

import logging
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from jaxclf.errors import JaxclfError, StoppedError
from jaxclf.signals import handle_signals

log = logging.getLogger(__name__)

POLL = 0.2  # seconds between looks at the processes


def run_workers(count: int, arguments: Sequence[str], out: Path) -> None:
    """Run `jaxclf tune` with these arguments in `count` processes until all have ended.

    Their logs are `out`/worker-1.log and so on. The trial of a worker that is killed is left to the
    others. An error of a worker ends all of them and is raised here; so does a signal.
    """

    def stop(number: int) -> None:
        raise StoppedError("stopped", number)

    command = [sys.executable, "-m", "jaxclf.tune", *arguments]
    workers: dict[Path, subprocess.Popen] = {}
    with handle_signals(stop, (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)):
        try:
            for index in range(1, count + 1):
                path = out / f"worker-{index}.log"
                with path.open("w") as file:
                    # In a session of its own, so that Ctrl-C reaches a worker once: from here.
                    workers[path] = subprocess.Popen(command, stderr=file, start_new_session=True)
            log.info("%d workers; their progress is in %s/worker-*.log", count, out)
            while workers:
                time.sleep(POLL)
                for path, worker in list(workers.items()):
                    if worker.poll() is not None:
                        check_exit(path, workers.pop(path).returncode)
        finally:
            for worker in workers.values():
                worker.terminate()
            for worker in workers.values():
                worker.wait()


def check_exit(path: Path, code: int) -> None:
    """Raise the error that ends the log of a worker; warn about a worker that was killed."""
    if code < 0 or code >= 128:
        log.warning("%s was stopped; the other workers take over its trial", path.stem)
    elif code:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
        message = lines[-1].removeprefix("error: ") if lines else f"exit code {code}"
        error = JaxclfError(f"{message} (see {path})")
        error.exit_code = code
        raise error
