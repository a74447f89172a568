"""LlamaIndex: its tool takes the address from the environment, and the names and sizes of dall-e only."""

import os

from llama_index.tools.openai.image_generation.base import OpenAIImageGenerationToolSpec
from serving import serve


def make(base_url):
    os.environ["OPENAI_BASE_URL"] = base_url

    def draw(case):
        tool = OpenAIImageGenerationToolSpec(api_key=case["key"])
        tool.client.max_retries = 0
        return [
            tool.image_generation(
                case["prompt"], model=case["model"], size=case["size"], num_images=case.get("n", 1), download=False
            )
        ]

    return draw


serve(make)
