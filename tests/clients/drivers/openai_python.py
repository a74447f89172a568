"""The official client, old and new."""

from openai import OpenAI
from serving import serve


def make(base_url):
    def draw(case):
        client = OpenAI(base_url=base_url, api_key=case["key"], max_retries=0)
        names = ("model", "prompt", "size", "n", "response_format", "quality", "output_format")
        answer = client.images.generate(**{name: case[name] for name in names if name in case})
        return [image.b64_json or image.url for image in answer.data]

    return draw


serve(make)
