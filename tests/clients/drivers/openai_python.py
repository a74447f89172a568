"""The official client, old and new, its streams, and its twin for Azure."""

from openai import AzureOpenAI, OpenAI
from serving import serve

NAMES = ("model", "prompt", "size", "n", "response_format", "quality", "output_format", "stream")


def make(base_url):
    def draw(case):
        answer = client_of(case, base_url).images.generate(**{name: case[name] for name in NAMES if name in case})
        if case.get("stream"):
            return [event.b64_json for event in answer if event.type == "image_generation.completed"]
        return [image.b64_json or image.url for image in answer.data]

    return draw


def client_of(case, base_url):
    if case.get("azure"):
        endpoint = base_url.removesuffix("/v1")
        return AzureOpenAI(
            azure_endpoint=endpoint, api_key=case["key"], api_version="2025-04-01-preview", max_retries=0
        )
    return OpenAI(base_url=base_url, api_key=case["key"], max_retries=0)


serve(make)
