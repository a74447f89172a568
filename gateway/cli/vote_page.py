"""A page on which somebody says which of two pictures is better, without knowing who drew which.

One file, nothing fetched, nothing sent: the votes are saved as a file, which `pixelgate shadow votes` takes in.

    #ballot    {"format", "experiment", "seed", "pairs": [{"id", "left", "right", "prompt"}]}, as JSON in the page
    the file   {"format", "experiment", "seed", "voter", "votes": [{"pair", "choice": "left"|"right"|"tie", "at"}]}

Which side the champion is on follows from the seed and the pair (`champion_is_left`), and stands nowhere in the page.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from html import escape
from typing import Annotated, Literal, TypeAlias

import msgspec
from msgspec import Meta, Struct

from gateway.cli.charts import document
from policies.experiments.sampling import rolled

FORMAT: TypeAlias = Literal["pixelgate-votes/1"]
LONGEST_NAME = 100
"""Characters of a voter's name."""
_STYLE = """
body { max-width: 1700px } .pictures { display: grid; grid-template-columns: 1fr 1fr; gap: 1rem }
.pictures img { width: 100%; max-height: 72vh; object-fit: contain } .bar { text-align: center; margin: .6rem 0 }
button, input { font: inherit; padding: .3rem .8rem }
"""
_BODY = """<style>{style}</style>
<h1>Which is better?</h1>
<p class="soft">Both were made from the same words. Left, right, or neither: by the buttons, or the arrow keys (down:
neither; backspace: back). Save at the end, or whenever you have had enough.</p>
<p id="prompt"></p>
<div class="pictures"><img id="left" alt="left"><img id="right" alt="right"></div>
<p class="bar"><button id="choose-left">left</button> <button id="choose-tie">neither</button>
<button id="choose-right">right</button></p>
<p class="bar"><span id="where" class="soft"></span> <button id="back">back</button>
<input id="voter" placeholder="your name" value="{voter}" maxlength="{longest}">
<button id="save">save votes</button></p>
<script type="application/json" id="ballot">{ballot}</script>
<script>{script}</script>"""
_SCRIPT = """
const get = (id) => document.getElementById(id);
const { pairs, ...head } = JSON.parse(get("ballot").textContent);
const votes = new Map();
let at = 0;
function show() {
  const pair = pairs[at];
  for (const side of ["left", "right"]) {
    get(side).hidden = !pair;
    if (pair) get(side).src = pair[side];
  }
  get("prompt").textContent = (pair && pair.prompt) || "";
  get("where").textContent = pair ? `${at + 1} of ${pairs.length}` : "That was the last one: save your votes.";
}
function vote(choice) {
  if (at === pairs.length) return;
  votes.set(pairs[at].id, { pair: pairs[at].id, choice, at: new Date().toISOString() });
  at += 1;
  show();
}
function back() {
  at = Math.max(at - 1, 0);
  show();
}
function save() {
  const voter = get("voter").value.trim();
  if (!voter) return get("voter").focus();
  const file = JSON.stringify({ ...head, voter, votes: [...votes.values()] }, null, 1);
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([file], { type: "application/json" }));
  link.download = `votes-${head.experiment}-${voter.replace(/[^A-Za-z0-9]+/g, "-")}.json`;
  link.click();
}
const keys = {
  ArrowLeft: () => vote("left"), ArrowRight: () => vote("right"), ArrowDown: () => vote("tie"), Backspace: back,
};
for (const choice of ["left", "tie", "right"]) get(`choose-${choice}`).addEventListener("click", () => vote(choice));
get("back").addEventListener("click", back);
get("save").addEventListener("click", save);
document.addEventListener("keydown", (event) => {
  if (event.target === get("voter") || !keys[event.key]) return;
  event.preventDefault();
  keys[event.key]();
});
show();
"""


class Shown(Struct, frozen=True, kw_only=True):
    """A pair as it is shown; pictures are data URIs."""

    id: str
    left: str
    right: str
    prompt: str | None = None


class Ballot(Struct, frozen=True, kw_only=True):
    """What stands in a page."""

    format: FORMAT = "pixelgate-votes/1"
    experiment: str
    seed: int
    pairs: Sequence[Shown]


class Choice(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One vote."""

    pair: str
    choice: Literal["left", "right", "tie"]
    at: Annotated[datetime, Meta(tz=True)]


class Votes(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The file that a page saves."""

    format: FORMAT
    experiment: str
    seed: int
    voter: Annotated[str, Meta(pattern=r"\S", max_length=LONGEST_NAME)]
    votes: tuple[Choice, ...]


def champion_is_left(seed: int, pair: str) -> bool:
    """On which side of a page the champion's picture is."""
    return rolled(pair, f"side {seed}") < 0.5


def page(ballot: Ballot, voter: str) -> str:
    """The whole document."""
    told = msgspec.json.encode(ballot).decode().replace("<", "\\u003c")  # a prompt must not end the script
    who = escape(voter, quote=True)
    body = _BODY.format(style=_STYLE, voter=who, longest=LONGEST_NAME, ballot=told, script=_SCRIPT)
    return document(f"Votes on {ballot.experiment}", [body])
