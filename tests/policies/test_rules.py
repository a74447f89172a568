from __future__ import annotations

from copy import deepcopy
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace
from pydantic import ValidationError

from policies.policy import Policy
from policies.policy_file.schema import PolicyFile, compile_policy
from policies.rules import DAY, WEEK, About, Condition, Effects, Rule, Rules, applied, folded
from policies.tariffs import PerMegapixel
from policies.types import Ask, Capacity, Constraints, Decision, Requirements, Shed, Submit, Tier, Wait, Worth
from providers.contract import Abilities, SizeRule
from tests.support.sellers import CENT, Town, ask, offer

Values = dict[str, object]
INTENTS: Values = {"preview": {"tier": "preview", "latency_slo": "3s", "deadline": "1m"}}
MONDAY_NOON = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
FAL, TOGETHER = offer("fal:m", 1.0), offer("together:m", 2.0)


def policy(*rules: Values, **changes: object) -> Policy:
    small: Values = {"policy": "small", "revision": 1, "default_intent": "preview", "intents": deepcopy(INTENTS)}
    return compile_policy(PolicyFile.model_validate({**small, "rules": list(rules), **changes}))


def faults(*rules: Values, **changes: object) -> dict[str, str]:
    with pytest.raises(ValidationError) as caught:
        policy(*rules, **changes)
    return {".".join(map(str, fault["loc"])): fault["msg"] for fault in caught.value.errors()}


def terms(ours: Policy, about: About = About()) -> tuple[Constraints, Worth]:  # noqa: B008 - a value
    intent = ours.intents["preview"]
    effects = ours.rules.effects(about) or Effects()
    return applied(effects, ours.constraints(intent), intent.worth, (intent.slo, intent.deadline))


def asked(ours: Policy, about: About = About(), **request: object) -> Ask:  # noqa: B008 - a value
    constraints, worth = terms(ours, about)
    plain = ask()
    return replace(
        plain, team=about.team, constraints=constraints, worth=worth, request=replace(plain.request, **request)
    )


def chosen(ours: Policy, about: About = About(), **request: object) -> str:  # noqa: B008 - a value
    move = Town(FAL, TOGETHER, policy=ours).decide(asked(ours, about, **request)).move
    assert isinstance(move, Submit), move
    return move.candidate.offer.id


def objections(ours: Policy, about: About = About(), **request: object) -> dict[str, str]:  # noqa: B008 - a value
    decision = Town(FAL, TOGETHER, policy=ours).decide(asked(ours, about, **request))
    return {each.offer: f"{each.code}: {each.reason}" for each in decision.rejected}


DENY_FAL: Values = {"deny": {"providers": "fal"}}


@pytest.mark.parametrize(
    ("when", "fits", "misses"),
    [
        ({"team": ["acme", "zeta"]}, About(team="zeta"), About(team="other")),
        ({"key": "key_1"}, About(key="key_1"), About(key="key_2")),
        ({"tags": {"channel": "web"}}, About(tags={"channel": "web", "x": "y"}), About(tags={"channel": "app"})),
        (
            {"tags": {"channel": ["web", "app"], "plan": "free"}},
            About(tags={"plan": "free", "channel": "app"}),
            About(tags={"channel": "app"}),
        ),
        ({"model": "auto"}, About(), About(model="flux-dev")),
        ({"intent": "preview"}, About(intent="preview"), About(intent="export")),
        ({"operation": "edit"}, About(operation="edit"), About()),
        ({"size": {"over": "1024x1024"}}, About(pixels=1024 * 1024 + 1), About(pixels=1024 * 1024)),
        ({"size": {"up_to": "1024x1024"}}, About(pixels=1024 * 1024), About(pixels=1024 * 1024 + 1)),
        ({"hours": "11:00-13:00"}, About(at=MONDAY_NOON), About(at=MONDAY_NOON.replace(hour=13))),
        ({"hours": "22:00-06:00"}, About(at=MONDAY_NOON.replace(hour=5, minute=59)), About(at=MONDAY_NOON)),
        ({"days": ["mon", "sun"]}, About(at=MONDAY_NOON), About(at=MONDAY_NOON.replace(day=24))),
        # The night of Sunday ends on Monday morning.
        ({"days": "sun", "hours": "22:00-06:00"}, About(at=MONDAY_NOON.replace(hour=1)), About(at=MONDAY_NOON)),
        ({"team": "acme", "operation": "edit"}, About(team="acme", operation="edit"), About(team="acme")),
    ],
)
def test_a_rule_is_about_the_calls_that_meet_all_its_conditions(when: Values, fits: About, misses: About) -> None:
    ours = policy({"rule": "r", "when": when, **DENY_FAL})
    assert (chosen(ours, fits), chosen(ours, misses)) == ("together:m", "fal:m")


