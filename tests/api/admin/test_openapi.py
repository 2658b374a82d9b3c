"""The OpenAPI document describes every response, with unique struct names."""

import json
import re

import msgspec
from fastapi.routing import APIRoute

from millm.api.admin.openapi import STRUCTS, component_schemas
from millm.api.app import create_app
from tests.fixtures.bare import bare_state
from tools.admin_sections import SECTIONS
from tools.field_tables import with_parts


def test_responses_are_described_and_references_resolve() -> None:
    document = create_app(bare_state()).openapi()
    described = {
        (address.removeprefix("/api"), method.upper())
        for address, methods in document["paths"].items()
        for method, operation in methods.items()
        if {"200", "201", "202"} & {status for status, told in operation["responses"].items() if _has_schema(told)}
    }
    routes = {
        (re.sub(":path|:int", "", route.path), *route.methods)
        for _, _, routers, _ in SECTIONS
        for router in routers
        for route in router.routes
        if not _is_file(route)
    }
    assert routes <= described
    assert len(routes) >= 50
    names = set(re.findall(r'"#/components/schemas/([^"]+)"', json.dumps(document)))
    assert names <= document["components"]["schemas"].keys()


def _is_file(route: APIRoute) -> bool:
    return any("application/json" not in told["content"] for told in route.responses.values() if "content" in told)


def _has_schema(told: dict) -> bool:
    return bool(told.get("content", {}).get("application/json", {}).get("schema"))


def test_struct_and_body_names_are_distinct() -> None:
    app = create_app(bare_state())
    bodies = type(app).openapi(app)["components"]["schemas"].keys()
    assert not bodies & component_schemas().keys()


def test_schemas_match_the_encoded_structs() -> None:
    """All fields of all structs and nested structs."""
    described = component_schemas()
    for struct in with_parts(STRUCTS):
        fields = {field.encode_name for field in msgspec.structs.fields(struct)}
        assert fields == described[struct.__name__]["properties"].keys() - {"type"}, struct
