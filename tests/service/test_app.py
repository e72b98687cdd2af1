"""The service over real sockets: the classifier's answers, a reason with every refusal, and no text
in a log."""

import asyncio
import builtins
import contextlib
import gzip
import json
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import tracemalloc

import numpy as np
import pytest
from clients import JSON, counted, get, raw, send, until
from starlette.requests import Request
from tiny_models import LABELS, NONE, PROVENANCE, THRESHOLDS, make_model

from jaxclf import serve
from jaxclf.inference.cascade.cutoffs import EarlyExit
from jaxclf.inference.cascade.folder import CascadePlan
from jaxclf.inference.cascade.stages import make_cascade
from jaxclf.service import requests
from jaxclf.service.metrics import count_compilations, make_metrics
from jaxclf.service.responses import make_batch_model, predict, warm_up
from jaxclf.text.tokenizer.tokenize import tokenize

MARKER = "marker-of-distress"  # never appears in a log or in an error


@pytest.fixture(scope="module")
def texts(demo_rows):
    return [*[row["text"] for row in demo_rows["val"]][:60], "a", "x" * 300, "é 😀 नमस्ते " * 20]


def ask(port, path, content):
    """(status, JSON) of a question; errors have one form."""
    body = content if isinstance(content, bytes) else json.dumps(content)
    status, headers, body = send(port, "POST", path, body, JSON)
    reply = json.loads(body)
    if status != 200:
        assert list(reply) == ["error"]
        assert re.search("[a-z]{3}", reply["error"])
        assert MARKER not in reply["error"]
    assert (status in (429, 503)) == ("retry-after" in headers)
    return status, reply


# Results.


def test_nothing_is_compiled_once_it_is_ready(served, texts):
    _, port = served  # this test is the first that asks
    before = counted(port, "jaxclf_compilations_total")
    assert before > 0
    assert ask(port, "/predict", {"texts": texts})[0] == 200
    assert ask(port, "/predict", {"text": texts[0]})[0] == 200
    assert ask(port, "/explain", {"text": texts[-1]})[0] == 200
    assert counted(port, "jaxclf_compilations_total") == before


def test_probabilities_are_the_classifiers(served, texts):
    service, port = served
    expected = service.classifier.predict_proba(texts)
    status, reply = ask(port, "/predict", {"texts": texts})
    assert status == 200
    assert reply["labels"] == list(LABELS)
    assert list(reply["thresholds"].values()) == service.classifier.thresholds.tolist()
    probs = [[result["probabilities"][name] for name in LABELS] for result in reply["results"]]
    # A text's position in its row moves float32's last digits.
    np.testing.assert_allclose(probs, expected, atol=1e-6, rtol=0)
    assert [result["labels"] for result in reply["results"]] == service.classifier.predict(texts)
    assert len({tuple(result["labels"]) for result in reply["results"]}) > 1
    assert {result["stage"] for result in reply["results"]} == {None}
    status, alone = ask(port, "/predict", {"text": texts[3]})
    assert status == 200
    assert [list(result) for result in alone["results"]] == [
        ["labels", "probabilities", "stage", "cut"]
    ]
    assert alone["results"][0]["probabilities"] == pytest.approx(
        reply["results"][3]["probabilities"], abs=1e-6
    )


def test_the_queue_counts_tokens_as_the_model_reads_them(served, texts):
    classifier = served[0].classifier
    data = classifier.experiment.data
    tokens = tokenize(classifier.tokenizer, texts, data.windows)
    windows = make_batch_model(classifier).count_tokens(texts)
    assert [length for text in windows for length in text] == np.diff(tokens.starts).tolist()
    assert [len(text) for text in windows] == np.bincount(tokens.example_index).tolist()


