"""Try `jaxclf next` and the service's backend with a real Label Studio.

    python -m venv LS && LS/bin/pip install label-studio
    python -m experiments.benchmarks.label_studio --label-studio LS/bin/label-studio --run runs/recommended \
        --pool data/test_data.json --out runs/label_studio

Label Studio imports the tasks of `next`; it asks the service for predictions of further texts; some tasks are
labeled through its API, and its export is read. Each step is checked, and each answer that is shown comes from
Label Studio. The folder --out holds its database, the tasks and the export.
"""  # noqa: E501

import argparse
import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jaxclf
from jaxclf.text.annotation_tasks import label_config
from jaxclf.text.reader import read

TOKEN = "0123456789abcdef0123456789abcdef01234567"
COUNT = 20  # tasks of `next`, and texts for the backend


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


@contextlib.contextmanager
def program(words: list[str], url: str, log: Path, env: dict[str, str]) -> Iterator[None]:
    """Run a program; the block begins when its address answers."""
    with log.open("wb") as file:
        process = subprocess.Popen(words, stdout=file, stderr=file, env=os.environ | env)
        try:
            while True:
                with contextlib.suppress(OSError):
                    urllib.request.urlopen(url, timeout=5)
                    break
                if process.poll() is not None:
                    raise SystemExit(f"{words[0]} ended; see {log}")
                time.sleep(1)
            yield
        finally:
            process.terminate()
            process.wait()


class Studio:
    """Label Studio's API."""

    def __init__(self, url: str):
        self.url = url

    def __call__(self, method: str, path: str, content: Any = None) -> Any:
        request = urllib.request.Request(
            self.url + path,
            None if content is None else json.dumps(content).encode(),
            {"Authorization": f"Token {TOKEN}", "Content-Type": "application/json"},
            method=method,
        )
        try:
            with urllib.request.urlopen(request, timeout=300) as response:
                return json.loads(response.read() or b"null")
        except urllib.error.HTTPError as error:
            raise SystemExit(f"{method} {path}: {error.code} {error.read()[:500]!r}") from None

    def tasks(self, project: int, ordering: str = "id") -> list[dict[str, Any]]:
        query = {"fields": "all", "page_size": 500, "project": project}
        query["query"] = json.dumps({"ordering": [f"tasks:{ordering}"]})
        return self("GET", f"/api/tasks?{urllib.parse.urlencode(query)}")["tasks"]


def choices_of(task: dict[str, Any]) -> set[str]:
    """The labels of the newest prediction that Label Studio shows."""
    prediction = max(task["predictions"], key=lambda each: each["id"])
    return {name for part in prediction["result"] for name in part["value"]["choices"]}


def try_project(studio: Studio, backend: str, args: argparse.Namespace) -> None:
    classifier = jaxclf.load(args.run)
    config = label_config(classifier.labels)
    project = studio("POST", "/api/projects", {"title": "jaxclf", "label_config": config})["id"]
    tasks = json.loads((args.out / "tasks.json").read_text(encoding="utf-8"))
    studio("POST", f"/api/projects/{project}/import", tasks)
    imported = studio.tasks(project)
    for written, task in zip(tasks, imported, strict=True):
        (prediction,) = written["predictions"]
        assert task["data"] == written["data"]
        assert choices_of(task) == set(classifier.predict(task["data"]["text"]))
        assert task["predictions_score"] == prediction["score"]
    print(f"{len(imported)} tasks of `next` are shown with their predictions and scores")

    chosen = {task["data"]["text"] for task in tasks}
    texts = [text for text in read(args.pool, labeled=False).texts if text not in chosen][:COUNT]
    studio("POST", f"/api/projects/{project}/import", [{"text": text} for text in texts])
    studio("POST", "/api/ml", {"project": project, "url": backend, "title": "jaxclf"})
    (connected,) = studio("GET", f"/api/ml?project={project}")
    assert connected["state"] == "CO", connected
    print(f"the backend is connected; its version is {connected['model_version']!r}")
    assert connected["model_version"] == classifier.identifier
    everything = {"selectedItems": {"all": True, "excluded": []}}
    path = f"/api/dm/actions?id=retrieve_tasks_predictions&project={project}"
    studio("POST", path, everything)
    while not all(task["predictions"] for task in studio.tasks(project)):
        time.sleep(1)
    by_score = studio.tasks(project, "predictions_score")
    scores = [task["predictions_score"] for task in by_score]
    assert scores == sorted(scores)
    for task in by_score:
        assert choices_of(task) == set(classifier.predict(task["data"]["text"]))
    print(f"{len(texts)} further texts are predicted by the backend; scores {scores[0]:.3f} first")

    answers = {}
    for index, task in enumerate(by_score[:10]):
        names = sorted({*classifier.labels[index % 3 : index % 3 + 1 + index % 2]})
        result = {"from_name": "labels", "to_name": "text", "type": "choices"}
        content = {"result": [{**result, "value": {"choices": names}}]}
        studio("POST", f"/api/tasks/{task['id']}/annotations", content)
        answers[task["data"]["text"]] = set(names)
    export = studio(
        "GET", f"/api/projects/{project}/export?exportType=JSON&download_all_tasks=true"
    )
    path = args.out / "export.json"
    path.write_text(json.dumps(export), encoding="utf-8")
    examples = read(path, classifier.labels)
    for text, row in zip(examples.texts, examples.labels, strict=True):
        assert answers[text] == {
            name for name, value in zip(classifier.labels, row, strict=True) if value
        }
    assert len(examples.texts) == len(answers)
    print(f"the export is read: {examples.source}")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--label-studio", required=True, help="its console command")
    parser.add_argument("--run", type=Path, required=True)
    parser.add_argument("--pool", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    shutil.rmtree(args.out, ignore_errors=True)
    args.out.mkdir(parents=True)
    jaxclf_command = [sys.executable, "-m", "jaxclf"]
    words = ["next", "--run", args.run, "--pool", args.pool, "-n", COUNT]
    words += ["--out", args.out / "tasks.json"]
    subprocess.run([*jaxclf_command, *map(str, words)], check=True, stdout=subprocess.DEVNULL)
    ports = free_port(), free_port()
    urls = [f"http://127.0.0.1:{port}" for port in ports]
    serve = [*jaxclf_command, "serve", "--run", str(args.run), "--port", str(ports[0])]
    start = [args.label_studio, "start", "--no-browser", "--port", str(ports[1])]
    start += ["--username", "a@example.com", "--password", "a-password-of-tests"]
    env = {
        "LABEL_STUDIO_BASE_DATA_DIR": str((args.out / "data").resolve()),
        "LABEL_STUDIO_USER_TOKEN": TOKEN,
        "LABEL_STUDIO_ENABLE_LEGACY_API_TOKEN": "true",
        "USE_DEFAULT_BANNED_SUBNETS": "false",  # else it calls no backend on this machine
        "COLLECT_ANALYTICS": "false",
        "PYTHONPATH": "",
    }
    with (
        program(serve, f"{urls[0]}/ready", args.out / "serve.log", {}),
        program(start, f"{urls[1]}/health", args.out / "label_studio.log", env),
    ):
        try_project(Studio(urls[1]), f"{urls[0]}/label-studio", args)


if __name__ == "__main__":
    main()