def test_unless_leaves_calls_out() -> None:
    ours = policy({"rule": "r", "when": {"team": "acme"}, "unless": {"intent": "preview"}, **DENY_FAL})
    assert chosen(ours, About(team="acme", intent="preview")) == "fal:m"
    assert chosen(ours, About(team="acme", intent="export")) == "together:m"


def test_a_rule_without_conditions_is_about_every_call() -> None:
    assert chosen(policy({"rule": "r", **DENY_FAL})) == "together:m"


def test_hours_are_counted_where_the_policy_says() -> None:
    noon_in_berlin = About(at=datetime(2026, 7, 1, 10, 30, tzinfo=UTC))
    rule: Values = {"rule": "r", "when": {"hours": "12:00-13:00"}, **DENY_FAL}
    assert chosen(policy(rule, timezone="Europe/Berlin"), noon_in_berlin) == "together:m"
    assert chosen(policy(rule), noon_in_berlin) == "fal:m"


@pytest.mark.parametrize(
    ("effect", "out"),
    [
        ({"deny": {"offers": "fal:m"}}, {"fal:m"}),
        ({"deny": {"models": "m"}}, {"fal:m", "together:m"}),
        ({"deny": {"providers": "fal", "offers": ["together:m"]}}, {"fal:m", "together:m"}),
        ({"allow": {"providers": "together"}}, {"fal:m"}),
        ({"allow": {"providers": "together", "models": "other"}}, {"fal:m", "together:m"}),
    ],
)
def test_what_is_denied_or_not_allowed_is_rejected_by_the_rule_and_says_why(effect: Values, out: set[str]) -> None:
    found = objections(policy({"rule": "no-go", "because": "contracts", **effect}))
    assert found.keys() == out
    assert found["fal:m"] == "rule: fal:m is ruled out by the policy's rule 'no-go': contracts"


def test_a_rule_is_no_wish_that_a_caller_could_give_up() -> None:
    from policies.eligibility import nearest_feasible

    ours = policy({"rule": "r", "deny": {"models": "m"}})
    assert nearest_feasible(asked(ours), Town(FAL, TOGETHER, policy=ours).market) is None


def test_ceilings_of_intent_and_rules_add_up_to_the_least() -> None:
    ours = policy({"rule": "a", "ceiling": "$0.02"}, {"rule": "b", "ceiling": "$0.015"})
    assert terms(ours)[0].ceiling == 15_000_000
    assert objections(ours).keys() == {"together:m"}


def test_an_offer_that_nearly_always_takes_longer_than_the_latency_ceiling_may_not_serve() -> None:
    slow = offer("fal:m", 1.0, typical_s=4.0)
    ours = policy({"rule": "quick", "latency_ceiling": "5s"})
    decision = Town(slow, TOGETHER, policy=ours).decide(asked(ours))
    (rejection,) = decision.rejected
    assert (rejection.offer, rejection.code) == ("fal:m", "latency")
    assert "above 5 s" in rejection.reason
    intent = {"preview": {"tier": "preview", "latency_slo": "3s", "deadline": "1m", "latency_ceiling": "6s"}}
    assert terms(policy(intents=intent))[0].latency_ceiling == 6.0


def test_requirements_of_policy_and_rules_must_all_hold() -> None:
    ours = policy(
        {"rule": "a", "require": {"training": "never", "retention": "30d"}},
        {"rule": "b", "require": {"region": "eu", "retention": "7d", "commercial": True}},
        require={"retention": "90d"},
    )
    assert terms(ours)[0].require == Requirements(region="eu", training="never", retention_days=7.0, commercial=True)