def test_an_explanation_is_the_classifiers_by_character_offsets(served):
    service, port = served
    text = "I'm 😀 happy, and\nnot  afraid"
    status, reply = ask(port, "/explain", {"text": text})
    assert status == 200
    assert reply["labels"] == list(LABELS)
    (expected,) = service.classifier.explain([text])
    assert [text[word["start"] : word["end"]] for word in reply["words"]] == list(expected.words)
    parts = [[word["attributions"][name] for name in LABELS] for word in reply["words"]]
    np.testing.assert_array_equal(parts, expected.attributions)
    assert [word["attention"] for word in reply["words"]] == expected.attention.tolist()
    assert reply["convergence_delta"] == dict(
        zip(LABELS, expected.convergence_delta.tolist(), strict=True)
    )


def test_concurrent_requests_get_their_own_results(served, texts):
    service, port = served
    expected = service.classifier.predict_proba(texts)
    deviations = []

    def ask_often(seed):
        rng = np.random.default_rng(seed)
        for _ in range(4):
            rows = rng.integers(len(texts), size=rng.integers(1, 5))
            status, reply = ask(port, "/predict", {"texts": [texts[row] for row in rows]})
            if status == 429:
                continue
            probs = [list(result["probabilities"].values()) for result in reply["results"]]
            deviations.append(np.abs(np.array(probs) - expected[rows]).max())

    threads = [threading.Thread(target=ask_often, args=(seed,)) for seed in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(deviations) > 30
    assert max(deviations) <= 1e-6  # as above


def test_a_cascade_names_the_stage_that_decided(run_folder, tiny_encoder, texts, tmp_path):
    large = make_model(tmp_path / "large", tiny_encoder, pool="mean", seed=1)
    weights = np.zeros((2, 2, 3))
    weights[[0, 1], [0, 1]] = 1
    band = np.array([[0.45, 0.6]] * 3)
    plan = CascadePlan(
        LABELS, ("small", "large"), weights, (EarlyExit(NONE, band),), (), THRESHOLDS, PROVENANCE
    )
    cascade = make_cascade(plan, [run_folder / "model", large])
    metrics = make_metrics()
    warm_up(cascade)
    with count_compilations(metrics):
        reply = predict(cascade, texts)
    assert metrics.compilations._value.get() == 0  # the later stage was warm too
    assert [result["stage"] for result in reply] == cascade.stages(texts)
    assert {result["stage"] for result in reply} == {"small", "large"}
    probs = [list(result["probabilities"].values()) for result in reply]
    np.testing.assert_array_equal(probs, cascade.predict_proba(texts))


# Refusals.

TEXT = {"text": MARKER}
HOSTILE = {
    "empty": (b"", 400),
    "not JSON": (MARKER.encode(), 400),
    "half a JSON document": (b'{"text": "' + MARKER.encode(), 400),
    "two JSON documents": (json.dumps(TEXT).encode() * 2, 400),
    "single quotes": (str(TEXT).encode(), 400),
    "UTF-16": (json.dumps(TEXT).encode("utf-16"), 400),
    "Latin-1": (b'{"text": "caf\xe9 ' + MARKER.encode() + b'"}', 400),
    "overlong UTF-8": (b'{"text": "\xc0\xaf"}', 400),
    "NUL bytes": (b"\0" * 100, 400),
    "a control character": (b'{"text": "a\x01b"}', 400),
    "NaN": (b'{"text": NaN}', 400),
    "infinity": (b'{"text": "a", "texts": -Infinity}', 400),
    "a duplicate key": (b'{"text": "a", "text": "b"}', 400),
    "nested deep": (b'{"text": ' + b"[" * 200_000 + b"]" * 200_000 + b"}", 400),
    "nested deep in objects": (b'{"a":' * 100_000 + b"1" + b"}" * 100_000, 400),
    "a number of 100,000 digits": (b'{"text": ' + b"9" * 100_000 + b"}", 400),
    "a number beyond floats": (b'{"text": 1e99999}', 422),
    "null": (b"null", 422),
    "a number": (b"7", 422),
    "a string": (json.dumps(MARKER).encode(), 422),
    "a list": (json.dumps([MARKER]).encode(), 422),
    "an empty object": (b"{}", 422),
    "an unknown key": (json.dumps({MARKER: "a"}).encode(), 422),
    "text and an unknown key": (json.dumps(TEXT | {MARKER: 1}).encode(), 422),
    "text and texts": (json.dumps(TEXT | {"texts": [MARKER]}).encode(), 422),
    "text is null": (b'{"text": null}', 422),
    "text is a number": (b'{"text": 7}', 422),
    "text is a list": (b'{"text": ["a"]}', 422),
    "an empty text": (b'{"text": ""}', 422),
    "white space": (json.dumps({"text": " \n\t\u3000"}).encode(), 422),
    "half of a surrogate pair": (b'{"text": "a \\ud83d b"}', 422),
    "the halves the wrong way round": (b'{"text": "\\ude00\\ud83d"}', 422),
    "a long text": (json.dumps({"text": MARKER * 2000}).encode(), 422),
    "a text as texts": (json.dumps({"texts": MARKER}).encode(), 422),
    "no texts": (b'{"texts": []}', 422),
    "a number among texts": (b'{"texts": ["a", 7]}', 422),
    "an empty text among texts": (b'{"texts": ["a", ""]}', 422),
    "many texts": (json.dumps({"texts": ["a"] * 257}).encode(), 422),
    "more tokens than the queue": (json.dumps({"texts": ["a b " * 50] * 256}).encode(), 413),
    "a large body": (b'{"text": "' + b"a" * requests.MAX_BYTES + b'"}', 413),
    "endless spaces": (b" " * (requests.MAX_BYTES + 1), 413),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_body_is_refused_with_a_reason(served, name):
    service, port = served
    body, expected = HOSTILE[name]
    assert ask(port, "/predict", body)[0] == expected
    if expected < 413 or name in ("a large body", "endless spaces", "a long text"):
        assert ask(port, "/explain", body)[0] == expected
    assert service.queue.tokens == service.accepted == 0
    assert ask(port, "/predict", {"text": "good"})[0] == 200


UNUSUAL = ["\0", "\ufeff", "\u200d\ufe0f", "[CLS] [SEP] [MASK]", "\u0300" * 500, "😀" * 2000]


@pytest.mark.parametrize("text", [*UNUSUAL, "{}", "ﷺ" * 99])
def test_an_unusual_text_is_a_text(served, text):
    service, port = served
    status, reply = ask(port, "/predict", {"text": text})
    assert status == 200
    probs = service.classifier.predict_proba([text])[0]
    probabilities = list(reply["results"][0]["probabilities"].values())
    np.testing.assert_allclose(probabilities, probs, atol=1e-6, rtol=0)
    assert ask(port, "/predict", b"\xef\xbb\xbf" + json.dumps({"text": text}).encode())[0] == 200
    status, reply = ask(port, "/explain", {"text": text})
    assert status == 200
    assert all(0 <= word["start"] < word["end"] <= len(text) for word in reply["words"])


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Content-Type": "text/plain"},
        {"Content-Type": "application/x-www-form-urlencoded"},
        {"Content-Type": "application/json; charset=latin-1"},
        {"Content-Type": "application/jsonp"},
        JSON | {"Content-Encoding": "br"},
        JSON | {"Content-Encoding": "gzip, gzip"},
    ],
)
def test_an_unknown_content_type_is_refused(served, headers):
    status, _, body = send(served[1], "POST", "/predict", json.dumps(TEXT), headers)
    assert status == 415
    assert ("gzip" if "Content-Encoding" in headers else "JSON") in json.loads(body)["error"]
    accepted = {"Content-Type": 'Application/JSON; charset="UTF-8"'}
    assert send(served[1], "POST", "/predict", json.dumps(TEXT), accepted)[0] == 200


