"""The API, fuzzed from its own OpenAPI description: whatever comes in, no 5xx goes out."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis.specs.openapi.checks import response_schema_conformance

from generations_kit import World, documents, static_model
from nearer.live.web.service import Service, Tokens
from test_serve import made, serving

PATHS = (
    "/search",
    "/similar",
    "/feedback",
    "/healthz",
    "/readyz",
    "/metrics",
    "/dashboard",
    "/admin/cutover",
    "/admin/rollback",
)
FUZZED = settings(
    max_examples=60,
    deadline=None,
    derandomize=True,
    database=None,
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)


@pytest.fixture(scope="module")
def schema(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """The description of a service that is ready."""
    folder = tmp_path_factory.mktemp("fuzz")
    world = World(folder / "shop", static_model(folder / "model")).write(documents(range(20)))
    world.settings["serve"] = {"timeout": 60}
    (world.root / "nearer.yaml").write_text(json.dumps(world.settings))
    world.generations.cutover(made(world, Path(world.config.model.name)))
    with serving(Service(world.generations, Tokens("admin-secret"))) as address:
        yield schemathesis.openapi.from_url(f"{address}/openapi.json")


def operations(schema: Any) -> dict[str, Any]:
    return {one.ok().path: one.ok() for one in schema.get_all_operations()}


def test_every_endpoint_is_described(schema: Any) -> None:
    assert set(operations(schema)) == set(PATHS)


@pytest.mark.parametrize("path", PATHS)
def test_no_5xx_and_answers_as_described(schema: Any, path: str) -> None:
    operation = operations(schema)[path]

    @FUZZED
    @given(case=operation.as_strategy())
    def fuzz(case: schemathesis.Case) -> None:
        response = case.call(headers={"Authorization": "Bearer admin-secret"})
        assert response.status_code < 500, response.text
        case.validate_response(response, checks=[response_schema_conformance])

    fuzz()
