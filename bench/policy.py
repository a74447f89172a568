"""What rules cost in a decision, what checking a policy of a thousand of them takes, and what one quote takes.

The policy is made from a seed: a thousand rules by team, key, tag, model, intent, size and hour, as somebody with two
hundred teams would write them. Calls are drawn from the same names, so that some rules are about each; those that
are timed are others than those the engine has seen before. Times are CPU of this thread, and a reference operation is
printed beside them, since machines differ.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

from msgspec import Struct
from msgspec.structs import replace

from bench.report import Figure, conclude
from bench.routing.scaling import LOOP_US, Market, reference_loop
from gateway.cli.policy_lint import faults_of, without_policy
from gateway.requests.call import Call, Caller
from gateway.requests.quoting import first_order
from gateway.requests.terms import under_rules
from gateway.revisions import Revision
from gateway.settings import default_config, load_settings
from gateway.yaml_files import read_bytes
from policies.billing import Allowance, Billable, Billing, Lot, VolumeTier, expect
from policies.engine import CostEngine
from policies.offer_prices import quote_at
from policies.policy import Policy
from policies.policy_file.schema import PolicyFile, compile_policy
from policies.tariffs import Unpriced
from policies.types import Constraints
from providers.contract import ImageRequest

RULES = 1_000
REFERENCE_US = 30.0
"""What the reference operation takes on the machine that the musts are meant for; scaled figures are as if here."""
CALLS = 10_000
SEEN = 5_000
ROUNDS = 5
TEAMS = 200
QUOTES = 5_000
QUOTE_ROUNDS = 8
QUOTE_US = 20.0
MANY_TERMS = Billing(
    zone="Europe/Berlin",
    tiers=(VolumeTier(1_000, 500), VolumeTier(5_001, 1_000)),
    certain_to=10_000,
    allowances=(Allowance(name="a", images=100), Allowance(name="b", amount=10**9, monthly=False)),
    lots=(Lot(name="a", amount=10**9), Lot(name="b", amount=10**12, expires=datetime(2027, 11, 1, tzinfo=UTC))),
)
"""An invoice with some of everything."""
MODELS = ("flux-schnell", "flux-dev", "flux-1.1-pro", "flux-2-pro", "flux-kontext-pro")
_BARE = Constraints()
HEAD = """policy: bench
revision: 1
default_intent: preview
intents:
  preview: {tier: preview, latency_slo: 15s, deadline: 60s}
  standard: {tier: standard, latency_slo: 30s, deadline: 90s}
  export: {tier: export, latency_slo: 60s, deadline: 180s}
