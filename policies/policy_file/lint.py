"""What is suspicious in a policy whose shape is right, held against a catalogue. Pure: files are read elsewhere.

Each check yields findings, each with its place, a code, and the fix. `CODES` says what every code means.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from functools import cached_property

from msgspec import Struct
from msgspec.structs import replace

from policies.catalog import Catalog
from policies.eligibility import CODES as GATES_IN_ORDER
from policies.eligibility import objection, steps_objection
from policies.latency_forecast import LatencyForecast, work
from policies.money import NanoUsd, to_usd
from policies.offer_prices import quote_at
from policies.policy import Intent, Policy
from policies.policy_file.findings import Finding
from policies.policy_file.lint_experiments import findings_in
from policies.policy_file.names import Named, names_in
from policies.policy_file.rules import RuleFile
from policies.policy_file.schema import PolicyFile
from policies.policy_file.values import Loc
from policies.rules import About, Condition, Rule, applied, stricter
from policies.tariffs import Unpriced
from policies.types import Ask, Constraints, Offer, OfferId, Rejection, Requirements
from providers.contract import ImageRequest, Operation

CODES: Mapping[str, str] = {
    "yaml": "The text is not YAML as we accept it.",
    "shape": "A key or value that the policy language does not know.",
    "name": "Nothing is called so.",
    "secret": "Something that looks like a secret, which no policy needs.",
    "trap": "A word or number that other readers of YAML take for something else.",
    "unreachable": "A rule that no call can be about.",
    "shadowed": "A rule that never changes anything, because others do already.",
    "unserved": "Calls that no offer of the catalogue may serve.",
    "ceiling": "A ceiling below every quote.",
    "latency": "An objective or a ceiling of latency below what the fastest offer takes.",
    "unsold": "A model that no account sells, or that has no price.",
    "retires": "A model that its seller stops selling, or has stopped.",
    "budget": "An amount that does not pay for one picture.",
    "steps": "Fewer steps than a model needs to draw well.",
    "promotion": "A promotion that gains nothing.",
    "example": "A rule that denies, without an example that shows it.",
    "champion": "An experiment on calls that nobody serves.",
    "measure": "A measure that this gateway cannot take.",
    "challenger": "A challenger that cannot draw what it is compared on, or is asked in words it does not know.",
}
DRAWS_WELL: Mapping[str, int] = {"flux-dev": 20}
"""Model -> steps below which its pictures fall apart, as its makers and sellers say."""


class _Quoted(Struct, frozen=True):
    """An offer that may serve some calls, at one size."""

    offer: Offer
    each: NanoUsd
    """Nano-dollars a picture."""
    p50: float
    p95: float


class Reasons:
    """Why offers may not serve: how many each gate rejects, and one sentence of each."""

    def __init__(self) -> None:
        self._told: dict[str, list[str]] = {}

    def __str__(self) -> str:
        """The gates that reject most, and a sentence of the last that an offer came to."""
        most = sorted(self._told, key=lambda code: -len(self._told[code]))[:4]
        if not most:
            return ""
        furthest = max(self._told, key=GATES_IN_ORDER.index)
        counts = ", ".join(f"{code} ({len(self._told[code])})" for code in most)
        return f"{counts}; {self._told[furthest][0]}"

    def add(self, rejection: Rejection) -> None:
        """Count one offer."""
        self._told.setdefault(rejection.code, []).append(rejection.reason)

    def add_all(self, other: Reasons) -> None:
        """Count what others counted."""
        for code, reasons in other._told.items():
            self._told.setdefault(code, []).extend(reasons)


class Linter:
    """The checks of one policy against one catalogue."""

    def __init__(self, file: PolicyFile, policy: Policy, catalog: Catalog) -> None:
        self._file, self._policy, self._catalog = file, policy, catalog
        self._faulty: set[str] = set()
        """Intents of which something is said already."""
        self._pace: dict[OfferId, LatencyForecast] = {}
        self._served: dict[object, tuple[list[_Quoted], Reasons]] = {}

    def findings(self) -> Iterator[Finding]:
        """Everything suspicious, by kind of check."""
        yield from self._intents()
        yield from self._models()
        yield from self._retiring()
        yield from self._amounts()
        yield from findings_in(self._policy, self._catalog)
        shown = {example.shows for example in self._file.examples}
        for at, (file, rule) in enumerate(zip(self._file.rules, self._policy.rules.rules, strict=True)):
            found = list(self._rule(at, file, rule))
            yield from found
            idle = any(each.code in {"unreachable", "shadowed"} for each in found)
            if file.denies and rule.name not in shown and not idle:
                yield Finding(
                    loc=("rules", at, "deny" if file.deny else "allow"),
                    code="example",
                    message=f"rule '{rule.name}' denies, and no example shows it",
                    hint=f"add one under `examples:` with `shows: {rule.name}`",
                    at_key=True,
                )
        known = {rule.name for rule in self._policy.rules.rules}
        for at, example in enumerate(self._file.examples):
            if example.shows is not None and example.shows not in known:
                yield Finding(
                    loc=("examples", at, "shows"), code="name", message=f"no rule is called '{example.shows}'"
                )

    def removed(self) -> Iterator[Finding]:
        """Intents that the policy's own terms leave with nobody, though somebody draws what they are for."""
        for name, intent in self._policy.intents.items():
            terms = self._policy.constraints(intent)
            plain = replace(terms, require=Requirements())
            effects = self._policy.rules.effects(About(team="", intent=name))
            if effects is not None:
                terms, _ = applied(effects, terms, intent.worth, (intent.slo, intent.deadline))
            served, codes = self._serving(intent, terms, "generate")
            if not self._serving(intent, plain, "generate")[0]:
                continue
            if not served:
                yield self._unserved(("intents", name), f"intent '{name}'", codes)
            else:
                below = self._too_little(("intents", name), served, terms)
                yield from [finding for finding in below if finding.code == "ceiling"]

    # -- intents --------------------------------------------------------------------------------

    def _intents(self) -> Iterator[Finding]:
        if nowhere := self._required_by_nobody():
            self._faulty |= self._policy.intents.keys()
            yield nowhere
        for name, intent in self._policy.intents.items():
            if name not in self._faulty:
                terms = self._policy.constraints(intent)
                found = list(self._terms(("intents", name), intent, terms, f"intent '{name}'"))
                self._faulty |= {name} if found else set()
                yield from found
            promoted = self._policy.intents.get(intent.promotes or "")
            if promoted is not None and promoted.tier >= intent.tier:
                yield Finding(
                    loc=("intents", name, "promotes"),
                    code="promotion",
                    message=f"'{name}' is no better than '{promoted.name}', which it promotes",
                    hint=f"give it a tier above {promoted.tier.word}",
                )

    def _required_by_nobody(self) -> Finding | None:
        """What every call is required, where that alone leaves no intent anybody."""
        codes = Reasons()
        for intent in self._policy.intents.values():
            terms = self._policy.constraints(intent)
            served, why = self._serving(intent, terms, "generate")
            if served or not self._serving(intent, replace(terms, require=Requirements()), "generate")[0]:
                return None
            codes.add_all(why)
        return self._unserved(("require",), "any intent", codes)

    def _terms(
        self, loc: Loc, intent: Intent, terms: Constraints, about: str, operation: Operation = "generate"
    ) -> Iterator[Finding]:
        """What stands in the way of every offer under some terms: all of them, or a ceiling, or the time."""
        served, codes = self._serving(intent, terms, operation)
        if not served:
            yield self._unserved(loc, about, codes)
            return
        yield from self._too_little(loc, served, terms)

    @staticmethod
    def _unserved(loc: Loc, about: str, codes: Reasons) -> Finding:
        why = str(codes) or "nothing is sold"
        return Finding(
            loc=loc,
            code="unserved",
            message=f"no offer can serve {about}: {why}",
            hint="`quote` gives the reason of each offer",
            at_key=True,
        )

    def _too_little(self, loc: Loc, served: Sequence[_Quoted], terms: Constraints) -> Iterator[Finding]:
        cheapest = min(served, key=lambda each: each.each)
        if terms.ceiling is not None and terms.ceiling < cheapest.each:
            yield Finding(
                loc=(*loc, "ceiling"),
                code="ceiling",
                message=f"${to_usd(terms.ceiling)} is below every quote: "
                f"the cheapest is ${to_usd(cheapest.each)} at {cheapest.offer.id}",
                hint=f"write at least ${to_usd(cheapest.each)}",
            )
            return
        quickest = min(served, key=lambda each: each.p50)
        if terms.slo < quickest.p50:
            yield Finding(
                loc=(*loc, "latency_slo"),
                code="latency",
                message=f"{terms.slo:g} s is less than the fastest offer usually takes: "
                f"{quickest.p50:.1f} s at {quickest.offer.id}",
                hint=f"write at least {quickest.p50:.1f}s",
            )
        steadiest = min(served, key=lambda each: each.p95)
        if terms.latency_ceiling is not None and terms.latency_ceiling < steadiest.p95:
            yield Finding(
                loc=(*loc, "latency_ceiling"),
                code="latency",
                message=f"{terms.latency_ceiling:g} s is less than any offer keeps to (p95): "
                f"the best is {steadiest.p95:.1f} s at {steadiest.offer.id}",
                hint=f"write at least {steadiest.p95:.1f}s",
            )

    def _serving(self, intent: Intent, terms: Constraints, operation: Operation) -> tuple[list[_Quoted], Reasons]:
        """The offers that may serve an intent under terms, and how many others each gate rejects."""
        key = (intent.name, terms.tier, terms.require, terms.bars, terms.models, operation)
        found = self._served.get(key)
        if found is None:
            found = self._served[key] = self._look(intent, terms, operation)
        return found

    def _look(self, intent: Intent, terms: Constraints, operation: Operation) -> tuple[list[_Quoted], Reasons]:
        bare = replace(terms, bars=(), require=Requirements())
        codes = Reasons()
        served: list[_Quoted] = []
        if terms.bars or terms.require != bare.require:  # look only at what is left without them
            able, before = self._serving(intent, bare, operation)
            codes.add_all(before)
            ask = self._ask(intent, terms, operation)
            for each in able:
                objected = objection(each.offer, ask)
                if objected is None:
                    served.append(each)
                else:
                    codes.add(objected)
            return served, codes
        for offer in self._catalog.offers.values():
            seen = self._seen(offer, intent, terms, operation)
            if isinstance(seen, Rejection):
                codes.add(seen)
            else:
                served.append(seen)
        return served, codes

    def _ask(self, intent: Intent, terms: Constraints, operation: Operation) -> Ask:
        width, height = self._policy.auto_size
        references = ((width, height),) if operation != "generate" else ()
        request = ImageRequest(
            prompt="-", width=width, height=height, operation=operation, references=references,
            transparent=operation == "remove_background",
        )  # fmt: skip
        return Ask(call_id="", part=0, request=request, constraints=terms, intent=intent.name, arrived=0.0)

    def _seen(self, offer: Offer, intent: Intent, terms: Constraints, operation: Operation) -> _Quoted | Rejection:
        ask = self._ask(intent, terms, operation)
        objected = objection(offer, ask) or steps_objection(offer, ask.request, self._policy.least_steps)
        if objected is not None:
            return objected
        try:
            each = quote_at(offer, ask.request).amount
        except Unpriced as error:
            return Rejection(offer=offer.id, code="price", reason=f"{offer.id}: {error}")
        expected, forecast = self._expected(offer)
        return _Quoted(offer, each, expected * forecast.ratio_p50, expected * forecast.ratio_p95)

    def _expected(self, offer: Offer) -> tuple[float, LatencyForecast]:
        forecast = self._pace.get(offer.id)
        if forecast is None:
            hedged = self._policy.hedging.quantile
            forecast = self._pace[offer.id] = LatencyForecast(offer.typical_s, self._policy.forecast, hedged)
        width, height = self._policy.auto_size
        return forecast.expected(work(width * height)), forecast

    # -- models and amounts ---------------------------------------------------------------------

    def _models(self) -> Iterator[Finding]:
        """Models that the policy counts on and nobody sells, and floors of steps that are too low."""
        for at, model in enumerate(self._file.models.edits):
            if model in self._catalog.models and not self._is_sold(model):
                yield self._unsold(("models", "edits", at), model)
        for prefix, model in self._file.models.aliases.items():
            name = self._catalog.resolve(model)
            if name is not None and not self._is_sold(name):
                yield self._unsold(("models", "aliases", prefix), model)
        for model, steps in self._file.models.least_steps.items():
            least = DRAWS_WELL.get(model, 0)
            if steps < least:
                yield Finding(
                    loc=("models", "least_steps", model),
                    code="steps",
                    level="warning",
                    message=f"{model} draws badly with fewer than {least} steps",
                    hint=f"write {least} or more",
                )

    def _is_sold(self, model: str) -> bool:
        return any(not offer.retired for offer in self._catalog.by_model.get(model, ()))

    def _retiring(self) -> Iterator[Finding]:
        """What the policy names or needs, and some seller stops selling."""
        offers = self._catalog.offers.values()
        leaving = [offer for offer in offers if offer.retires is not None]
        if not leaving:
            return
        told = {named.loc: told for named in names_in(self._file) if (told := _told(named, self._catalog, leaving))}
        for loc, message in told.items():
            yield Finding(loc=loc, code="retires", level="warning", message=message, hint="name its successor in time")
        staying = {name: offer for name, offer in self._catalog.offers.items() if offer not in leaving}
        later = Linter(self._file, self._policy, replace(self._catalog, offers=staying))
        last = max(offer.retires for offer in leaving if offer.retires is not None)
        for name, intent in self._policy.intents.items():
            terms = self._policy.constraints(intent)
            served = self._serving(intent, terms, "generate")[0]
            if served and not later._serving(intent, terms, "generate")[0]:
                message = f"nobody serves intent '{name}' after {last:%Y-%m-%d}, when what may serve it is retired"
                yield Finding(loc=("intents", name), code="retires", level="warning", message=message, at_key=True)

    @staticmethod
    def _unsold(loc: Loc, model: str) -> Finding:
        return Finding(
            loc=loc, code="unsold", message=f"no account sells {model!r}", hint="name another, or add an account"
        )

    def _amounts(self) -> Iterator[Finding]:
        """The price of a preview beside a stream must pay for one."""
        most = self._policy.preview_ceiling
        intent = min(self._policy.intents.values(), key=lambda each: each.tier)
        served, _ = self._serving(intent, self._policy.constraints(intent), "generate")
        if most is not None and served and most < min(each.each for each in served):
            least = min(each.each for each in served)
            yield Finding(
                loc=("streaming", "preview"),
                code="budget",
                message=f"${to_usd(most)} does not pay for one preview: the cheapest is ${to_usd(least)}",
                hint=f"write at least ${to_usd(least)}, or leave it out",
            )

    # -- rules ----------------------------------------------------------------------------------

    def _rule(self, at: int, file: RuleFile, rule: Rule) -> Iterator[Finding]:
        here: Loc = ("rules", at)
        yield from self._preferred(here, file)
        yield from self._params(here, file)
        if rule.unless is not None and implies(rule.when or Condition(), rule.unless):
            yield Finding(
                loc=(*here, "unless"),
                code="unreachable",
                message=f"rule '{rule.name}' is about no call: `unless` leaves out all that `when` lets in",
                hint="narrow `unless`, or delete the rule",
                at_key=True,
            )
            return
        witness = self._witness(rule)
        others = [(i, each) for i, each in self._rivals(witness) if each is not rule and covers(each, rule)]
        if not (redundant := self._redundant(at, rule, others)):
            yield from self._calls_left(here, file, rule, witness)
        else:
            lines = f"'{self._policy.rules.rules[redundant[0]].name}'"
            yield Finding(
                loc=(*here, "rule"),
                code="shadowed",
                message=f"rule '{rule.name}' never changes anything: {lines} is about all its calls and is as strict",
                hint="delete one of them",
            )

    def _preferred(self, here: Loc, file: RuleFile) -> Iterator[Finding]:
        """Offers of a preference that nobody sells: it would never count."""
        for at, each in enumerate(file.prefer or ()):
            for word, name in (("offer", each.offer), ("over", each.over)):
                if name not in self._catalog.offers:
                    yield Finding(
                        loc=(*here, "prefer", at, word), code="unsold", message=f"the catalogue has no offer {name!r}",
                        hint="`quote` lists the offers",
                    )  # fmt: skip

    def _params(self, here: Loc, file: RuleFile) -> Iterator[Finding]:
        """Offers that nobody sells, or that take no such value: the rule would keep its calls from them."""
        for at, each in enumerate(file.params or ()):
            offer = self._catalog.offers.get(each.offer)
            if offer is None:
                yield Finding(
                    loc=(*here, "params", at, "offer"),
                    code="unsold",
                    message=f"the catalogue has no offer {each.offer!r}",
                    hint="`quote` lists the offers",
                )
                continue
            steps, least = offer.abilities.steps, self._policy.least_steps.get(offer.model, 1)
            ranges: Mapping[str, tuple[float, float] | None] = {
                "steps": None if steps is None else (max(least, steps[0]), steps[1]),
                "guidance": offer.abilities.guidance,
            }
            for word, taken in ranges.items():
                value = getattr(each, word)
                if value is not None and (taken is None or not taken[0] <= value <= taken[1]):
                    accepted = "" if taken is None else f"{taken[0]:g} to {taken[1]:g}"
                    yield Finding(
                        loc=(*here, "params", at, word),
                        code="params",
                        message=f"{offer.id} takes {f'{word} of {accepted}, not {value:g}' if taken else f'no {word}'}",
                        hint=f"write {accepted}" if taken else "leave it out",
                    )

    def _rivals(self, about: About) -> list[tuple[int, Rule]]:
        effects = self._policy.rules.effects(about)
        return [
            (self._place[name], self._policy.rules.rules[self._place[name]])
            for name in (effects.rules if effects else ())
        ]

    @cached_property
    def _place(self) -> Mapping[str, int]:
        return {rule.name: at for at, rule in enumerate(self._policy.rules.rules)}

    def _witness(self, rule: Rule) -> About:
        """A call that a rule is about, as plain as can be."""
        condition = rule.when or Condition()
        width, height = self._policy.auto_size
        pixels = width * height
        if condition.over is not None and pixels <= condition.over:
            pixels = condition.over + 1
        if condition.up_to is not None and pixels > condition.up_to:
            pixels = condition.up_to
        minute = condition.minutes()[0][0] if condition.timed else 0
        monday = datetime(2026, 1, 5, tzinfo=self._policy.rules.zone)
        return About(
            team=_first(condition.teams, ""),
            key=_first(condition.keys, ""),
            model=_first(condition.models, "auto"),
            intent=_first(condition.intents, self._policy.default_intent),
            operation=_first(condition.operations, "generate"),
            tags={name: min(values) for name, values in condition.tags},
            pixels=pixels,
            at=monday + timedelta(minutes=minute) if condition.timed else None,
        )

    def _redundant(self, at: int, rule: Rule, others: Sequence[tuple[int, Rule]]) -> list[int]:
        """The rules that together leave a rule nothing to change; none where it changes something."""
        used = [
            next((i for i, each in others if i > at and getattr(each, name) is not None), -1)
            for name in ("tier", "slo", "deadline", "late", "late_second", "failure")
            if getattr(rule, name) is not None
        ]
        for holds in (_keeps_price, _keeps_latency, _keeps_data, _keeps_safety, _keeps_bars, _keeps_preferences,
                      _keeps_params):  # fmt: skip
            if holds(rule, Rule(name="")):
                continue  # it says nothing of that
            strict = [i for i, each in others if holds(rule, each) and (i < at or not holds(each, rule))]
            used.append(strict[0] if strict else -1)
        return [] if -1 in used else used

    def _calls_left(self, here: Loc, file: RuleFile, rule: Rule, witness: About) -> Iterator[Finding]:
        """Whether the calls a rule is about can still be served, for each intent they may have."""
        if not (file.denies or rule.require or rule.ceiling is not None or rule.tier is not None
                                   or rule.slo is not None or rule.latency_ceiling is not None):  # fmt: skip
            return
        asked = rule.when.intents if rule.when and rule.when.intents else self._policy.intents.keys()
        for name in sorted(asked, key=list(self._policy.intents).index):
            intent = self._policy.intents[name]
            effects = self._policy.rules.effects(replace(witness, intent=name))
            if name in self._faulty or effects is None or rule.name not in effects.rules:
                continue
            terms, _ = applied(effects, self._policy.constraints(intent), intent.worth, (intent.slo, intent.deadline))
            if witness.model != "auto":
                terms = replace(terms, models=frozenset({witness.model}))
            operation: Operation = witness.operation  # type: ignore[assignment]  # a word of the condition
            found = list(self._terms(here, intent, terms, f"intent '{name}' under rule '{rule.name}'", operation))
            # What the rule itself does not say is not its fault.
            said = [each for each in found if each.code == "unserved" or str(each.loc[-1]) in file.model_fields_set]
            if said:
                barred = replace(terms, require=self._policy.require)
                named = not self._serving(intent, barred, operation)[0]
                yield _pointed(said[0], here, file, ("deny", "allow", "tier") if named else ("require",))
                return


