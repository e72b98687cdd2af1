"""A service without a model: the words of a text state its probabilities."""

import json
import re
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace

import jaxclf

PAGE = Path(jaxclf.__file__).parent / "service" / "page"
KINDS = {".html": "text/html", ".css": "text/css", ".js": "text/javascript"}

THRESHOLDS = {"neutral": 0.55, "stress": 0.425, "grief": 0.46, "harm": 0.25}
WORDS = {"not": 0.3, "slept": 0.6, "week": 0.15, "fine": -0.4}
READY = (200, {"status": "ready", "labels": list(THRESHOLDS), "model": "tiny"})


def probabilities(text):
    """The probability of each label, from words of the text like `stress=0.9`."""
    stated = dict(word.split("=") for word in text.split() if word.partition("=")[0] in THRESHOLDS)
    return {label: float(stated.get(label, 0.1)) for label in THRESHOLDS}


def predict(question):
    results = []
    for text in question.get("texts", [question.get("text")]):
        probs = probabilities(text)
        predicted = [label for label in probs if probs[label] >= THRESHOLDS[label]]
        results.append({"labels": predicted, "probabilities": probs, "stage": None})
    return {"labels": list(THRESHOLDS), "thresholds": THRESHOLDS, "results": results}


def explain(question):
    """Words with the weights of WORDS; for `harm` with the opposite sign."""
    words = []
    for word in re.finditer(r"\w+", question["text"]):
        weight = WORDS.get(word.group(), 0.001)
        values = {label: weight * (-1 if label == "harm" else 1) for label in THRESHOLDS}
        span = {"start": word.start(), "end": word.end()}
        words.append({**span, "attributions": values, "attention": None})
    return {
        "labels": list(THRESHOLDS),
        "words": words,
        "convergence_delta": dict.fromkeys(THRESHOLDS, -0.012),
    }


def choose(page, content, name="messages.csv"):
    """Choose a file with this content."""
    data = content if isinstance(content, bytes) else content.encode()
    page.set_input_files("#file", {"name": name, "mimeType": "text/csv", "buffer": data})


def reset(service):
    """Restore the initial state.

    ready: what /ready replies. refusals: replies to the next questions, each once; a reply is
    (status, content, seconds of Retry-After). refuse: question -> reply or None. asked: (path,
    question, time) of every question. open: while it is not set, answers wait.
    """
    service.ready, service.refusals, service.asked = READY, deque(), []
    service.predict, service.explain, service.refuse = predict, explain, lambda question: None
    service.open = threading.Event()
    service.open.set()


@contextmanager
def serving() -> Iterator[SimpleNamespace]:
    """A running service, with its address."""
    service = SimpleNamespace()
    reset(service)
    with ThreadingHTTPServer(("127.0.0.1", 0), _handler(service)) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        service.address = f"http://127.0.0.1:{server.server_port}/"
        try:
            yield service
        finally:
            server.shutdown()
            thread.join()


def _handler(service):
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            if self.path == "/ready":
                self.reply(*service.ready)
                return
            file = PAGE / (self.path.strip("/") or "index.html")
            if file.parent == PAGE and file.is_file():
                self.send(200, file.read_bytes(), f"{KINDS[file.suffix]}; charset=utf-8")
            else:
                self.reply(404, {"error": "there is no such page"})

        def do_POST(self):
            body = self.rfile.read(int(self.headers["Content-Length"]))
            question = json.loads(body)
            service.asked.append((self.path, question, time.monotonic()))
            answer = {"/predict": service.predict, "/explain": service.explain}[self.path]
            if self.headers["Content-Type"] != "application/json":
                self.reply(415, {"error": "the body must be JSON"})
            elif service.refusals:
                self.reply(*service.refusals.popleft())
            elif refusal := service.refuse(question):
                self.reply(*refusal)
            else:
                service.open.wait(30)
                self.reply(200, answer(question))

        def reply(self, status, content, after=None):
            """content: an object, or a string that is not JSON."""
            body = content if isinstance(content, str) else json.dumps(content)
            headers = {} if after is None else {"Retry-After": str(after)}
            self.send(status, body.encode(), "application/json", headers)

        def send(self, status, body, kind, headers=()):
            self.send_response(status)
            sizes = {"Content-Type": kind, "Content-Length": str(len(body))}
            for name, value in {**sizes, **dict(headers)}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    return Handler
