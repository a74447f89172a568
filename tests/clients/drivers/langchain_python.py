"""LangChain: its tool sends no response format, and reads URLs only."""

from langchain_community.utilities.dalle_image_generator import DallEAPIWrapper
from serving import serve


def make(base_url):
    def draw(case):
        tool = DallEAPIWrapper(
            base_url=base_url,
            api_key=case["key"],
            model=case["model"],
            size=case["size"],
            n=case.get("n", 1),
            max_retries=0,
        )
        return tool.run(case["prompt"]).split("\n")

    return draw


serve(make)
