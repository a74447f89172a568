"""Replicate, through its SDK: create a prediction, wait for its end or its webhook, fetch the pictures.

    POST /v1/models/{owner}/{name}/predictions   official models, endpoint "owner/name"
    POST /v1/predictions                         any version, endpoint "owner/name:version" or the version alone
    ->  prediction (its id is the receipt)  ->  GET /v1/predictions/{id}  ->  files

A prediction tells machine time and counts pictures, but no price. What it drew is deleted after an hour; that it ran,
and how long, stays. Formats: Replicate's docs and replicate 1.0.7, as of 2026-11.
"""

from __future__ import annotations

from providers.replicate.adapter import Replicate, Settings, connect

__all__ = ["Replicate", "Settings", "connect"]
