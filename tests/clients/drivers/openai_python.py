"""The official client, old and new, its streams, and its twin for Azure; files without a name, as bytes."""

from openai import AzureOpenAI, OpenAI
from serving import pick, pictures_of, serve

NAMES = ("model", "prompt", "size", "n", "response_format", "quality", "output_format", "stream", "partial_images")


def make(base_url):
    def draw(case):
        images, given = client_of(case, base_url).images, pick(case, NAMES)
        answer = images.edit(**given, **pictures_of(case)) if "images" in case else images.generate(**given)
        if not case.get("stream"):
            return [image.b64_json or image.url for image in answer.data]
        events = list(answer)
        whole = [event.b64_json for event in events if event.type.endswith(".completed")]
        early = [event.b64_json for event in events if event.type.endswith(".partial_image")]
        return {"pictures": whole, "partials": early}

    return draw


def client_of(case, base_url):
    if case.get("azure"):
        endpoint = base_url.removesuffix("/v1")
        return AzureOpenAI(
            azure_endpoint=endpoint, api_key=case["key"], api_version="2025-04-01-preview", max_retries=0
        )
    return OpenAI(base_url=base_url, api_key=case["key"], max_retries=0)


serve(make)
