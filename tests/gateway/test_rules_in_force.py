from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from msgspec.structs import replace

from gateway.app import build
from gateway.cli import run
from gateway.cli.offline import weigh
from gateway.errors import NoOffer
from gateway.http.edits import Given, parse_edit
from gateway.http.model_names import names_of
from gateway.requests.call import Caller
from gateway.requests.journal import decided_again
from gateway.revisions import Revision, load_revision
from gateway.settings import default_config, load_settings
from gateway.yaml_files import BadFile
from policies.rules import Condition, Rule, Rules
from policies.types import Bar, Params, Submit
from providers.sandbox import start
from tests.support.town import Town, settings

RULES = """
rules:
  - rule: acme-without-fal
    because: their contract says so
    when: {team: acme, model: [auto, flux-schnell]}
    deny: {providers: fal}
    safety: strict
"""


def revision(folder: Path, rules: str) -> Revision:
    shutil.copytree(default_config(), folder / "config")
    with (folder / "config/policies/default.yaml").open("a") as file:
        file.write(rules)
    return load_revision(load_settings(folder / "config", environ={}), every_account=True)


def test_a_rule_is_in_force_for_a_request_body_and_its_decision_says_so(tmp_path: Path) -> None:
    ours = revision(tmp_path, RULES)
    under, other = weigh(ours, {}, team="acme"), weigh(ours, {}, team="zeta")
    assert under.weighed.ask.constraints.rules == ("acme-without-fal",)
    assert under.weighed.ask.request.safety == "strict"
    assert {each.code for each in under.weighed.decision.rejected if each.offer.startswith("fal:flux-schnell")} == {
        "rule"
    }
    assert (other.weighed.ask.constraints.rules, other.weighed.ask.request.safety) == ((), "standard")
    assert isinstance(under.weighed.decision.move, Submit)
    assert under.weighed.decision.move.candidate.offer.account != "fal"


def test_an_alias_of_a_model_is_that_model_to_a_rule(tmp_path: Path) -> None:
    ours = revision(tmp_path, RULES)
    alias = next(alias for alias, model in ours.catalog.aliases.items() if model == "flux-schnell")
    assert weigh(ours, {"model": alias}, team="acme").weighed.ask.constraints.rules == ("acme-without-fal",)
    assert weigh(ours, {"model": f"{alias}:cheapest"}, team="acme").weighed.ask.constraints.rules == (
        "acme-without-fal",
    )
    assert weigh(ours, {"model": "flux-dev"}, team="acme").weighed.ask.constraints.rules == ()


def test_an_edit_of_any_size_takes_one_that_those_draw_whom_the_rules_leave(tmp_path: Path) -> None:
    given = Given({"prompt": "a", "model": "flux-2-pro"}, ((2000, 1000),), masked=False)
    ours = revision(tmp_path, "\nrules:\n  - {rule: r, when: {team: acme}, allow: {providers: fal}}\n")
    names = names_of(ours.policy, ours.catalog)
    sizes = {team: parse_edit(given, names, Caller(key_id="k", team=team)).request.size for team in ("acme", "zeta")}
    assert sizes == {"acme": (2000, 992), "zeta": (1440, 720)}


def test_an_explanation_names_the_rules_that_were_about_the_call(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    revision(tmp_path, RULES.replace("team: acme", "team: default"))
    (tmp_path / "request.json").write_text('{"prompt": "a"}')
    explain = ["explain", "--request", str(tmp_path / "request.json"), "--config", str(tmp_path / "config")]
    assert run(explain) == 0
    assert "rules: acme-without-fal\n" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("typed", "column", "said", "hint"),
    [
        ("deny: {providers: [together, fall]}", 34, "no provider called 'fall'", "did you mean 'fal'?"),
        ("deny: {models: flux-dve}", 20, "no model called 'flux-dve'", "did you mean 'flux-dev'?"),
        ("deny: {offers: fla:flux-dev}", 20, "no account called 'fla'", "did you mean 'fal'?"),
        ("when: {model: fluxdev}\n    ceiling: $1", 19, "no model called 'fluxdev'", "did you mean 'flux-dev'?"),
    ],
)
def test_a_misspelt_name_in_a_rule_is_refused_where_it_stands(
    tmp_path: Path, typed: str, column: int, said: str, hint: str
) -> None:
    with pytest.raises(BadFile) as caught:
        revision(tmp_path, f"\nrules:\n  - rule: r\n    {typed}\n")
    (fault,) = caught.value.faults
    assert said in fault.message
    assert (fault.column, fault.hint) == (column, hint)


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        (
            "\nrules:\n  - {rule: r, deny: {providers: [fal, together, replicate]}}\n",
            "no offer can serve intent 'preview'",
        ),
        (
            "\nrules:\n  - {rule: r, when: {intent: export}, require: {region: eu}}\n",
            "no offer can serve intent 'export'",
        ),
        ("\nrules:\n  - {rule: r, because: sk-abcdefghijklmnopqrst, ceiling: $1}\n", "looks like a secret"),
    ],
)
def test_a_policy_that_would_serve_nobody_or_tells_a_secret_is_not_put_in_force(
    tmp_path: Path, typed: str, said: str
) -> None:
    with pytest.raises(BadFile) as caught:
        revision(tmp_path, typed)
    assert said in caught.value.faults[0].message