def test_two_regions_at_once_are_nowhere() -> None:
    ours = policy({"rule": "a", "require": {"region": "eu"}}, {"rule": "b", "require": {"region": "us"}})
    assert objections(ours)["fal:m"] == "data: fal processes data in an unnamed region, not in eu and us"


def test_of_values_the_last_rule_counts() -> None:
    ours = policy(
        {"rule": "a", "tier": "export", "late_second": "$0.01", "failure": "$1", "latency_slo": "9s"},
        {"rule": "b", "tier": "standard", "late": "$0.5", "deadline": "20s"},
    )
    constraints, worth = terms(ours)
    assert (constraints.tier, constraints.slo, constraints.deadline) == (Tier.STANDARD, 9.0, 20.0)
    assert worth == Worth(late=500_000_000, late_second=10_000_000, failure=1_000_000_000)
    assert constraints.rules == ("a", "b")


def test_a_caller_who_wants_it_sooner_gets_it_sooner() -> None:
    own = Constraints(slo=2.0, deadline=2.0, ceiling=CENT)
    effects = Effects(deadline=30.0, slo=10.0, ceiling=2 * CENT)
    under, _ = applied(effects, own, Worth(), (3.0, 60.0))
    assert (under.slo, under.deadline, under.ceiling) == (2.0, 2.0, CENT)


def test_the_strictest_level_of_safety_counts() -> None:
    assert folded([Rule(name="a", safety="strict"), Rule(name="b", safety="relaxed")]).safety == "strict"


def test_a_model_is_not_drawn_with_fewer_steps_than_the_policy_lets_it() -> None:
    from providers.contract import Abilities, SizeRule

    able = Abilities(sizes=SizeRule(min_side=256, max_side=2048, multiple=32), steps=(1, 50), default_steps=28)
    ours = policy(models={"least_steps": {"dev": 20}})
    town = Town(offer("fal:dev", 1.0, abilities=able), policy=ours)
    plain = ask()
    few = town.decide(replace(plain, request=replace(plain.request, steps=8)))
    assert isinstance(few.move, Shed)
    assert few.rejected[0].reason == "fal:dev draws with at least 20 steps here, not 8"
    assert isinstance(town.decide(replace(plain, request=replace(plain.request, steps=20))).move, Submit)
    assert isinstance(town.decide(plain).move, Submit)


@pytest.mark.parametrize(
    ("only_for", "calls"),
    [
        ({"team": "acme"}, {"acme": True, "other": False}),
        ({"tier": "export"}, {"acme": False, "other": False}),
        ({"tier": ["preview", "export"], "team": "acme"}, {"acme": True, "other": False}),
    ],
)
def test_reserved_slots_are_left_to_those_they_are_for(only_for: Values, calls: dict[str, bool]) -> None:
    ours = policy(reservations=[{"keep": "50%", "only_for": only_for}])
    slots = Capacity(id="fal", slots=2)
    town = Town(offer("fal:m", 1.0, capacities=("fal",)), capacities=[slots], policy=ours)
    town.market.busy["fal"] = 1
    for team, may in calls.items():
        decision = town.decide(asked(ours, About(team=team)))
        assert isinstance(decision.move, Submit if may else Wait)
        assert may or "50% of the slots of fal are reserved for others" in decision.rejected[0].reason


def test_a_reservation_is_of_the_accounts_it_names() -> None:
    ours = policy(reservations=[{"keep": "90%", "providers": "together", "only_for": {"team": "acme"}}])
    slots = Capacity(id="fal", slots=2)
    town = Town(offer("fal:m", 1.0, capacities=("fal",)), capacities=[slots], policy=ours)
    town.market.busy["fal"] = 1
    assert isinstance(town.decide(asked(ours, About(team="other"))).move, Submit)


