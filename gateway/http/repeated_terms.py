"""Remembers what the fields of a generation body mean: an app sends the same ones again and again, and a new prompt.

Reading a body is a pure function of its fields, the names in force and who asks. Reading the usual body anew would cost
7 % of all the CPU time that a picture costs the gateway.
"""

from __future__ import annotations

from msgspec.structs import replace

from gateway.http.fields import Fields
from gateway.http.model_names import Names, lowered
from gateway.http.request_parsing import Wish, parse_generation, prompt_of
from gateway.requests.call import Caller

KEPT = 1024
"""Combinations of fields; beyond that the memory starts anew."""
LONGEST = 64
"""Characters of a value; bodies with a longer one, a list or an object in them are read anew each time."""


class RepeatedTerms:
    """Reads generation bodies under one revision's names."""

    def __init__(self, names: Names) -> None:
        self.names = names
        self._known: dict[object, Wish] = {}
        self._lowered: RepeatedTerms | None = None

    def __repr__(self) -> str:
        return f"<RepeatedTerms: {len(self._known)} known>"

    @property
    def lowered(self) -> RepeatedTerms:
        """What reads calls past the soft limit of a budget."""
        if self._lowered is None:
            self._lowered = RepeatedTerms(lowered(self.names))
        return self._lowered

    def wish(self, fields: Fields, caller: Caller) -> Wish:
        """What `parse_generation` says of these fields; raises as it does."""
        key = _key(fields, caller)
        known = None if key is None else self._known.get(key)
        if known is not None:
            return replace(known, request=replace(known.request, prompt=prompt_of(fields)))
        wish = parse_generation(fields, self.names, caller)
        if key is not None:
            if len(self._known) >= KEPT:
                self._known.clear()
            self._known[key] = replace(wish, request=replace(wish.request, prompt=""))  # no prompt is kept
        return wish


def _key(fields: Fields, caller: Caller) -> object:
    """What a reading depends on beside the prompt; None when it is too large to be remembered.

    With types, for `true` equals 1 in Python and nowhere else.
    """
    key: list[object] = [caller]
    for name, value in fields.items():
        if name == "prompt":
            continue
        kind = type(value)
        if (kind is str and len(value) > LONGEST) or kind is list or kind is dict:  # type: ignore[arg-type]
            return None
        key += (name, kind, value)
    return tuple(key)
