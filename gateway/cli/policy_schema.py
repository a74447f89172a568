"""`pixelgate policy schema`: the policy language as JSON Schema, for editors."""

from __future__ import annotations

import sys

from policies.policy_file.schema import json_schema


def schema() -> int:
    """Print the JSON Schema of policy files, by which editors complete and check as you type.

    The shipped policy names it in its first line; the same line works in yours.
    """
    sys.stdout.write(json_schema())
    return 0