@pytest.mark.parametrize(
    ("rule", "place", "said"),
    [
        ({"rule": "r"}, "rules.0", "changes nothing"),
        ({"rule": "r", "when": {}, **DENY_FAL}, "rules.0.when", "says nothing"),
        ({"rule": "r", "when": "team == 'x'", **DENY_FAL}, "rules.0.when", "expressions are not accepted"),
        ({"rule": "r", "deny": {}}, "rules.0.deny", "names nothing"),
        ({"rule": "r", "when": {"hours": "22-6"}, **DENY_FAL}, "rules.0.when.hours", "'22-6' are no hours"),
        (
            {"rule": "r", "when": {"hours": "06:00-06:00"}, **DENY_FAL},
            "rules.0.when.hours",
            "'06:00-06:00' begins where",
        ),
        (
            {"rule": "r", "when": {"hours": "06:00-24:30"}, **DENY_FAL},
            "rules.0.when.hours",
            "'06:00-24:30' are no hours",
        ),
        ({"rule": "r", "when": {"intent": "draft"}, **DENY_FAL}, "rules.0.when.intent", "no intent is called 'draft'"),
        (
            {"rule": "r", "when": {"size": {"over": "1024x1024", "up_to": "512x512"}}, **DENY_FAL},
            "rules.0.when.size",
            "no size is over",
        ),
    ],
)
def test_a_rule_that_makes_no_sense_is_refused(rule: Values, place: str, said: str) -> None:
    found = faults(rule)
    assert list(found) == [place]
    assert said in found[place]


def test_names_of_rules_are_used_once_and_zones_exist() -> None:
    rule: Values = {"rule": "r", **DENY_FAL}
    assert faults(rule, rule, timezone="Berlin") == {
        "timezone": "no time zone is called 'Berlin': write one such as Europe/Berlin, or UTC",
        "rules.1.rule": "rule 1 is called 'r' already",
    }


def test_reservations_leave_something() -> None:
    each = {"keep": "50%", "only_for": {"team": "acme"}}
    assert faults(reservations=[each, each]) == {
        "reservations.1.keep": "all shares together leave nothing for other calls"
    }


WORDS = st.sampled_from("abc")
SETS = st.none() | st.frozensets(WORDS, min_size=1, max_size=2)
CONDITIONS = st.builds(
    Condition,
    teams=SETS,
    keys=SETS,
    intents=SETS,
    tags=st.dictionaries(WORDS, st.frozensets(WORDS, min_size=1), max_size=2).map(lambda tags: tuple(tags.items())),
    over=st.none() | st.integers(0, 9),
    up_to=st.none() | st.integers(0, 9),
    hours=st.none() | st.lists(st.integers(0, DAY - 1), min_size=2, max_size=2, unique=True).map(tuple),
    days=st.none() | st.frozensets(st.integers(0, 6), min_size=1),
)
ABOUTS = st.builds(
    About,
    team=WORDS,
    key=WORDS,
    intent=WORDS,
    tags=st.dictionaries(WORDS, WORDS),
    pixels=st.integers(0, 9),
    at=st.none() | st.integers(0, WEEK - 1).map(lambda minute: datetime.fromtimestamp(minute * 60, tz=UTC)),
)


@given(st.lists(st.tuples(st.none() | CONDITIONS, st.none() | CONDITIONS), max_size=6), ABOUTS)
def test_compiled_rules_match_what_each_rule_says_by_itself(
    pairs: list[tuple[Condition | None, Condition | None]], about: About
) -> None:
    rules = [Rule(name=str(at), when=when, unless=unless, late=at) for at, (when, unless) in enumerate(pairs)]
    compiled = Rules(rules)
    minute = compiled.minute(about.at)
    effects = compiled.effects(about)
    assert (effects.rules if effects else ()) == tuple(rule.name for rule in rules if rule.holds(about, minute))


PREFER: Values = {"rule": "adopt", "prefer": [{"offer": "together:m", "over": "fal:m"}]}


def test_a_preferred_offer_goes_first_though_it_costs_more() -> None:
    assert chosen(policy(PREFER)) == "together:m"
    assert chosen(policy({**PREFER, "when": {"team": "acme"}})) == "fal:m"


def test_a_preference_counts_among_those_that_may_serve_and_have_room() -> None:
    ours = policy(PREFER, {"rule": "no", "deny": {"providers": "together"}})
    assert chosen(ours) == "fal:m"
    full = offer("together:m", 2.0, capacities=("together",))
    town = Town(FAL, full, capacities=(Capacity(id="together", slots=1),), policy=policy(PREFER))
    town.market.busy["together"] = 1
    town.tell("submitted", full.id)
    move = town.decide(asked(policy(PREFER))).move
    assert isinstance(move, Submit)
    assert move.candidate.offer.id == "fal:m"


