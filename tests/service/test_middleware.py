"""What holds for every request: its host, its length, HEAD, headers, bodies that are not read."""

import asyncio
import importlib.metadata
import json

import httpx
import pytest
from clients import JSON, post_by_urllib, raw, send

from jaxclf.errors import ConfigError
from jaxclf.service.app import make_app
from jaxclf.service.middleware import host_name, is_allowed, parse_hosts, parse_origins

LARGE = b'{"text": "' + b"a" * 5_000_000 + b'"}'


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost", 200),
        ("LOCALHOST:80", 200),
        ("localhost.", 200),
        ("app.localhost:8000", 200),
        ("127.0.0.1:8000", 200),
        ("[::1]:8000", 200),
        ("models.example", 200),
        ("Models.Example:443", 200),
        ("models.example.evil.example", 421),
        ("evil.example", 421),
        ("localhost.evil.example:8000", 421),
        ("evillocalhost", 421),
        ("127.0.0.1.evil.example", 421),
        ("10.0.0.1", 421),
        ("localhost:80:80", 421),
        ("localhost@evil.example", 421),
        ("", 421),
    ],
)
@pytest.mark.parametrize("path", ["/health", "/", "/metrics", "/nothing"])
def test_only_allowed_hosts_are_answered(served, host, status, path):
    expected = 404 if (status, path) == (200, "/nothing") else status
    answered, _, body = send(served[1], "GET", path, headers={"Host": host})
    assert answered == expected
    if status == 421:
        assert "--allow-host" in json.loads(body)["error"]
        assert "evil" not in body.decode()


def test_http_1_0_may_leave_the_host_out(served):
    assert raw(served[1], b"GET /health HTTP/1.0\r\n\r\n").startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize("host", ["0.0.0.0", "::", ""])
def test_a_service_on_all_addresses_is_asked_by_any(host):
    hosts = parse_hosts(host, [])
    assert is_allowed("10.0.0.1", hosts)
    assert is_allowed("fe80::1", hosts)
    assert not is_allowed("evil.example", hosts)


def test_a_service_on_one_address_is_asked_by_it():
    hosts = parse_hosts("10.0.0.1", ["Models.Example.", "[fe80::1]"])
    assert hosts == {"10.0.0.1", "models.example", "fe80::1"}
    assert is_allowed(str(host_name("10.0.0.1:80")), hosts)
    assert not is_allowed("10.0.0.2", hosts)


@pytest.mark.parametrize("name", ["http://a.example", "a.example:80", "a/b", "", "*", "a b"])
def test_an_allowed_host_is_a_name(name):
    with pytest.raises(ConfigError, match="--allow-host"):
        parse_hosts("127.0.0.1", [name])


@pytest.mark.parametrize("start", [b"GET /health", b"POST /predict"])
def test_two_lengths_are_refused(served, start):
    reply = raw(
        served[1],
        start + b" HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
        b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n",
    )
    assert reply.startswith(b"HTTP/1.1 400 ")
    assert b"Transfer-Encoding" in reply
    assert reply.count(b"HTTP/1.1") == 1  # what follows is not taken as a request


def test_head_is_answered_wherever_get_is(served):
    _, port = served
    paths = ["/", "/page.js", "/health", "/ready", "/docs", "/openapi.json", "/nothing", "/predict"]
    for path in paths:
        status, headers, _ = send(port, "GET", path)
        head_status, head_headers, body = send(port, "HEAD", path)
        assert (head_status, body) == (status, b"")
        ignored = {"date"}
        assert {k: v for k, v in head_headers.items() if k not in ignored} == {
            k: v for k, v in headers.items() if k not in ignored
        }
    assert send(port, "HEAD", "/metrics")[0] == 200


def test_every_answer_forbids_guessing_and_storing_and_names_the_model(served, monkeypatch):
    service, port = served
    model = service.queue.model._replace(predict=lambda texts: 1 / 0)
    good = json.dumps({"text": "a"})
    for method, path, body, headers, expected in [
        ("GET", "/health", None, {}, 200),
        ("GET", "/ready", None, {}, 200),
        ("GET", "/metrics", None, {}, 200),
        ("GET", "/openapi.json", None, {}, 200),
        ("POST", "/predict", good, JSON, 200),
        ("POST", "/explain", good, JSON, 200),
        ("POST", "/predict", "{", JSON, 400),
        ("GET", "/nothing", None, {}, 404),
        ("GET", "/predict", None, {}, 405),
        ("POST", "/predict", LARGE, JSON, 413),
        ("POST", "/predict", good, {}, 415),
        ("GET", "/health", None, {"Host": "evil.example"}, 421),
        ("POST", "/predict", "{}", JSON, 422),
        ("POST", "/predict", good, JSON, 500),
    ]:
        if expected == 500:
            monkeypatch.setattr(service.queue, "model", model)
        status, answered, _ = send(port, method, path, body, headers)
        assert status == expected
        assert answered["x-content-type-options"] == "nosniff"
        assert answered["cache-control"] == "no-store"
        assert answered["x-model-digest"] == service.classifier.digest
        assert answered["x-jaxclf-version"] == importlib.metadata.version("jaxclf")
    for page in ("/", "/page.js", "/docs"):
        headers = send(port, "GET", page)[1]
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["cache-control"] == "no-cache"


