"""What fal's twin draws: FLUX.1 and FLUX.2 with their edits, and the models around them.

Ranges, defaults and sizes are those of fal's model pages and generated client types as of 2026-11.
"""

from __future__ import annotations

from collections.abc import Mapping

from msgspec.structs import replace

from providers.sandbox.endpoints import KONTEXT_SIZES, RECRAFT_SIZES, ULTRA_SIZES, Endpoint, Inputs, Sizes

_FAL = (
    Endpoint(
        id="fal-ai/flux/schnell",
        seller="fal",
        tier="preview",
        typical_s=0.8,
        steps=(1, 12),
        default_steps=4,
        guidance=(1, 20),
        max_count=4,
        open_weights=True,
    ),
    Endpoint(
        id="fal-ai/flux/dev",
        seller="fal",
        tier="standard",
        typical_s=3.5,
        steps=(1, 50),
        guidance=(1, 20),
        max_count=4,
        open_weights=True,
    ),
    Endpoint(
        id="fal-ai/flux-pro/v1.1",
        seller="fal",
        tier="export",
        typical_s=5.0,
        max_count=4,
        tolerance=True,
        sizes=Sizes(high=1440, multiple=32),
    ),
    Endpoint(
        id="fal-ai/flux-pro/v1.1-ultra",
        seller="fal",
        tier="export",
        typical_s=2.25,
        max_count=4,
        tolerance=True,
        ratios=True,
        sizes=Sizes(named=ULTRA_SIZES),
    ),
    Endpoint(
        id="fal-ai/flux-2",
        seller="fal",
        tier="standard",
        typical_s=4.0,
        steps=(1, 50),
        guidance=(0, 20),
        max_count=4,
        sizes=Sizes(low=512),
        formats=("jpeg", "png", "webp"),
        default_format="png",
        open_weights=True,
    ),
    Endpoint(
        id="fal-ai/flux-2/flash",
        seller="fal",
        tier="preview",
        typical_s=1.2,
        guidance=(0, 20),
        max_count=4,
        sizes=Sizes(low=512),
        formats=("jpeg", "png", "webp"),
        default_format="png",
        open_weights=True,
    ),
    Endpoint(
        id="fal-ai/flux-2-flex",
        seller="fal",
        tier="standard",
        typical_s=6.0,
        steps=(1, 50),
        guidance=(0, 20),
        sizes=Sizes(low=512),
        tolerance=True,
    ),
    Endpoint(
        id="fal-ai/flux-2-pro",
        seller="fal",
        tier="export",
        typical_s=8.0,
        refuses_guidance=True,
        sizes=Sizes(low=512),
        tolerance=True,
    ),
    Endpoint(
        id="fal-ai/flux-2-max",
        seller="fal",
        tier="export",
        typical_s=10.0,
        refuses_guidance=True,
        sizes=Sizes(low=512),
        tolerance=True,
    ),
    Endpoint(
        id="fal-ai/flux-pro/kontext",
        seller="fal",
        tier="export",
        typical_s=6.0,
        guidance=(1, 20),
        max_count=4,
        tolerance=True,
        ratios=True,
        sizes=Sizes(named=KONTEXT_SIZES),
        inputs=Inputs(field="image_url"),
    ),
    Endpoint(
        id="fal-ai/flux-pro/v1/fill",
        seller="fal",
        tier="export",
        typical_s=7.0,
        max_count=4,
        tolerance=True,
        sizes=Sizes(),
        inputs=Inputs(field="image_url", mask="mask_url"),
        as_input=True,
    ),
    Endpoint(
        id="fal-ai/bria/background/remove",
        seller="fal",
        tier="export",
        typical_s=2.0,
        seed=False,
        sizes=Sizes(low=64, high=4096, multiple=1),
        formats=("png",),
        default_format="png",
        inputs=Inputs(field="image_url"),
        as_input=True,
        cuts_out=True,
    ),
    Endpoint(
        id="fal-ai/recraft/v3/text-to-image",
        seller="fal",
        tier="standard",
        typical_s=6.0,
        seed=False,
        sizes=Sizes(named=RECRAFT_SIZES),
        formats=("webp",),
        default_format="webp",
        declares_sizes=False,
    ),
)

