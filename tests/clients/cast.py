"""Who plays: every client, how it is run, what it asks for, and what it must raise.

Cases are the same for all; `Client` says where one differs. Sizes and names are those its users send.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

Case = dict[str, object]

OPENAI_ERRORS: Mapping[str, tuple[str, str]] = {
    "bad_key": ("AuthenticationError", "invalid_api_key"),
    "limited": ("RateLimitError", "rate_limit_exceeded"),
    "broke": ("RateLimitError", "insufficient_quota"),
    "unsafe": ("BadRequestError", "content_policy_violation"),
    "bad_size": ("BadRequestError", "invalid_value"),
    "bad_model": ("NotFoundError", "model_not_found"),
    "failing": ("InternalServerError", "undeliverable"),
}
"""Case -> class and code, as OpenAI's own clients, and all that stand on them, must raise."""


@dataclass(frozen=True, kw_only=True)
class Client:
    """One third-party client."""

    driver: str
    environment: str = "node"
    pictures: Mapping[str, Case]
    """Case -> what it asks for, beside key and prompt; `form` is how its pictures must come."""
    errors: Mapping[str, tuple[str, str]] = field(default_factory=lambda: OPENAI_ERRORS)
    statuses: Mapping[str, int] = field(default_factory=dict)
    """Case -> HTTP status, for clients that have one class for all."""
    codes_in_words: bool = False
    """It hands the code on in its message only."""
    wraps: bool = False
    """It raises a class of its own, whose cause is the official client's."""
    model: str = "gpt-image-1"
    """What it asks for when an error is expected."""
    changes: Mapping[str, Case] = field(default_factory=dict)
    """Case -> what differs for this client."""
    skips: frozenset[str] = frozenset()
    """Cases that it never sends: its own checks come first."""


URL, B64 = "url", "b64_json"

OFFICIAL: Mapping[str, Case] = {
    "gpt_image": {"model": "gpt-image-1", "size": "1536x1024", "form": B64},
    "gpt_image_later": {"model": "gpt-image-2.6-sunburst", "size": "1024x1536", "quality": "low", "form": B64},
    "dall_e_3": {"model": "dall-e-3", "size": "1792x1024", "form": URL},
    "dall_e_2": {"model": "dall-e-2", "size": "256x256", "n": 3, "form": URL},
    "asked_for_base64": {"model": "dall-e-3", "size": "1024x1024", "response_format": B64, "form": B64},
    "own_name": {"model": "flux-schnell", "size": "512x768", "response_format": URL, "form": URL},
    "streamed": {"model": "gpt-image-1", "size": "1024x1024", "stream": True, "form": B64},
    "streamed_by_an_old_name": {"model": "dall-e-3", "size": "512x512", "n": 2, "stream": True, "form": B64},
    "as_azures": {"model": "gpt-image-1", "size": "1024x1024", "azure": True, "form": B64},
    "webp": {"model": "gpt-image-1", "size": "1024x1024", "output_format": "webp", "form": B64},
}

VERCEL_STATUSES = {
    "bad_key": 401, "limited": 429, "broke": 429, "unsafe": 400, "bad_size": 400, "bad_model": 404, "failing": 502,
}  # fmt: skip
VERCEL_ERRORS = {case: ("AI_APICallError", code) for case, (_, code) in OPENAI_ERRORS.items()}