def test_the_headers_of_the_model_may_be_left_out(served):
    service, _ = served
    app = make_app(service, with_model_headers=False)
    (response,) = ask_in_process(app, ("GET", "/ready", {}))
    headers = response.headers
    assert headers["cache-control"] == "no-store"
    assert not any(name.startswith(("x-model", "x-jaxclf")) for name in headers)


def ask_in_process(app, *requests):
    """The responses of an application to (method, path, headers), without a socket."""

    async def ask():
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            return [
                await client.request(method, path, headers=headers)
                for method, path, headers in requests
            ]

    return asyncio.run(ask())


PREFLIGHT = {
    "Access-Control-Request-Method": "POST",
    "Access-Control-Request-Headers": "content-type",
}


def test_only_pages_of_the_named_origins_may_call(served):
    mine, foreign = "https://app.example", "https://foreign.example"
    app = make_app(served[0], origins=[mine])
    responses = ask_in_process(
        app,
        ("OPTIONS", "/predict", {"Origin": mine} | PREFLIGHT),
        ("GET", "/ready", {"Origin": mine}),
        ("POST", "/predict", {"Origin": mine}),  # refused, and the page may read why
        ("OPTIONS", "/predict", {"Origin": foreign} | PREFLIGHT),
        ("GET", "/ready", {"Origin": foreign}),
    )
    assert [response.status_code for response in responses] == [200, 200, 415, 400, 200]
    allowed = [response.headers.get("access-control-allow-origin") for response in responses]
    assert allowed == [mine, mine, mine, None, None]
    exposed = responses[1].headers["access-control-expose-headers"]
    assert "X-Model-Digest" in exposed
    (response,) = ask_in_process(
        make_app(served[0]), ("OPTIONS", "/predict", {"Origin": mine} | PREFLIGHT)
    )
    assert response.status_code == 405
    assert "access-control-allow-origin" not in response.headers


@pytest.mark.parametrize("origin", ["app.example", "https://app.example/", "https://A.example", ""])
def test_an_origin_is_a_scheme_and_a_host(origin):
    good = ["http://localhost:3000", "https://app.example", "http://[::1]:80", "*"]
    assert parse_origins(good) == good
    with pytest.raises(ConfigError, match="--origin"):
        parse_origins([origin])


def test_a_root_path_may_be_left_in_the_path_or_removed_by_the_proxy(served):
    app = make_app(served[0], root_path="/labels")
    paths = ("/labels/ready", "/ready", "/labels/", "/labels/openapi.json", "/labelsready")
    responses = ask_in_process(app, *(("GET", path, {}) for path in paths))
    assert [response.status_code for response in responses] == [200, 200, 200, 200, 404]
    assert responses[3].json()["servers"] == [{"url": "/labels"}]
    (same,) = ask_in_process(make_app(served[0], root_path="/ready"), ("GET", "/ready", {}))
    assert same.status_code == 200  # a prefix may be called like a path


@pytest.mark.parametrize(
    ("path", "status"), [("/predict", 413), ("/explain", 413), ("/nothing", 404), ("/health", 405)]
)
def test_a_client_reads_the_answer_to_a_large_body(served, path, status):
    url = f"http://127.0.0.1:{served[1]}{path}"
    for _ in range(3):
        urllib_status, body = post_by_urllib(url, LARGE)
        reply = httpx.post(url, content=LARGE, headers=JSON)
        assert (urllib_status, reply.status_code) == (status, status)
        assert json.loads(body) == reply.json()
    assert raw(served[1], b"GET /health HTTP/1.0\r\n\r\n").startswith(b"HTTP/1.1 200 ")


def test_an_answer_precedes_the_body(served):
    head = b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    reply = raw(served[1], head + b"Expect: 100-continue\r\nContent-Length: 5000000\r\n\r\n")
    assert reply.startswith(b"HTTP/1.1 413 ")
    assert b"100 Continue" not in reply


def test_a_body_without_end_is_read_up_to_a_bound(served):
    head = b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    chunk = b"100000\r\n" + b" " * 2**20 + b"\r\n"
    with pytest.raises((BrokenPipeError, ConnectionResetError)):
        raw(served[1], head + b"Transfer-Encoding: chunked\r\n\r\n", *[chunk] * 200)


@pytest.mark.parametrize("charset", ["utf-8", "UTF8", '"utf-8"', "utf-8; version=1"])
def test_utf_8_has_several_spellings(served, charset):
    headers = {"Content-Type": f"application/json; charset={charset}"}
    assert send(served[1], "POST", "/predict", json.dumps({"text": "a"}), headers)[0] == 200