def _told(named: Named, catalog: Catalog, leaving: Sequence[Offer]) -> str:
    """Which sellers stop selling a model that is named, and what to use then; empty where none does."""
    model = catalog.resolve(named.name) if named.kind.endswith("model") else None
    going = [offer for offer in leaving if offer.model == model]
    if not going:
        return ""
    stays = len(going) < len(catalog.by_model[going[0].model])
    told = [f"{offer.account} {ends(offer)}" for offer in going]
    return f"{going[0].model}: {'; '.join(told)}" + ("; others go on" if stays else "; nobody else sells it")


def ends(offer: Offer) -> str:
    """When an offer ends or ended, and what follows it."""
    assert offer.retires is not None, "only what retires ends"
    when = f"sells it no longer since {offer.retires:%Y-%m-%d}" if offer.retired else f"until {offer.retires:%Y-%m-%d}"
    return when + (f", then {offer.successor}" if offer.successor else "")


def _pointed(finding: Finding, here: Loc, file: RuleFile, culprits: Sequence[str]) -> Finding:
    """An `unserved` finding, put at what the rule says rather than at the rule."""
    if finding.code != "unserved":
        return finding
    said = next((name for name in culprits if name in file.model_fields_set), "rule")
    return replace(finding, loc=(*here, said))


