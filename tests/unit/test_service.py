"""What the application answers."""

import asyncio

import pytest
from aiohttp import web
from aiohttp.test_utils import make_mocked_request

from service.app import Settings, application, greeting

SETTINGS = Settings("/service/1", "/healthz", "10.77.0.21")


def answer(path: str, method: str = "GET") -> web.Response:
    async def handled() -> web.Response:
        request = make_mocked_request(method, path)
        match = await application(SETTINGS).router.resolve(request)
        return await match.handler(request)  # type: ignore[return-value]

    return asyncio.run(handled())


def test_the_greeting_is_the_guides() -> None:
    expected = "Hello from behind Envoy (service 1)! hostname: web resolvedhostname: 10.77.0.21\n"
    assert greeting(SETTINGS, "web") == expected


def test_its_own_path_is_answered_as_html() -> None:
    response = answer("/service/1")
    assert (response.status, response.headers["content-type"]) == (200, "text/html; charset=utf-8")
    assert response.text is not None
    assert response.text.startswith("Hello from behind Envoy (service 1)! hostname: ")


def test_the_health_check_is_answered() -> None:
    assert answer("/healthz").status == 200


@pytest.mark.parametrize("path", ["/service/2", "/service/10", "/service/1/x", "/"])
def test_anything_else_is_not_found(path: str) -> None:
    with pytest.raises(web.HTTPNotFound):
        answer(path)