rules:
"""


def written(rules: int, draw: random.Random) -> str:
    """A policy file of so many rules; those that deny have an example each."""
    text, examples = [HEAD], ["examples:\n"]
    for number in range(rules):
        team = f"team-{number % TEAMS}"
        conditions = [f"team: {team}"] if number % 50 else []
        conditions += draw.sample(
            [
                f"key: key-{draw.randrange(1_000)}",
                f"tags: {{channel: {draw.choice(['web', 'app', 'mail'])}}}",
                f"model: [auto, {draw.choice(MODELS)}]",
                f"intent: {draw.choice(['preview', 'standard', 'export'])}",
                f"size: {{over: {draw.choice(['512x512', '1024x1024', '1024x1536'])}}}",
                f"hours: {draw.randrange(24):02d}:{draw.choice([15, 45])}-{draw.choice(['06:10', '23:50'])}",
                f"days: [{draw.choice(['mon', 'tue', 'sat'])}, sun]",
            ],
            k=draw.choice([1, 1, 2]),
        )
        effect = draw.choice(
            [
                "deny: {offers: [fal:flux-dev]}",
                f"ceiling: ${draw.randrange(80, 120)}",
                "require: {region: us}",
                f"late_second: $0.00{number % 9 + 1}",
                "safety: strict",
            ]
        )
        text.append(f"  - rule: rule-{number}\n    when: {{{', '.join(conditions)}}}\n    {effect}\n")
        if effect.startswith("deny"):
            expect = "expect: {offer: none}"
            examples.append(f"  - {{example: of rule {number}, shows: rule-{number}, {expect}}}\n")
    return "".join(text + (examples if len(examples) > 1 else []))


def drawn_calls(calls: int, draw: random.Random) -> list[tuple[Call, datetime]]:
    """Calls of those teams, keys and tags, over a week."""
    monday = datetime(2026, 11, 23, tzinfo=UTC)
    made = []
    for number in range(calls):
        caller = Caller(key_id=f"key-{draw.randrange(1_000)}", team=f"team-{draw.randrange(TEAMS)}")
        side = draw.choice([512, 1024, 1024, 1280])
        call = Call(
            id=f"call-{number}",
            caller=caller,
            request=ImageRequest(prompt="-", width=side, height=side),
            constraints=replace(_BARE, models=None if number % 3 else frozenset({draw.choice(MODELS)})),
            intent=draw.choice(["preview", "preview", "standard", "export"]),
            model="auto",
            tags={"channel": draw.choice(["web", "app", "mail"]), "campaign": f"c{number % 7}"},
            arrived=0.0,
        )
        made.append((call, monday + timedelta(minutes=draw.randrange(7 * 1440))))
    return made


def decisions_us(
    policy: Policy, base: Revision, before: Sequence[tuple[Call, datetime]], calls: Sequence[tuple[Call, datetime]]
) -> tuple[list[float], list[float]]:
    """Microseconds of CPU of each call: put under its rules; and that with the decision after it."""
    catalog = base.catalog
    engine, market = (
        CostEngine(policy, catalog.capacities, catalog.offers, thorough=False),
        Market(list(catalog.offers.values())),
    )
    ruled, whole = [], []
    for call, at in (*before, *calls):
        terms = replace(policy.constraints(policy.intents[call.intent]), models=call.constraints.models)
        call = replace(call, constraints=terms)  # noqa: PLW2901 - as the door makes it
        began = time.thread_time_ns()
        under = under_rules(call, policy, catalog.resolve, at)
        between = time.thread_time_ns()
        engine.decide(first_order(under, 1), market, 0.0, "new")
        ended = time.thread_time_ns()
        ruled.append((between - began) / 1e3)
        whole.append((ended - began) / 1e3)
    return ruled[len(before) :], whole[len(before) :]


class Quoted(Struct, frozen=True):
    """Microseconds that each of some quotes took, and a loop after each."""

    listed: list[float]
    """By the list of prices."""
    invoiced: list[float]
    """With what an invoice of many terms makes of it, and the reasons read by nobody."""
    loop: list[float]


def quotes_us(base: Revision, count: int, draw: random.Random) -> Quoted:
    """Time quotes of any offer in many sizes, by the clock on the wall: that of the thread takes too long to read."""
    offers = list(base.catalog.offers.values())
    asks = [
        (draw.choice(offers), ImageRequest(prompt="-", width=side, height=side, count=draw.randrange(1, 5)))
        for side in draw.choices(range(512, 1440, 16), k=count)
    ]
    counters = {"2026-11/requests": 4_999, "2026-11/listed": 10**11, "credit/a": 5 * 10**8}
    at = datetime(2026, 11, 23, tzinfo=UTC)
    timed = Quoted([], [], [])
    for offer, request in asks:
        began = time.perf_counter_ns()
        try:
            quoted = quote_at(offer, request)
        except Unpriced:
            continue
        between = time.perf_counter_ns()
        expect(MANY_TERMS, lambda name: counters.get(name, 0), [_billable(quoted.amount, request, at)])
        ended = time.perf_counter_ns()
        reference_loop(0)
        looped = time.perf_counter_ns()
        timed.listed.append((between - began) / 1e3)
        timed.invoiced.append((ended - began) / 1e3)
        timed.loop.append((looped - ended) / 1e3)
    return timed


def best_p99(rounds: Sequence[Sequence[float]]) -> float:
    """Of the best time of each of some things over several rounds, that of the dearest hundredth.

    So it is what was asked for that makes it dear, and not what else the machine did meanwhile.
    """
    return quantile([min(times) for times in zip(*rounds, strict=True)], 0.99)


def of_quotes(rounds: Sequence[Quoted]) -> list[Figure]:
    """What a quote takes: beside the loop, as it was measured, and as if on the machine that the must is meant for."""
    loop = best_p99([each.loop for each in rounds])
    found = []
    for name, times in (
        ("quote", [each.listed for each in rounds]),
        ("quote_as_invoiced", [each.invoiced for each in rounds]),
    ):
        p99 = best_p99(times)
        found += [
            Figure(name=f"{name}_p99_of_loop", value=p99 / loop, unit="x", must=QUOTE_US / LOOP_US),
            Figure(name=f"{name}_p99_us", value=p99, unit="us"),
            Figure(name=f"{name}_p99_once_us", value=min(quantile(each, 0.99) for each in times), unit="us"),
        ]
    return [*found, Figure(name="loop_p99_us", value=loop, unit="us, a loop of 1,000 rounds")]


def _billable(listed: int, request: ImageRequest, at: datetime) -> Billable:
    return Billable(listed=listed, pictures=request.count, at=at)


def least(work: Callable[[], object], rounds: int = ROUNDS) -> float:
    """Seconds of CPU that work takes, the best of some rounds."""
    best = float("inf")
    for _ in range(rounds):
        began = time.thread_time()
        work()
        best = min(best, time.thread_time() - began)
    return best


def reference_us() -> float:
    """Microseconds to read a JSON document of 10 kB with the standard library: what a machine is worth."""
    text = json.dumps([{"name": f"n{number}", "value": number, "tags": ["a", "b"]} for number in range(200)])
    return 1e6 * least(lambda: json.loads(text), 50)


def quantile(values: Sequence[float], share: float) -> float:
    """The value below which a share of them lies."""
    return sorted(values)[int(share * (len(values) - 1))]


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, default=None)
    arguments = parser.parse_args()
    settings = load_settings(default_config(), environ={})
    base = without_policy(settings)
    text = written(RULES, random.Random(7))
    file = read_bytes(text.encode(), "bench.yaml").parse(PolicyFile)
    before, calls = drawn_calls(SEEN, random.Random(12)), drawn_calls(CALLS, random.Random(11))
    ten = compile_policy(file.model_copy(update={"rules": file.rules[:10]}))
    many = compile_policy(file)
    rounds = [(decisions_us(ten, base, before, calls), decisions_us(many, base, before, calls)) for _ in range(2)]
    few_us = min(sum(few[0]) for few, _ in rounds) / CALLS
    many_us = min(sum(lots[0]) for _, lots in rounds) / CALLS
    few_p99_us = min(quantile(few[1], 0.99) for few, _ in rounds)
    p99_us = min(quantile(lots[1], 0.99) for _, lots in rounds)
    matched = (
        sum(len(under_rules(call, many, base.catalog.resolve, at).constraints.rules) for call, at in calls) / CALLS
    )
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "bench.yaml"
        path.write_text(text)
        found = faults_of(path, settings, base)
        lint_ms = 1e3 * least(lambda: faults_of(path, settings, base))
    reading_ms = 1e3 * least(lambda: read_bytes(text.encode(), "bench.yaml"))
    quotes = [quotes_us(base, QUOTES, random.Random(13)) for _ in range(QUOTE_ROUNDS)]
    reference = reference_us()
    print(f"{RULES} rules, {matched:.1f} of them about a call; {len(found)} findings in the made-up policy")
    pace = REFERENCE_US / reference
    figures = [
        Figure(name="rule_us", value=max(many_us - few_us, 0.0) / (RULES - 10), unit="us", must=1.0),
        Figure(name="rules_10_us", value=few_us, unit="us"),
        Figure(name="rules_1000_us", value=many_us, unit="us"),
        Figure(name="decision_10_rules_p99_us", value=few_p99_us, unit="us"),
        Figure(name="decision_1000_rules_p99_us", value=p99_us, unit="us"),
        Figure(name="decision_1000_rules_p99_scaled_us", value=p99_us * pace, unit="us", must=100.0),
        *of_quotes(quotes),
        Figure(name="lint_1000_rules_ms", value=lint_ms, unit="ms"),
        Figure(name="lint_1000_rules_scaled_ms", value=lint_ms * pace, unit="ms", must=200.0),
        Figure(name="reading_1000_rules_ms", value=reading_ms, unit="ms"),
        Figure(name="reference_us", value=reference, unit="us, 10 kB of JSON read"),
    ]
    return conclude(figures, context={"rules": RULES, "calls": CALLS}, json_file=arguments.json)


if __name__ == "__main__":
    sys.exit(main())