def implies(one: Condition, other: Condition) -> bool:
    """Whether every call that meets `one` meets `other`; never true by mistake."""
    sets = (
        (one.teams, other.teams), (one.keys, other.keys), (one.models, other.models), (one.intents, other.intents),
        (one.operations, other.operations),
    )  # fmt: skip
    tags = dict(one.tags)
    return (
        all(wide is None or (narrow is not None and narrow <= wide) for narrow, wide in sets)
        and all(name in tags and tags[name] <= values for name, values in other.tags)
        and (other.over is None or (one.over is not None and one.over >= other.over))
        and (other.up_to is None or (one.up_to is not None and one.up_to <= other.up_to))
        and (not other.timed or (one.timed and _within(one, other)))
    )


def covers(one: Rule, other: Rule) -> bool:
    """Whether `one` is about every call that `other` is about."""
    return implies(other.when or Condition(), one.when or Condition()) and (
        one.unless is None or (other.unless is not None and implies(one.unless, other.unless))
    )


def _within(one: Condition, other: Condition) -> bool:
    wide = other.minutes()
    return all(any(begin <= first and last <= end for begin, end in wide) for first, last in one.minutes())


def _keeps_price(rule: Rule, other: Rule) -> bool:
    return rule.ceiling is None or (other.ceiling is not None and other.ceiling <= rule.ceiling)