def test_an_unknown_path_or_method_is_refused(served):
    _, port = served
    for method, path, expected in [
        ("GET", "/predict", 405),
        ("PUT", "/explain", 405),
        ("POST", "/", 405),
        ("GET", "/predict/", 404),
        ("GET", f"/{MARKER}?{MARKER}", 404),
        ("GET", "/page.css/../../app.py", 404),
        ("GET", "/%00%ff", 404),
        ("BREW", "/predict", 405),
    ]:
        status, _, body = send(port, method, path)
        assert status == expected, path
        assert list(json.loads(body)) == ["error"]
        assert MARKER not in body.decode()


HEAD = b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"


def test_a_body_is_bounded_while_it_arrives(served):
    chunks = (b"10000\r\n" + b" " * 65536 + b"\r\n") * 17 + b"0\r\n\r\n"
    chunked = HEAD + b"Connection: close\r\nTransfer-Encoding: chunked\r\n\r\n"
    reply = raw(served[1], chunked, chunks)
    assert reply.startswith(b"HTTP/1.1 413 ")
    huge = HEAD + b"Connection: close\r\nContent-Length: 99999999999\r\n\r\n"
    assert raw(served[1], huge).startswith(b"HTTP/1.1 413 ")  # before it has arrived


def test_a_body_that_does_not_arrive_times_out(served, monkeypatch):
    monkeypatch.setattr(requests, "MAX_SECONDS", 0.2)
    reply = raw(served[1], HEAD + b"Content-Length: 100\r\n\r\n", b'{"text": "', wait=0.3)
    assert reply.startswith(b"HTTP/1.1 408 ")
    assert b"\r\nconnection: close\r\n" in reply.lower()


