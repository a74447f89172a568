"""`pixelgate privacy`: erase what is kept of a person."""

from __future__ import annotations

from gateway.assets import Assets, FolderBlobs
from gateway.cli.shell import HERE, Json, Stop, Where, open_records, print_json, run_async
from gateway.clock import SystemClock
from gateway.features.privacy import Eraser, Erasure
from gateway.settings import Settings
from providers import registry
from providers.transport import Http


def erase(*, user: str, team: str | None = None, json: Json = False, where: Where = HERE) -> None:
    """Erase what was drawn for an end user: pictures, prompts, idempotency records, and payloads at providers.

    The books keep what it cost. A running gateway may go on meanwhile; what it is drawing is not found yet.

    Parameters
    ----------
    user
        As requests name them in `user` or `safety_identifier`.
    team
        Only what this team asked for; all teams when left out.
    """
    if not user:
        raise Stop("--user: say whose pictures are to be erased")
    done = run_async(_erase(where.settings(), user, team))
    if json:
        print_json(done)
        return
    print(f"erased {done.images} pictures, {done.recipes} prompts, {done.keys} idempotency records")
    print(f"at providers: payloads of {done.payloads} orders erased, of {done.payloads_left} left to their terms")


async def _erase(settings: Settings, user: str, team: str | None) -> Erasure:
    db, clock, http = open_records(settings), SystemClock(), Http()
    providers = {
        name: registry.connect(account.kind, name, account.adapter_settings(), http)
        for name, account in settings.accounts_on().items()
    }
    try:
        assets = Assets(FolderBlobs(settings.assets_folder), clock, None)
        eraser = Eraser(db=db, assets=assets, providers=providers, clock=clock)
        return await eraser.user(user, team, "command line")
    finally:
        for provider in providers.values():
            await provider.aclose()
        await http.aclose()
        await db.aclose()
