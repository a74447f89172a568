"""LiteLLM's client, as an app uses it that talks to an OpenAI-style server."""

import litellm
from openai import OpenAI
from serving import serve

litellm.suppress_debug_info = True


class Once(OpenAI):
    """LiteLLM lets the client repeat twice, whatever it is told; the second limited request would wait a minute."""

    max_retries = property(lambda self: 0, lambda self, value: None)


def make(base_url):
    def draw(case):
        names = ("prompt", "size", "n", "response_format")
        answer = litellm.image_generation(
            model=f"openai/{case['model']}",
            api_base=base_url,
            api_key=case["key"],
            client=Once(base_url=base_url, api_key=case["key"]),
            **{name: case[name] for name in names if name in case},
        )
        return [image.b64_json or image.url for image in answer.data]

    return draw


serve(make)