@pytest.mark.parametrize(
    "bytes_",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"POST /predict\r\n\r\n",
        HEAD + b"Content-Length: -1\r\n\r\n",
        HEAD + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
        HEAD + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\n\r\n",
    ],
)
def test_bytes_that_are_not_http_are_refused(served, bytes_):
    reply = raw(served[1], bytes_)
    assert not reply or reply.startswith(b"HTTP/1.1 400 ")
    assert ask(served[1], "/predict", {"text": "good"})[0] == 200


# The queue, seen by clients.


@pytest.fixture
def blocked(served):
    """(service, port, texts that reached the model, the event that lets it answer)."""
    service, port = served
    real, seen, let = service.queue.model, [], threading.Event()

    def answer(texts):
        seen.extend(texts)
        let.wait(20)
        return real.predict(texts)

    service.queue.model = real._replace(predict=answer)
    yield service, port, seen, let
    let.set()
    service.queue.model = real
    until(lambda: not service.accepted and not service.queue.tokens)


def in_background(port, *contents):
    """Ask each in a thread of its own. Returns the list that the replies arrive in."""
    reply = []
    for content in contents:
        threading.Thread(
            target=lambda content=content: reply.append((content, ask(port, "/predict", content)))
        ).start()
    return reply


def test_a_full_queue_refuses_at_once_and_says_when_to_retry(blocked):
    service, port, seen, let = blocked
    first = in_background(port, {"text": "first"})
    until(lambda: seen)
    large = {"texts": ["word and word and word"] * 100}
    waiting = in_background(port, large)
    until(lambda: service.queue.waiting)
    service.queue.seconds = 10.0
    service.queue.max_tokens, limit = service.queue.tokens, service.queue.max_tokens
    try:
        status, headers, _ = send(port, "POST", "/predict", json.dumps(TEXT), JSON)
        assert status == 429
        shape = service.queue.model.shape
        batches = service.queue.tokens / (shape.rows * shape.length)
        assert int(headers["Retry-After"]) == np.ceil(10 * batches)
        assert ask(port, "/explain", TEXT)[0] == 429
        assert get(port, "/health")[0] == get(port, "/ready")[0] == 200
        assert counted(port, "jaxclf_queue_tokens") == service.queue.tokens
        assert not waiting
    finally:
        service.queue.max_tokens = limit
    let.set()
    until(lambda: len(waiting) == len(first) == 1)
    assert waiting[0][1][0] == 200
    assert len(waiting[0][1][1]["results"]) == 100


