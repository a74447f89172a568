"""What Replicate's twin sells: its models, what each accepts and which sizes it really paints.

Ranges and defaults are those of the models' pages and of Replicate's published code as of 2026-11.
"""

from __future__ import annotations

from collections.abc import Mapping

from msgspec.structs import replace

from providers.sandbox.endpoints import BACKGROUND_REMOVER, KONTEXT_SIZES, ULTRA_SIZES, Endpoint, Inputs, Size, Sizes

_FLUX_RATIOS: Mapping[str, Size] = {
    "1:1": (1024, 1024),
    "16:9": (1344, 768),
    "21:9": (1536, 640),
    "3:2": (1216, 832),
    "2:3": (832, 1216),
    "4:5": (896, 1088),
    "5:4": (1088, 896),
    "3:4": (896, 1152),
    "4:3": (1152, 896),
    "9:16": (768, 1344),
    "9:21": (640, 1536),
}
REPLICATE_FLUX_SIZES: Mapping[str, Size] = {
    **{f"{ratio} 1": size for ratio, size in _FLUX_RATIOS.items()},
    **{f"{ratio} 0.25": (width // 2, height // 2) for ratio, (width, height) in _FLUX_RATIOS.items()},
}
_REPLICATE = (
    Endpoint(
        id="black-forest-labs/flux-schnell",
        seller="replicate",
        tier="preview",
        typical_s=0.8,
        steps=(1, 4),
        default_steps=4,
        max_count=4,
        sizes=Sizes(named=REPLICATE_FLUX_SIZES),
        shapes=REPLICATE_FLUX_SIZES,
        formats=("jpeg", "png", "webp"),
        default_format="webp",
        open_weights=True,
    ),
    Endpoint(
        id="black-forest-labs/flux-dev",
        seller="replicate",
        tier="standard",
        typical_s=3.5,
        steps=(1, 50),
        guidance=(0, 10),
        max_count=4,
        sizes=Sizes(named=REPLICATE_FLUX_SIZES),
        shapes=REPLICATE_FLUX_SIZES,
        formats=("jpeg", "png", "webp"),
        default_format="webp",
        open_weights=True,
    ),
    Endpoint(
        id="black-forest-labs/flux-1.1-pro",
        seller="replicate",
        tier="export",
        typical_s=5.0,
        tolerance=True,
        sizes=Sizes(high=1440, multiple=32),
        shapes=_FLUX_RATIOS,
        formats=("jpeg", "png", "webp"),
        default_format="webp",
    ),
    Endpoint(
        id=f"851-labs/background-remover:{BACKGROUND_REMOVER}",
        seller="replicate",
        tier="standard",
        typical_s=2.0,
        seed=False,
        sizes=Sizes(low=64, high=4096, multiple=1),
        formats=("png",),
        default_format="png",
        inputs=Inputs(field="image"),
        as_input=True,
        cuts_out=True,
        by_the_second=True,
    ),
)
_DEV, _PRO = _REPLICATE[1], _REPLICATE[2]
_KONTEXT = replace(
    _PRO,
    id="black-forest-labs/flux-kontext-pro",
    typical_s=6.0,
    sizes=Sizes(named=KONTEXT_SIZES),
    shapes=KONTEXT_SIZES,
    formats=("jpeg", "png"),
    default_format="jpeg",
    inputs=Inputs(field="input_image"),
)
_FLUX_2 = replace(
    _PRO,
    id="black-forest-labs/flux-2-pro",
    typical_s=9.0,
    sizes=Sizes(high=1440, multiple=16),
    inputs=Inputs(field="input_images", least=0, most=8),
)
_FAMILY = (
    replace(_DEV, id="black-forest-labs/flux-krea-dev"),
    replace(_PRO, id="black-forest-labs/flux-pro", typical_s=6.0),
    replace(
        _PRO,
        id="black-forest-labs/flux-1.1-pro-ultra",
        typical_s=2.25,
        sizes=Sizes(named=ULTRA_SIZES),
        shapes=ULTRA_SIZES,
        formats=("jpeg", "png"),
        default_format="jpeg",
    ),
    _KONTEXT,
    replace(_KONTEXT, id="black-forest-labs/flux-kontext-max", typical_s=8.0),
    _FLUX_2,
    replace(_FLUX_2, id="black-forest-labs/flux-2-flex", tier="standard", typical_s=8.0),
    replace(
        _FLUX_2,
        id="black-forest-labs/flux-2-dev",
        tier="standard",
        typical_s=4.0,
        tolerance=False,
        open_weights=True,
        inputs=Inputs(field="input_images", least=0, most=4),
    ),
)
REPLICATE: Mapping[str, Endpoint] = {endpoint.id: endpoint for endpoint in (*_REPLICATE, *_FAMILY)}