def test_whoever_is_preferred_does_not_wait_for_whoever_it_is_preferred_to() -> None:
    full = offer("fal:m", 0.1, capacities=("fal",))
    ours = policy({"rule": "adopt", "prefer": [{"offer": "together:m", "over": "fal:m"}]})
    town = Town(full, offer("together:m", 50.0), capacities=(Capacity(id="fal", slots=1),), policy=ours)
    town.market.busy["fal"] = 1
    town.tell("submitted", full.id)
    move = town.decide(asked(ours)).move
    assert isinstance(move, Submit)
    assert move.candidate.offer.id == "together:m"


def test_a_preference_moves_nothing_before_a_third_that_is_cheaper() -> None:
    ours = policy(PREFER)
    town = Town(FAL, TOGETHER, offer("own:m", 0.5), policy=ours)
    decision = town.decide(asked(ours))
    assert [each.offer.id for each in decision.ranked] == ["own:m", "together:m", "fal:m"]


def test_a_caller_who_says_who_is_first_is_not_overruled_by_a_preference() -> None:
    ours = policy(PREFER)
    wish = asked(ours)
    for wishes in (replace(wish.constraints, order=("fal",)), replace(wish.constraints, prefer="cheapest")):
        move = Town(FAL, TOGETHER, policy=ours).decide(replace(wish, constraints=wishes)).move
        assert isinstance(move, Submit)
        assert move.candidate.offer.id == "fal:m"


def test_an_offer_is_not_preferred_to_itself() -> None:
    itself: Values = {"rule": "adopt", "prefer": [{"offer": "fal:m", "over": "fal:m"}]}
    assert faults(itself) == {"rules.0.prefer.0": "is preferred to itself: name another offer"}


STEPPED = Abilities(
    sizes=SizeRule(min_side=256, max_side=2048, multiple=32), steps=(1, 50), default_steps=4, guidance=(1, 10)
)
BY_STEPS = PerMegapixel(price=CENT, default_steps=4)
ASK_FAL: Values = {"rule": "twelve", "params": [{"offer": "fal:m", "steps": 12, "guidance": 3}]}


def stepped(*rules: Values, **request: object) -> Decision:
    """What is decided where both sellers charge by steps beyond four."""
    ours = policy(*rules)
    both = [offer(name, abilities=STEPPED, tariff=BY_STEPS) for name in ("fal:m", "together:m")]
    return Town(*both, policy=ours).decide(asked(ours, About(), **request))


def prices(decision: Decision) -> dict[str, int]:
    return {each.offer.id: each.quote.amount for each in decision.ranked}


def test_an_offer_is_priced_and_timed_as_a_rule_has_it_asked() -> None:
    plain, ruled = prices(stepped()), prices(stepped(ASK_FAL))
    assert plain["fal:m"] == plain["together:m"] == ruled["together:m"]
    assert ruled["fal:m"] == 3 * plain["fal:m"]
    later = stepped(ASK_FAL).ranked[-1]
    assert later.latency_p50 > stepped().ranked[-1].latency_p50


def test_steps_that_a_caller_names_are_the_callers() -> None:
    assert prices(stepped(ASK_FAL, steps=8)) == prices(stepped(steps=8))


def test_of_parameters_for_one_offer_the_last_rule_counts() -> None:
    again: Values = {"rule": "eight", "params": [{"offer": "fal:m", "steps": 8}]}
    assert prices(stepped(ASK_FAL, again))["fal:m"] == prices(stepped(steps=8))["fal:m"]


def test_an_offer_that_takes_no_such_steps_says_so_and_others_serve() -> None:
    decision = stepped({"rule": "sixty", "params": [{"offer": "fal:m", "steps": 60}]})
    assert [each.reason for each in decision.rejected] == ["fal:m takes steps from 1 to 50, not 60"]
    assert list(prices(decision)) == ["together:m"]


def test_parameters_say_something() -> None:
    assert faults({"rule": "none", "params": [{"offer": "fal:m"}]}) == {
        "rules.0.params.0": "say nothing: write steps, guidance or both"
    }
