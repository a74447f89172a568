"""LiteLLM's client, as an app uses it that talks to an OpenAI-style server."""

import io

import litellm
from openai import OpenAI
from serving import pick, pictures_of, serve

litellm.suppress_debug_info = True


class Once(OpenAI):
    """LiteLLM lets the client repeat twice, whatever it is told; the second limited request would wait a minute."""

    max_retries = property(lambda self: 0, lambda self, value: None)


def make(base_url):
    def draw(case):
        place = {"model": f"openai/{case['model']}", "api_base": base_url, "api_key": case["key"]}
        given = pick(case, ("prompt", "size", "n", "response_format"))
        if "images" in case:
            pictures = pictures_of(case, always_listed=True)
            files = [io.BytesIO(data) for data in pictures.pop("image")]
            answer = litellm.image_edit(image=files, **pictures, **given, **place)
        else:
            client = Once(base_url=base_url, api_key=case["key"])
            answer = litellm.image_generation(client=client, **given, **place)
        return [image.b64_json or image.url for image in answer.data]

    return draw


serve(make)