CAST: Mapping[str, Client] = {
    "openai-python": Client(environment="openai-current", driver="openai_python.py", pictures=OFFICIAL),
    "openai-python-1": Client(environment="openai-1", driver="openai_python.py", pictures=OFFICIAL),
    "openai-node": Client(driver="openai_node.mjs", pictures=OFFICIAL),
    "vercel-openai": Client(
        driver="vercel_openai.mjs",
        pictures={
            "gpt_image": {"model": "gpt-image-1", "size": "1024x1536", "form": B64},
            "dall_e_3": {"model": "dall-e-3", "size": "1024x1792", "n": 2, "form": B64},
            "own_name": {"model": "flux-schnell", "size": "640x384", "form": B64},
        },
        errors=VERCEL_ERRORS,
        statuses=VERCEL_STATUSES,
    ),
    "vercel-compatible": Client(
        driver="vercel_compatible.mjs",
        pictures={
            "fetched_by_url": {"model": "flux-schnell", "size": "640x384", "n": 2, "form": B64},
            "dall_e_3": {"model": "dall-e-3", "size": "1024x1024", "form": B64},
            "gpt_image": {"model": "gpt-image-1", "size": "1536x1024", "form": B64},
        },
        errors=VERCEL_ERRORS,
        statuses=VERCEL_STATUSES,
    ),
    "langchain-python": Client(
        environment="langchain",
        driver="langchain_python.py",
        pictures={
            "dall_e_2": {"model": "dall-e-2", "size": "512x512", "n": 2, "form": URL},
            "dall_e_3": {"model": "dall-e-3", "size": "1792x1024", "form": URL},
        },
        model="dall-e-3",
    ),
    "langchain-node": Client(
        driver="langchain_node.mjs",
        pictures={
            "url": {"model": "dall-e-3", "size": "1024x1792", "form": URL},
            "base64": {"model": "dall-e-3", "size": "1024x1024", "response_format": B64, "form": B64},
        },
        model="dall-e-3",
    ),
    "litellm": Client(
        environment="litellm",
        driver="litellm_python.py",
        pictures={
            "gpt_image": {"model": "gpt-image-1", "size": "1024x1536", "form": B64},
            "dall_e_3": {"model": "dall-e-3", "size": "1792x1024", "response_format": B64, "form": B64},
            "own_name": {"model": "flux-schnell", "size": "512x512", "n": 2, "form": URL},
        },
        errors={**OPENAI_ERRORS, "failing": ("BadGatewayError", "undeliverable")},
        codes_in_words=True,
    ),
    "llama-index": Client(
        environment="llama-index",
        driver="llama_index_python.py",
        pictures={
            "dall_e_2": {"model": "dall-e-2", "size": "512x512", "form": URL},
            "dall_e_3": {"model": "dall-e-3", "size": "1792x1024", "form": URL},
        },
        errors={**OPENAI_ERRORS, "bad_size": ("BadRequestError", "integer_above_max_value")},
        model="dall-e-3",
        # It knows the sizes of dall-e only, so a number of pictures stands for a bad size.
        changes={"bad_size": {"size": "1024x1024", "n": 11}},
        skips=frozenset({"bad_model", "failing"}),
    ),
    "haystack": Client(
        environment="haystack",
        driver="haystack_python.py",
        pictures={
            "its_default_model": {"model": "gpt-image-2", "size": "1024x1024", "form": B64},
            "tall": {"model": "gpt-image-2", "size": "1024x1536", "form": B64},
        },
        model="gpt-image-2",
    ),
    "semantic-kernel": Client(
        environment="semantic-kernel",
        driver="semantic_kernel_python.py",
        pictures={
            "dall_e_3": {"model": "dall-e-3", "size": "1024x1024", "form": URL},
            "gpt_image": {"model": "gpt-image-1", "size": "1024x1792", "n": 2, "form": B64},
        },
        wraps=True,
        # It lets only the sizes of dall-e pass, so a compression stands for a bad size.
        errors={**OPENAI_ERRORS, "bad_size": ("BadRequestError", "integer_above_max_value")},
        changes={"bad_size": {"size": "1024x1024", "output_compression": 500}},
    ),
}


def cases_of(client: Client, fixtures: Mapping[str, str]) -> list[Case]:
    """What a client is told to do, in order."""
    key, prompt = fixtures["key"], "a red lighthouse in the rain"
    usual: Case = {"key": key, "prompt": prompt, "model": client.model, "size": "1024x1024"}
    wrong: Mapping[str, Case] = {
        "bad_key": {"key": "pg_000000000000_no-such-key"},
        # Whoever came before may have left a request in this minute's bucket; the second is surely one too many.
        "limited": {"key": fixtures["key_limited"], "tries": 2},
        "broke": {"key": fixtures["key_broke"]},
        "unsafe": {"prompt": fixtures["unsafe_prompt"]},
        "bad_size": {"size": "99999x99999"},
        "bad_model": {"model": "no-such-model"},
        "failing": {"model": fixtures["model_fail"]},
    }
    errors = [
        {"name": name, **usual, **case, **client.changes.get(name, {})}
        for name, case in wrong.items()
        if name not in client.skips
    ]
    return [{"name": name, **usual, **case} for name, case in client.pictures.items()] + errors
