from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path

import pytest

from gateway.revisions import Revision, load_revision, policy_names
from gateway.settings import default_config, load_settings
from gateway.yaml_files import BadFile
from policies.tariffs import MachineSecond


def home(tmp_path: Path) -> Path:
    shutil.copytree(default_config(), tmp_path / "config")
    return tmp_path / "config"


def revision(config: Path, environ: Mapping[str, str] | None = None, *, every_account: bool = True) -> Revision:
    return load_revision(load_settings(config, environ=environ or {}), every_account=every_account)


def faults_of(config: Path, environ: Mapping[str, str] | None = None) -> list[str]:
    with pytest.raises(BadFile) as caught:
        revision(config, environ)
    return [str(fault) for fault in caught.value.faults]


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


def test_the_shipped_configuration_is_sound() -> None:
    shipped = revision(default_config())
    assert {"flux-schnell", "flux-1.1-pro"} <= shipped.catalog.models.keys()
    assert set(shipped.accounts) == {"fal", "together", "replicate"}
    assert shipped.policy.name == "default"


def test_only_accounts_with_a_key_sell() -> None:
    assert {
        offer.account
        for offer in revision(default_config(), {"FAL_KEY": "k"}, every_account=False).catalog.offers.values()
    } == {"fal"}


def test_equal_files_have_equal_numbers_and_a_changed_price_another(tmp_path: Path) -> None:
    config = home(tmp_path)
    before = revision(config).number
    assert before == revision(default_config()).number
    with (config / "catalog" / "flux-dev.yaml").open("a") as file:
        file.write("# a remark\n")
    assert revision(config).number == before
    edit(config / "catalog" / "flux-dev.yaml", "0.025", "0.026")
    assert revision(config).number != before


def test_an_account_may_have_prices_of_its_own(tmp_path: Path) -> None:
    config = home(tmp_path)
    edit(config / "gateway.yaml", "  fal:\n", "  fal:\n    prices: {flux-dev: {per_image: $0.01}}\n")
    assert "fal" in revision(config).catalog.offers["fal:flux-dev"].source


def test_faults_of_catalogue_policy_and_accounts_come_together_with_their_places(tmp_path: Path) -> None:
    config = home(tmp_path)
    edit(config / "catalog" / "flux-dev.yaml", "tier: standard", "tier: standrad")
    edit(config / "policies" / "default.yaml", "default_intent: preview", "default_intent: previw")
    edit(config / "gateway.yaml", "kind: fal", "kind: fall")
    catalog, policy, account = faults_of(config)
    assert "flux-dev.yaml:" in catalog
    assert "'standard'" in catalog
    assert "default.yaml:" in policy
    assert "gateway.yaml:" in account
    assert "fal" in account


def test_an_offer_without_a_price_is_refused_at_its_line(tmp_path: Path) -> None:
    config = home(tmp_path)
    path = config / "catalog" / "flux-1.1-pro-ultra.yaml"
    path.write_text("\n".join(line for line in path.read_text().splitlines() if "price:" not in line) + "\n")
    assert any("'price' is missing" in fault for fault in faults_of(config))


def test_a_model_name_in_an_account_must_exist(tmp_path: Path) -> None:
    config = home(tmp_path)
    edit(config / "gateway.yaml", "  fal:\n", "  fal:\n    models: [flux-dve]\n")
    (fault,) = faults_of(config)
    assert "gateway.yaml:" in fault
    assert "flux-dev" in fault


def test_an_adapter_refuses_options_it_does_not_know(tmp_path: Path) -> None:
    config = home(tmp_path)
    edit(config / "gateway.yaml", "  fal:\n", "  fal:\n    options: {poll_frist: 1}\n")
    (fault,) = faults_of(config, {"FAL_KEY": "k"})
    assert "gateway.yaml:" in fault
    assert "did you mean 'poll_first'?" in fault


def test_an_unknown_policy_is_answered_with_those_there_are(tmp_path: Path) -> None:
    config = home(tmp_path)
    assert policy_names(load_settings(config, environ={})) == ["default"]
    (fault,) = faults_of(config, {"PIXELGATE_POLICY": "defalut"})
    assert "there are: default" in fault


def test_a_folder_with_settings_alone_gets_the_shipped_catalogue_and_policy(tmp_path: Path) -> None:
    (tmp_path / "gateway.yaml").write_text("accounts: {fal: {kind: fal, key_env: FAL_KEY}}\n")
    assert "fal:flux-dev" in revision(tmp_path).catalog.offers


@pytest.mark.parametrize(
    ("account", "place", "said"),
    [
        ("{}", "own", "give either `base_url`"),
        ("{base_url: 'http://a', nodes: [{name: a, base_url: 'http://a'}]}", "own", "give either `base_url`"),
        ("{nodes: [{name: a, base_url: 'gpu:80'}]}", "gpu:80", "nodes[0].base_url"),
        ("{nodes: [{name: a, base_url: 'http://a', dialct: sglang}]}", "dialct", "did you mean 'dialect'"),
        ("{nodes: [{name: a, base_url: 'http://a', dialect: sglan}]}", "sglan", "sglang"),
        ("{nodes: [{name: a}]}", "nodes", "'base_url' is missing"),
        ("{nodes: [{name: a, base_url: 'http://a'}], options: {usage: true}}", "own", "needs `nodes`, and `machine"),
    ],
)
def test_a_fault_in_a_pool_is_shown_where_it_stands(tmp_path: Path, account: str, place: str, said: str) -> None:
    config = home(tmp_path)
    whole = account.replace("{", "{kind: selfhosted, ", 1)
    edit(config / "gateway.yaml", "accounts:\n", f"accounts:\n  own: {whole}\n")
    (fault,) = faults_of(config)
    assert said in fault

    assert place in fault.partition("\n")[2]


def test_the_slots_and_the_price_of_a_pool_are_those_of_its_nodes(tmp_path: Path) -> None:
    config = home(tmp_path)
    nodes = "[{name: a, base_url: 'http://a', slots: 4}, {name: b, base_url: 'http://b'}]"
    pool = f"{{kind: selfhosted, machine_hour: $2.10, marginal_hour: $0, nodes: {nodes}}}"
    edit(config / "gateway.yaml", "accounts:\n", f"accounts:\n  own: {pool}\n")
    found = revision(config, {}, every_account=False).catalog
    assert found.capacities["own"].slots == 5
    offer = found.offers["own:flux-schnell"]
    assert (offer.tariff, offer.counted) == (MachineSecond(2_100_000_000), 0.0)
