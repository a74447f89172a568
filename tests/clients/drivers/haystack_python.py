"""Haystack: its component sends no response format, and reads base64 only."""

from haystack.components.generators import OpenAIImageGenerator
from haystack.utils import Secret
from serving import serve


def make(base_url):
    def draw(case):
        generator = OpenAIImageGenerator(
            model=case["model"],
            size=case["size"],
            api_key=Secret.from_token(case["key"]),
            api_base_url=base_url,
            max_retries=0,
        )
        return generator.run(case["prompt"])["images"]

    return draw


serve(make)
