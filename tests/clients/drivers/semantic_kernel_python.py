"""Semantic Kernel: sends no response format, takes URL or base64, and wraps every error of the official client."""

from openai import AsyncOpenAI
from semantic_kernel.connectors.ai.open_ai import OpenAITextToImage, OpenAITextToImageExecutionSettings
from semantic_kernel.connectors.ai.open_ai.prompt_execution_settings.open_ai_text_to_image_execution_settings import (
    ImageSize,
)
from serving import serve


def make(base_url):
    async def draw(case):
        client = AsyncOpenAI(base_url=base_url, api_key=case["key"], max_retries=0)
        service = OpenAITextToImage(ai_model_id=case["model"], async_client=client)
        width, height = case["size"].split("x")
        size = ImageSize(width=int(width), height=int(height))
        names = ("n", "output_compression")
        settings = OpenAITextToImageExecutionSettings(size=size, **{name: case[name] for name in names if name in case})
        return await service.generate_images(case["prompt"], settings=settings)

    return draw


serve(make)
