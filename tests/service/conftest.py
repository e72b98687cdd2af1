import pytest
from clients import get, running, until

from jaxclf.inference.load import load
from jaxclf.service.app import make_app
from jaxclf.service.server import make_server
from jaxclf.service.service import make_service


@pytest.fixture(scope="session")
def served(run_folder):
    """(the service, its port), ready."""
    service = make_service(load(run_folder), "tiny", 4096, 20.0)
    with running(make_server(make_app(service, {"models.example"}), service)) as port:
        until(lambda: get(port, "/ready")[0] == 200)
        yield service, port