def test_the_request_timeout_ends_the_wait(blocked, monkeypatch):
    service, port, seen, let = blocked
    monkeypatch.setattr(service, "request_timeout", 0.3)
    first = in_background(port, {"text": "first"})
    until(lambda: seen)
    assert ask(port, "/predict", {"texts": [MARKER] * 20})[0] == 504
    until(lambda: first)
    assert first[0][1][0] == 504
    assert service.queue.tokens == service.accepted == 0
    let.set()
    assert ask(port, "/predict", {"text": "good"})[0] == 200
    assert MARKER not in seen


def test_a_client_that_disconnects_frees_the_queue(blocked):
    service, port, seen, let = blocked
    first = in_background(port, {"text": "first"})
    until(lambda: seen)
    body = json.dumps({"texts": [MARKER] * 50}).encode()
    with socket.create_connection(("127.0.0.1", port)) as client:
        client.sendall(HEAD + b"Content-Length: %d\r\n\r\n" % len(body) + body)
        until(lambda: service.queue.tokens)
    until(lambda: not service.queue.tokens)
    assert service.accepted == 1
    let.set()
    until(lambda: first)
    assert first[0][1][0] == 200
    assert ask(port, "/predict", {"text": "good"})[0] == 200
    assert MARKER not in seen
    assert counted(port, 'jaxclf_requests_total{code="499",path="/predict"}') >= 1


def test_a_client_may_disconnect_within_a_body(served):
    service, port = served
    with socket.create_connection(("127.0.0.1", port)) as client:
        client.sendall(HEAD + b'Content-Length: 1000\r\n\r\n{"text": "')
    assert ask(port, "/predict", {"text": "good"})[0] == 200
    assert not service.accepted


class Panic(BaseException):
    """As a tokenizer written in Rust raises it."""


@pytest.mark.parametrize("error", [ValueError(MARKER), Panic(MARKER)])
@pytest.mark.parametrize("part", ["count_tokens", "predict"])
def test_a_failure_of_the_model_answers_500_and_its_text_is_not_logged(
    served, monkeypatch, caplog, error, part
):
    service, port = served

    def fails(texts):
        raise error

    real = service.queue.model
    monkeypatch.setattr(service.queue, "model", real._replace(**{part: fails}))
    assert ask(port, "/predict", {"text": MARKER})[0] == 500
    monkeypatch.undo()
    assert ask(port, "/predict", {"text": "good"})[0] == 200
    assert type(error).__name__ in caplog.text
    assert "fails" in caplog.text  # its place in the code
    assert MARKER not in caplog.text


# Metrics, health, pages.


def test_metrics_hold_nothing_of_a_request(served):
    _, port = served
    before = counted(port, "jaxclf_texts_total")
    assert ask(port, "/predict", {"texts": ["a", "b", MARKER]})[0] == 200
    for path in (f"/{MARKER}", "/predict/1", "/metrics?" + MARKER):
        get(port, path)
    _, body = get(port, "/metrics")
    assert counted(port, "jaxclf_texts_total") == before + 3
    assert MARKER not in body.decode()
    paths = set(re.findall('path="([^"]*)"', body.decode()))
    pages = r"/((label-studio/)?(predict|explain|health|ready|setup|webhook)|metrics|docs"
    pages += r"|openapi\.json|\w+\.(js|css))?|other"
    assert all(re.fullmatch(pages, path) for path in paths)
    for name in (
        "jaxclf_requests_total jaxclf_request_seconds_bucket jaxclf_tokens_total "
        "jaxclf_queue_tokens jaxclf_queue_bound_tokens jaxclf_accepted "
        "jaxclf_packing_efficiency_bucket jaxclf_step_seconds_bucket"
    ).split():
        assert counted(port, name) >= 0