def _keeps_latency(rule: Rule, other: Rule) -> bool:
    ceiling = rule.latency_ceiling
    return ceiling is None or (other.latency_ceiling is not None and other.latency_ceiling <= ceiling)


def _keeps_data(rule: Rule, other: Rule) -> bool:
    wish, have = rule.require, other.require
    if wish is None:
        return True
    if have is None:
        return False
    return (
        (wish.region is None or wish.region == have.region)
        and (wish.training == "allowed" or have.training == "never")
        and (wish.retention_days is None or (have.retention_days or wish.retention_days + 1) <= wish.retention_days)
        and (not wish.commercial or have.commercial)
    )


def _keeps_safety(rule: Rule, other: Rule) -> bool:
    return rule.safety is None or (other.safety is not None and stricter(other.safety, rule.safety) == other.safety)


def _keeps_bars(rule: Rule, other: Rule) -> bool:
    mine = {(bar.only, bar.providers, bar.models, bar.offers) for bar in rule.bars}
    return mine <= {(bar.only, bar.providers, bar.models, bar.offers) for bar in other.bars}


def _keeps_preferences(rule: Rule, other: Rule) -> bool:
    return set(rule.preferred) <= set(other.preferred)


def _keeps_params(rule: Rule, other: Rule) -> bool:
    return set(rule.params) <= set(other.params)


def _first(values: frozenset[str] | None, otherwise: str) -> str:
    return min(values) if values else otherwise
