"""The answers of docs/how-to/read-a-policy.md, held against the shipped policy."""

from __future__ import annotations

from pathlib import Path

from gateway.yaml_files import read
from policies.policy_file.schema import PolicyFile, compile_policy
from tests.support.sellers import CONFIG

PAGE = (Path(__file__).parents[2] / "docs/how-to/read-a-policy.md").read_text(encoding="utf-8")


def answers() -> list[str]:
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")] for line in PAGE.splitlines() if line.startswith("| ")
    ]
    return [cells[1] for cells in rows if cells[0].endswith("?")]


def test_the_ten_answers_are_what_the_shipped_policy_says() -> None:
    ours = compile_policy(read(CONFIG / "policies/default.yaml").parse(PolicyFile))
    preview, fallback = ours.intents["preview"], ours.fallback
    late, second = 5.0 - preview.slo, preview.worth.late_second / 1e9
    hedged = f"at most {100 * ours.hedging.budget:g} % of all orders are such."
    expected = [
        f"A {ours.default_intent}.",
        f"{late:g} s too late, at ${second:g} each: ${late * second:g}.",
        f"Those of tier {ours.intent_of_quality('hd').tier.word}, the Pro models.",
        f"The same picture is ordered again, elsewhere if anyone else can, in at most {fallback.attempts} orders.",
        f"No: at most {fallback.timeouts} order follows one that timed out, since that may still be billed.",
        "Yes." if fallback.refused_elsewhere else "No.",
        f"At most {ours.max_wait:g} s; then it is told when to come back.",
        f"Whichever is best (`{ours.model_behind('dall-e-3')}`), as a {ours.response_format_of('dall-e-3').upper()}.",
        f"No, with {ours.least_steps['flux-dev']} at least.",
        f"A second order is placed beside it, elsewhere, if that saves more than it costs; {hedged}",
    ]
    assert answers() == expected
