"""The OpenAPI description holds: whatever a client sends, the server answers as described, and never with a fault of its own."""

from collections.abc import Callable

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)
from starlette.testclient import TestClient

from tests.serving.conftest import House, Running

# Schemathesis draws with the random module inside its own strategies, and Hypothesis warns of it.
pytestmark = pytest.mark.filterwarnings("ignore:Do not use the `random` module inside strategies")

CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]
ROUTES = (
    "GET /v1/models",
    "GET /v1/models/{model}",
    "POST /v1/completions",
    "POST /v1/chat/completions",
    "POST /v1/classify",
    "POST /v1/prompts",
    "POST /tokenize",
    "POST /detokenize",
    "GET /tokenizer_info",
    "GET /health",
    "GET /ready",
    "GET /metrics",
)
MODELS = {
    "/v1/completions": ("base", "writer", "routing", "pair", "two", "notes", "first"),
    "/v1/chat/completions": ("writer", "talk", "base", "routing"),
    "/v1/classify": ("routing", "words", "pair"),
}
EXAMPLES = 20 if settings().derandomize else settings().max_examples
"""HYPOTHESIS_PROFILE=search looks for new faults."""


@pytest.fixture(scope="module")
def schema(house: House, run: Callable[..., Running]) -> schemathesis.schemas.BaseSchema:
    running = run(house, uploads=True)
    return schemathesis.openapi.from_url(f"{running.url}/openapi.json")


@pytest.mark.parametrize("route", ROUTES)
def test_a_route_keeps_to_its_description(schema: schemathesis.schemas.BaseSchema, route: str) -> None:
    method, path = route.split()
    operation = schema[path][method]

    @given(case=operation.as_strategy())
    @settings(max_examples=EXAMPLES, database=None, suppress_health_check=list(HealthCheck))
    def probe(case: schemathesis.Case) -> None:
        if isinstance(case.body, dict) and path in MODELS:
            # else almost every answer is that there is no such model
            case.body["model"] = MODELS[path][len(str(case.body)) % len(MODELS[path])]
            if isinstance(case.body.get("max_tokens"), int):
                case.body["max_tokens"] %= 5
        case.call_and_validate(checks=CHECKS)

    probe()


def test_every_route_is_described_and_probed(client: TestClient) -> None:
    described = {
        f"{method.upper()} {path}" for path, one in client.get("/openapi.json").json()["paths"].items() for method in one
    }
    assert described == set(ROUTES) - {"POST /v1/prompts"}
