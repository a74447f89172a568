from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from openai import AsyncAzureOpenAI

if TYPE_CHECKING:
    from tests.gateway.http.conftest import Door


@pytest.mark.parametrize("deployment", [None, "dall-e-3", "flux-dev", "black-forest-labs/FLUX.1-schnell"])
async def test_the_official_azure_client_draws_with_its_deployment_as_the_model(
    door: Door, deployment: str | None
) -> None:
    async with AsyncAzureOpenAI(
        azure_endpoint=door.base, azure_deployment=deployment, api_key=door.key, api_version="2025-04-01-preview"
    ) as client:
        answer = await client.images.generate(prompt="a red lighthouse", model="dall-e-2")
    assert answer.data is not None
    assert door.painter.calls[0].model == (deployment or "dall-e-2")


async def test_a_deployment_of_the_callers_own_naming_leaves_the_choice_to_the_body(door: Door) -> None:
    path = "/openai/deployments/our-pictures/images/generations?api-version=2024-02-01"
    assert (await door.post(path, {"prompt": "a", "model": "flux-dev"})).status_code == 200
    assert door.painter.calls[0].model == "flux-dev"
    refused = await door.post(path, {"prompt": "a"})
    assert (refused.status_code, refused.json()["error"]["code"]) == (404, "model_not_found")
    assert "our-pictures" in refused.json()["error"]["message"]


async def test_a_key_may_come_in_azures_header(door: Door) -> None:
    del door.http.headers["authorization"]
    path = "/openai/deployments/flux-dev/images/generations"
    assert (await door.post(path, {"prompt": "a"}, {"api-key": door.key})).status_code == 200
    assert (await door.post(path, {"prompt": "a"})).status_code == 401


@pytest.mark.parametrize("path", ["", "/flux-dev", "/flux-dev/images/", "/flux-dev/images/nothing", "/images/x/"])
async def test_other_paths_of_azures_are_unknown_in_the_envelope(door: Door, path: str) -> None:
    answer = await door.post(f"/openai/deployments{path}", {"prompt": "a"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "not_found")
    assert answer.headers["x-request-id"].startswith("req_")


async def test_a_key_may_be_bound_to_models_and_hears_so(door: Door) -> None:
    bound = await door.add_key(models=("flux-dev",))
    path = "/openai/deployments/flux-1.1-pro/images/generations"
    refused = await door.post(path, {"prompt": "a"}, {"authorization": f"Bearer {bound}"})
    assert (refused.status_code, refused.json()["error"]["code"]) == (403, "forbidden")