def test_health_and_documentation(served):
    _, port = served
    assert json.loads(get(port, "/health")[1]) == {"status": "alive"}
    ready = {"status": "ready", "labels": list(LABELS), "model": "tiny"}
    assert json.loads(get(port, "/ready")[1]) == ready
    document = json.loads(get(port, "/openapi.json")[1])
    assert set(document["paths"]) == {
        "/predict", "/explain", "/health", "/ready", "/metrics", "/docs",
    }  # fmt: skip
    schemas = document["components"]["schemas"]
    assert "HTTPValidationError" not in schemas
    assert set(schemas["Prediction"]["properties"]) == {"labels", "probabilities", "stage", "cut"}
    assert "Retry-After" in document["paths"]["/predict"]["post"]["responses"]["429"]["headers"]
    _, page = get(port, "/docs")
    for path in document["paths"]:
        assert path in page.decode()
    assert document["info"]["description"].partition(",")[0] in page.decode()
    assert b"//" not in page.replace(b"<!doctype", b"")  # nothing is loaded from a network


def test_every_shape_of_text_in_the_document_is_answered(served):
    _, port = served
    document = json.loads(get(port, "/openapi.json")[1])
    shapes = {path: [] for path in ("/predict", "/explain")}
    for path, answered in shapes.items():
        content = document["paths"][path]["post"]["requestBody"]["content"]
        schema = content["application/json"]["schema"]
        for part in schema.get("oneOf", [schema]):
            fields = document["components"]["schemas"][part["$ref"].rpartition("/")[2]]
            (name,) = fields["required"]
            is_list = fields["properties"][name]["type"] == "array"
            assert ask(port, path, {name: ["é 😀", "b"] if is_list else "é 😀"})[0] == 200
            answered.append(name)
    assert shapes == {"/predict": ["text", "texts"], "/explain": ["text"]}


def test_the_answer_says_which_text_was_cut(served):
    service, port = served
    windows = service.classifier.experiment.data.windows
    content = windows.max_length - 2  # besides [CLS] and [SEP]
    longest = content + (windows.max_windows - 1) * (content - windows.overlap)
    words = ["a"] * longest
    texts = ["a", " ".join(words), " ".join([*words, "a"]), "b " * 1000]
    status, reply = ask(port, "/predict", {"texts": texts})
    assert status == 200
    assert [result["cut"] for result in reply["results"]] == [False, False, True, True]


GZIPPED = gzip.compress(json.dumps({"text": "a text"}).encode(), mtime=0)  # ids of tests are equal
BOMB = gzip.compress(b'{"text": "' + b"a" * 2**26 + b'"}', mtime=0)


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (GZIPPED, 200),
        (GZIPPED[:-1], 400),
        (GZIPPED + b"x", 400),
        (GZIPPED * 2, 400),
        (b'{"text": "a text"}', 400),
        (b"", 400),
        (BOMB, 413),
        (gzip.compress(b"\xff", mtime=0), 400),
    ],
)
def test_a_gzipped_body_is_unpacked_within_its_bound(served, body, status):
    for name in ("gzip", "X-GZIP"):
        headers = JSON | {"Content-Encoding": name}
        answered, _, reply = send(served[1], "POST", "/predict", body, headers)
        assert answered == status
        assert ("results" if status == 200 else "error") in json.loads(reply)
    if status == 200:
        plain = ask(served[1], "/predict", {"text": "a text"})[1]
        assert plain == json.loads(reply)


def test_a_bomb_is_never_unpacked_whole():
    async def receive():
        return {"type": "http.request", "body": BOMB, "more_body": False}

    headers = [(b"content-type", b"application/json"), (b"content-encoding", b"gzip")]
    request = Request({"type": "http", "method": "POST", "headers": headers}, receive)
    tracemalloc.start()
    with pytest.raises(requests.RefusedError) as refusal:
        asyncio.run(requests.read_body(request))
    assert refusal.value.status == 413
    assert tracemalloc.get_traced_memory()[1] < 8 * requests.MAX_BYTES
    tracemalloc.stop()


def test_pages_have_their_media_type(served):
    _, port = served
    kinds = {"html": "text/html", "js": "text/javascript", "css": "text/css"}
    status, headers, page = send(port, "GET", "/")
    assert status == 200
    assert headers["content-type"].startswith("text/html")
    assert "frame-ancestors 'none'" in headers["content-security-policy"]
    for name in re.findall(r'(?:src|href)="([\w.]+)"', page.decode()):
        status, headers, _ = send(port, "GET", "/" + name)
        assert status == 200, name
        assert headers["content-type"].startswith(kinds[name.rpartition(".")[2]])


