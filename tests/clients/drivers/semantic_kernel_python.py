"""Semantic Kernel: sends no response format, takes URL or base64, edits by no model, wraps the official client's errors."""

import io

from openai import AsyncOpenAI
from semantic_kernel.connectors.ai.open_ai import OpenAITextToImage, OpenAITextToImageExecutionSettings
from semantic_kernel.connectors.ai.open_ai.prompt_execution_settings.open_ai_text_to_image_execution_settings import (
    ImageSize,
)
from serving import pick, pictures_of, serve


def make(base_url):
    async def draw(case):
        client = AsyncOpenAI(base_url=base_url, api_key=case["key"], max_retries=0)
        service = OpenAITextToImage(ai_model_id=case["model"], async_client=client)
        width, height = case["size"].split("x")
        size = ImageSize(width=int(width), height=int(height))
        settings = OpenAITextToImageExecutionSettings(size=size, **pick(case, ("n", "output_compression")))
        if "images" not in case:
            return await service.generate_images(case["prompt"], settings=settings)
        pictures = pictures_of(case, always_listed=True)
        files = [io.BytesIO(data) for data in pictures["image"]]
        mask = io.BytesIO(pictures["mask"]) if "mask" in pictures else None
        return await service.edit_image(case["prompt"], image_files=files, mask_file=mask, settings=settings)

    return draw


serve(make)