def test_a_gateway_that_sells_only_previews_may_keep_its_export_intent(tmp_path: Path) -> None:
    shutil.copytree(default_config(), tmp_path / "config")
    path = tmp_path / "config/gateway.yaml"
    path.write_text(
        "accounts: {own: {kind: selfhosted, machine_hour: $1, base_url: 'http://gpu', models: [flux-schnell]}}\n"
    )
    assert load_revision(load_settings(tmp_path / "config", environ={})).catalog.offers.keys() == {"own:flux-schnell"}


async def test_every_call_of_the_request_path_is_under_the_rules(tmp_path: Path) -> None:
    bar = Bar(rule="closed", because="on holiday", providers=frozenset({"fal", "together"}))
    rule = Rule(name="closed", when=Condition(teams=frozenset({"acme"})), bars=(bar,))
    async with await start(pictures="plain") as sandbox:
        given = settings(tmp_path, sandbox.url)
        plain = load_revision(given)
        app = await build(given, replace(plain, policy=replace(plain.policy, rules=Rules([rule]))))
        await app.start()
        t = Town(app, sandbox)
        try:
            with pytest.raises(NoOffer, match="ruled out by the policy's rule 'closed': on holiday"):
                await app.pipeline.serve(t.call())
            assert {each.feasible for each in await app.pipeline.quote(t.call())} == {False}
            other = t.call(caller=Caller(key_id="key_2", team="zeta"))
            assert any(each.feasible for each in await app.pipeline.quote(other))
        finally:
            await app.stop()


def test_the_second_order_of_a_picture_is_under_the_rules_for_what_it_does(tmp_path: Path) -> None:
    rules = """
rules:
  - rule: no-cutting-at-replicate
    because: their contract says so
    when: {team: acme, operation: remove_background}
    deny: {providers: replicate}
"""
    ours = revision(tmp_path, rules)
    chosen = {}
    for team in ("acme", "zeta"):
        weighed = weigh(ours, {"background": "transparent"}, team=team).weighed
        assert weighed.after is not None
        assert weighed.ask.constraints.rules == ()
        chosen[team] = weighed.after.offer.account
    assert chosen == {"acme": "fal", "zeta": "replicate"}


async def test_an_order_goes_out_and_is_billed_as_a_rule_has_its_offer_asked(tmp_path: Path) -> None:
    rule = Rule(name="two-steps", params=(Params(offer="fal:flux-schnell", steps=2),))
    async with await start(pictures="plain") as sandbox:
        given = settings(tmp_path, sandbox.url)
        plain = load_revision(given)
        app = await build(given, replace(plain, policy=replace(plain.policy, rules=Rules([rule]))))
        await app.start()
        t = Town(app, sandbox)
        try:
            call = t.call(only=frozenset({"fal"}), models=frozenset({"flux-schnell"}))
            await app.serve(call)
            (attempt,) = await t.attempts(call)
            assert attempt.steps == 2
            bodies = [each["body"] for each in sandbox.requests() if isinstance(each["body"], dict) and each["body"]]
            assert [each.get("num_inference_steps") for each in bodies] == [2]
            stored, *_ = await app.db.decisions(call.id)  # a slow machine looks at the order again
            again = decided_again(stored.body, app.revision.policy, app.revision.catalog.offers)
            assert again is not None
            note, decision = again
            assert isinstance(decision.move, Submit)
            quoted = next(each.quote_nano_usd for each in note.candidates if each.offer == note.chosen)
            assert (note.params, decision.move.candidate.quote.amount) == (rule.params, quoted)
            await t.assert_books_agree()
        finally:
            await app.stop()


def test_an_explanation_says_how_rules_have_offers_asked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    revision(tmp_path, "\nrules:\n  - {rule: few, params: [{offer: 'fal:flux-schnell', steps: 2}]}\n")
    (tmp_path / "request.json").write_text('{"prompt": "a"}')
    explain = ["explain", "--request", str(tmp_path / "request.json"), "--config", str(tmp_path / "config")]
    assert run(explain) == 0
    assert "they ask fal:flux-schnell for steps 2 where the caller does not say\n" in capsys.readouterr().out