_BASE = {endpoint.id: endpoint for endpoint in _FAL}
_FLUX, _PRO_1 = _BASE["fal-ai/flux/dev"], _BASE["fal-ai/flux-pro/v1.1"]
_KONTEXT = _BASE["fal-ai/flux-pro/kontext"]
_FLUX_2, _FLASH = _BASE["fal-ai/flux-2"], _BASE["fal-ai/flux-2/flash"]
_ONE, _FOUR, _EIGHT = Inputs(field="image_url"), Inputs(field="image_urls", most=4), Inputs(field="image_urls", most=8)
_TURBO = replace(_FLASH, id="fal-ai/flux-2/turbo", typical_s=2.5)
_KLEIN = replace(
    _FLASH,
    id="fal-ai/flux-2/klein/4b",
    typical_s=0.7,
    guidance=None,
    sizes=Sizes(low=512, multiple=8),
    formats=("jpeg", "png"),
)
_KLEIN_9B = replace(_KLEIN, id="fal-ai/flux-2/klein/9b", typical_s=1.1)
_FAMILY = (
    replace(_FLUX, id="fal-ai/flux/dev/image-to-image", typical_s=4.5, default_steps=40, inputs=_ONE, as_input=True),
    replace(_FLUX, id="fal-ai/flux/krea"),
    replace(_FLUX, id="fal-ai/flux-realism", sizes=Sizes(high=1024)),
    replace(_FLUX, id="fal-ai/flux-subject", typical_s=1.5, default_steps=8, guidance=(0, 20), inputs=_ONE),
    replace(_FLUX, id="fal-ai/flux-lora", typical_s=4.0),
    replace(_FLUX, id="fal-ai/flux-general", typical_s=5.0),
    replace(_FLUX, id="fal-ai/flux-general/image-to-image", typical_s=5.0, inputs=_ONE, as_input=True),
    replace(_FLUX, id="fal-ai/stable-diffusion-v35-large", typical_s=4.0, guidance=(0, 20)),
    replace(
        _FLUX, id="fal-ai/flux-kontext/dev", typical_s=5.0, sizes=Sizes(named=KONTEXT_SIZES), inputs=_ONE, as_input=True
    ),
    replace(_PRO_1, id="fal-ai/flux-pro/new", typical_s=6.0, steps=(1, 50), guidance=(1, 20)),
    replace(_KONTEXT, id="fal-ai/flux-pro/kontext/text-to-image", inputs=None),
    replace(_KONTEXT, id="fal-ai/flux-pro/kontext/max", typical_s=8.0),
    replace(_KONTEXT, id="fal-ai/flux-pro/kontext/max/text-to-image", typical_s=8.0, inputs=None),
    replace(_FLUX_2, id="fal-ai/flux-2/edit", typical_s=6.0, inputs=_FOUR),
    replace(_FLASH, id="fal-ai/flux-2/flash/edit", typical_s=2.0, inputs=_FOUR),
    _TURBO,
    replace(_TURBO, id="fal-ai/flux-2/turbo/edit", typical_s=4.0, inputs=_FOUR),
    _KLEIN,
    replace(_KLEIN, id="fal-ai/flux-2/klein/4b/edit", typical_s=1.2, inputs=_FOUR),
    _KLEIN_9B,
    replace(_KLEIN_9B, id="fal-ai/flux-2/klein/9b/edit", typical_s=1.8, inputs=_FOUR),
    replace(_BASE["fal-ai/flux-2-flex"], id="fal-ai/flux-2-flex/edit", typical_s=9.0, inputs=_EIGHT),
    replace(_BASE["fal-ai/flux-2-pro"], id="fal-ai/flux-2-pro/edit", typical_s=11.0, inputs=_EIGHT),
    replace(_BASE["fal-ai/flux-2-max"], id="fal-ai/flux-2-max/edit", typical_s=14.0, inputs=_EIGHT),
)
FAL: Mapping[str, Endpoint] = {endpoint.id: endpoint for endpoint in (*_FAL, *_FAMILY)}