# The command.

SLOW = """
import sys, time
from jaxclf import serve
from jaxclf.service import responses

predict = responses.predict

def slow(classifier, texts):
    time.sleep(1.0)
    return predict(classifier, texts)

responses.predict = slow
sys.argv = ["serve", *sys.argv[1:]]
sys.exit(serve.main())
"""


@contextlib.contextmanager
def command(*words, code=SLOW):
    """(process, port, lines of its log so far)"""
    process = subprocess.Popen(
        [sys.executable, "-c", code, *map(str, words)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    lines: list[str] = []
    reader = threading.Thread(target=lambda: lines.extend(process.stdout))
    reader.start()
    try:
        until(lambda: process.poll() is not None or any("http://" in line for line in lines))
        reply = re.search(r"http://127\.0\.0\.1:(\d+)", "".join(lines))
        yield process, int(reply[1]) if reply else 0, lines
    finally:
        process.kill()
        process.wait()
        reader.join()
        process.stdout.close()


@pytest.mark.slow
def test_a_signal_lets_accepted_requests_finish(run_folder):
    with command("--run", run_folder, "--port", 0) as (process, port, lines):
        assert get(port, "/health")[0] == 200
        assert get(port, "/ready")[0] == 503  # it warms up
        assert ask(port, "/predict", TEXT)[0] == 503
        until(lambda: get(port, "/ready")[0] == 200)
        assert ask(port, "/predict", MARKER.encode())[0] == 400
        get(port, f"/{MARKER}?{MARKER}")
        send(port, MARKER, "/predict")
        reply = in_background(port, TEXT, {"texts": [MARKER, "b"]})
        until(lambda: counted(port, "jaxclf_accepted") == 2)
        process.send_signal(signal.SIGTERM)
        until(lambda: get(port, "/ready")[0] == 503)
        time.sleep(0.4)  # results take longer; new requests are refused meanwhile
        assert ask(port, "/predict", TEXT)[0] == 503
        assert not reply
        until(lambda: len(reply) == 2)
        assert [status for _, (status, _) in reply] == [200, 200]
        assert process.wait(10) == 128 + signal.SIGTERM
    log = "".join(lines)
    assert '"POST /predict HTTP/1.1" 200' in log
    assert '"GET ? HTTP/1.1" 404' in log
    assert '"? /predict HTTP/1.1" 405' in log
    assert MARKER not in log
    assert "SIGTERM" in lines[-1]
    assert "error:" not in log


def refused(monkeypatch, capsys, *words):
    """The one line that the command prints before it fails."""
    monkeypatch.setattr(sys, "argv", ["serve", *map(str, words)])
    assert serve.main() == 2
    (line,) = capsys.readouterr().err.splitlines()
    return line


def test_a_service_that_cannot_start_gives_its_reason_in_one_line(
    run_folder, tmp_path, monkeypatch, capsys
):
    def line(*words):
        return refused(monkeypatch, capsys, *words)

    assert "--request-timeout -1" in line("--run", run_folder, "--request-timeout", -1)
    assert "--request-timeout nan" in line("--run", run_folder, "--request-timeout", "nan")
    assert "at least 60" in line("--run", run_folder, "--port", 0, "--max-queue-tokens", 59)
    assert "jaxclf.json" in line("--run", tmp_path, "--port", 0)
    with socket.create_server(("127.0.0.1", 0)) as used:
        port = used.getsockname()[1]
        assert f"--port {port}: " in line("--run", run_folder, "--port", port)
    assert "--port 70000: " in line("--run", run_folder, "--port", 70000)
    real = builtins.__import__

    def without(name, *rest):
        if name == "jaxclf.service.server":
            raise ModuleNotFoundError(name="fastapi")
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    answer = line("--run", run_folder)
    assert "fastapi" in answer
    assert "pip install 'jaxclf[serve]'" in answer
