"""Who plays: every client, how it is run, what it asks for, and what it must raise.

Cases are the same for all; `Client` says where one differs. Sizes and names are those its users send.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping
from dataclasses import dataclass, field

from PIL import Image

Case = dict[str, object]

OPENAI_ERRORS: Mapping[str, tuple[str, str]] = {
    "bad_key": ("AuthenticationError", "invalid_api_key"),
    "limited": ("RateLimitError", "rate_limit_exceeded"),
    "broke": ("RateLimitError", "insufficient_quota"),
    "unsafe": ("BadRequestError", "content_policy_violation"),
    "bad_size": ("BadRequestError", "invalid_value"),
    "bad_model": ("NotFoundError", "model_not_found"),
    "failing": ("InternalServerError", "undeliverable"),
    "busy": ("InternalServerError", "no_capacity"),
    "edit_odd_file": ("BadRequestError", "invalid_value"),
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

    @property
    def edits(self) -> bool:
        """Whether it can draw from pictures."""
        return any("images" in case for case in self.pictures.values())

    def expected(self, name: str) -> tuple[str, str]:
        """Class and code of an error; an edit fails as a generation does."""
        return self.errors.get(name) or self.errors[name.removeprefix(EDIT)]

    def failures(self) -> list[str]:
        """Every case that must fail."""
        drawing = [name for name in self.errors if name not in self.skips and not name.startswith(EDIT)]
        editing = [f"{EDIT}{name}" for name in drawing if name not in ONLY_DRAWN] + [ODD_FILE] if self.edits else []
        return drawing + [name for name in editing if name not in self.skips]


URL, B64 = "url", "b64_json"
EDIT = "edit_"
"""Before the name of a case that is tried with a picture to edit as well."""
ODD_FILE = f"{EDIT}odd_file"
ONLY_DRAWN = frozenset({"busy"})
"""What has no model in the demo that edits."""
FAILS_TO_EDIT, FAILING_ENDPOINTS = "flux-kontext-max", "*kontext?max*"
"""Its sellers fail by the script of these tests."""
PREVIEWED, SLOW_ENDPOINTS = "flux-1.1-pro", "*1.1*"
"""It is slow by the script of these tests, so that a preview is there before it."""


def _png(mode: str, colour: tuple[int, ...], side: int = 512) -> str:
    out = io.BytesIO()
    Image.new(mode, (side, side), colour).save(out, "PNG")
    return base64.b64encode(out.getvalue()).decode()


HOUSE, LAKE = _png("RGB", (150, 90, 40)), _png("RGB", (30, 90, 160))
MASK = _png("RGBA", (0, 0, 0, 0))
LARGE, LARGE_MASK = _png("RGB", (90, 120, 60), 1024), _png("RGBA", (0, 0, 0, 0), 1024)
NOTES = base64.b64encode(b"Not a picture at all, whatever its name says.").decode()

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
    "previewed": {
        "model": PREVIEWED, "quality": "high", "size": "1024x1024", "stream": True, "partial_images": 2, "form": B64,
    },
    "edited": {"model": "gpt-image-1", "size": "1024x1024", "images": [HOUSE], "form": B64},
    "edited_from_two": {"model": "gpt-image-1.5", "size": "1024x1024", "images": [HOUSE, LAKE], "form": B64},
    "edited_under_a_mask": {
        "model": "gpt-image-1", "size": "512x512", "images": [HOUSE], "mask": MASK, "form": B64,
    },
    "edited_by_an_old_name": {"model": "dall-e-2", "size": "512x512", "n": 2, "images": [HOUSE], "form": URL},
    "edited_by_no_name": {"model": None, "size": "1024x1024", "images": [HOUSE], "form": B64},
    "edited_by_our_name": {"model": "flux-kontext-pro", "size": "1248x832", "images": [HOUSE], "form": B64},
    "edited_into_a_stream": {
        "model": "gpt-image-1", "size": "1024x1024", "stream": True, "partial_images": 2, "images": [HOUSE],
        "form": B64,
    },
    "edited_as_azures": {"model": "gpt-image-1", "size": "1024x1024", "azure": True, "images": [HOUSE], "form": B64},
}  # fmt: skip

STATUSES = {
    "bad_key": 401, "limited": 429, "broke": 429, "unsafe": 400, "bad_size": 400, "bad_model": 404, "failing": 502,
    "busy": 503, "odd_file": 400,
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
            "edited": {"model": "gpt-image-1", "size": "1024x1024", "images": [HOUSE], "form": B64},
            "edited_under_a_mask": {
                "model": "gpt-image-1",
                "size": "512x512",
                "images": [HOUSE],
                "mask": MASK,
                "form": B64,
            },
            "edited_by_our_name": {"model": "flux-kontext-pro", "size": "1248x832", "images": [HOUSE], "form": B64},
        },
        errors=VERCEL_ERRORS,
        statuses=STATUSES,
    ),
    "vercel-compatible": Client(
        driver="vercel_compatible.mjs",
        pictures={
            "fetched_by_url": {"model": "flux-schnell", "size": "640x384", "n": 2, "form": B64},
            "dall_e_3": {"model": "dall-e-3", "size": "1024x1024", "form": B64},
            "gpt_image": {"model": "gpt-image-1", "size": "1536x1024", "form": B64},
            "edited": {"model": "flux-kontext-pro", "size": "1248x832", "images": [HOUSE], "form": B64},
            "edited_from_two": {"model": "gpt-image-1", "size": "1024x1024", "images": [HOUSE, LAKE], "form": B64},
            "edited_under_a_mask": {
                "model": "dall-e-2",
                "size": "512x512",
                "images": [HOUSE],
                "mask": MASK,
                "form": B64,
            },
        },
        errors=VERCEL_ERRORS,
        statuses=STATUSES,
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
            "edited": {"model": "gpt-image-1", "size": "1024x1024", "images": [HOUSE], "form": B64},
            "edited_from_two": {"model": "gpt-image-1", "size": "1024x1024", "images": [HOUSE, LAKE], "form": B64},
            "edited_under_a_mask": {
                "model": "gpt-image-1",
                "size": "512x512",
                "images": [HOUSE],
                "mask": MASK,
                "form": B64,
            },
            "edited_by_an_old_name": {"model": "dall-e-2", "size": "512x512", "n": 2, "images": [HOUSE], "form": URL},
        },
        errors={
            **OPENAI_ERRORS,
            "failing": ("BadGatewayError", "undeliverable"),
            "busy": ("ServiceUnavailableError", "no_capacity"),
        },
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
        skips=frozenset({"bad_model", "failing", "busy"}),
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
            "edited_by_no_name": {"size": "1024x1024", "images": [HOUSE], "form": B64},
            "edited_from_two": {"size": "1024x1024", "images": [HOUSE, LAKE], "form": B64},
            "edited_under_a_mask": {"size": "1024x1024", "images": [LARGE], "mask": LARGE_MASK, "form": B64},
        },
        wraps=True,
        # It names no model when it edits.
        skips=frozenset({"edit_bad_model", "edit_failing"}),
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
        "busy": {"model": fixtures["model_slow"]},
        f"{EDIT}failing": {"model": FAILS_TO_EDIT},
        ODD_FILE: {"images": [NOTES]},
    }
    pictures = [{"name": name, **usual, **case} for name, case in client.pictures.items()]
    return pictures + [{"name": name, **usual, **_wrong(client, wrong, name)} for name in client.failures()]


def _wrong(client: Client, wrong: Mapping[str, Case], name: str) -> Case:
    plain = name.removeprefix(EDIT)
    given: Case = {"images": [HOUSE]} if name.startswith(EDIT) else {}
    return {**given, **wrong.get(name, wrong.get(plain, {})), **client.changes.get(plain, {})}
