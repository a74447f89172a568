"""Scenarios: name -> world. The first eleven are those the prototype was tuned on; the others nobody tuned for."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from bench.routing.traffic import traffic
from bench.routing.world import (
    FAL,
    POOL,
    REPLICATE,
    TOGETHER,
    World,
    accounts,
    brownout,
    build,
    errors,
    outage,
    reprice,
    slow_drift,
    squeeze,
)
from policies.offline.world import FAST_ERROR, HANG

HOUR = 3600.0


def calm_day(seed: int = 1) -> World:
    """Light load on four GPUs and four accounts."""
    t = 3 * HOUR
    return build("calm_day", seed, t, traffic(seed, t, 3.0), accounts(), 4).finish()


def busy_day(seed: int = 2) -> World:
    """Mean load near what the pool and the two cheap accounts can carry; the pool is contended all day."""
    t = 2 * HOUR
    accts = accounts(fal=30, together=16, replicate=16)
    return build("busy_day", seed, t, traffic(seed, t, 9.0, diurnal=0.6), accts, 4).finish()


def flash_crowd(seed: int = 3) -> World:
    """Four and six times the load, for minutes."""
    t = 1.5 * HOUR
    crowd = traffic(seed, t, 4.0, flash=((2000, 420, 4.0), (4000, 180, 6.0)))
    return build("flash_crowd", seed, t, crowd, accounts(fal=40, together=20, replicate=20), 4).finish()


def brownout_cheap(seed: int = 4) -> World:
    """The cheapest account slows 3x, then the main one; neither reports an error."""
    t = 1.5 * HOUR
    w = build("brownout_cheap", seed, t, traffic(seed, t, 5.0), accounts(), 3)
    brownout(w, TOGETHER, 1200, 2100, 3.0)
    brownout(w, FAL, 3300, 3900, 4.0)
    return w.finish()


def hard_outages(seed: int = 5) -> World:
    """Accounts refuse, hang, fail at random; GPUs are taken away."""
    t = 1.5 * HOUR
    w = build("hard_outages", seed, t, traffic(seed, t, 5.0), accounts(), 3)
    outage(w, TOGETHER, 900, 1500, FAST_ERROR)
    outage(w, FAL, 2400, 2700, HANG)
    outage(w, REPLICATE, 2500, 2900, FAST_ERROR)
    errors(w, TOGETHER, 3600, 4200, 0.25)
    squeeze(w, POOL, 4300, 4800, 1)
    return w.finish()


def limit_squeeze(seed: int = 6) -> World:
    """Real concurrency falls below the configured figure, without notice."""
    t = 1.5 * HOUR
    w = build("limit_squeeze", seed, t, traffic(seed, t, 7.0), accounts(fal=40, together=24, replicate=20), 3)
    squeeze(w, TOGETHER, 900, 3000, 6)
    squeeze(w, FAL, 2000, 3600, 12)
    return w.finish()


def price_shock(seed: int = 7) -> World:
    """Prices move mid-day; only invoices tell."""
    t = 1.5 * HOUR
    w = build("price_shock", seed, t, traffic(seed, t, 5.0), accounts(), 3)
    reprice(w, "together/dev", 1800, 1.9)
    reprice(w, "together/schnell", 1800, 1.6)
    reprice(w, "replicate/dev", 2700, 0.5)
    return w.finish()


def studio_batch(seed: int = 8) -> World:
    """Product photos in waves with ten minutes of time, over light interactive traffic."""
    t = 2 * HOUR
    waves = ((900, 350), (2700, 500), (4500, 350), (5700, 250))
    crowd = traffic(seed, t, 2.5, standard=0.25, batch=0.25, batch_waves=waves)
    return build("studio_batch", seed, t, crowd, accounts(fal=20, together=10, replicate=10, gpus=6), 6).finish()


def small_account(seed: int = 9) -> World:
    """A new customer: ten slots an account, a low rate, little prepaid credit, two GPUs."""
    t = 2 * HOUR
    accts = accounts(
        fal=10, together=10, replicate=10, gpus=2, replicate__rpm=60.0, replicate__burst=10.0, fal__credit=30.0,
        fal__period_end=t,
    )  # fmt: skip
    return build("small_account", seed, t, traffic(seed, t, 2.6), accts, 2).finish()


def volume_tiers(seed: int = 10) -> World:
    """Volume discounts begin inside the horizon (5 % from 1k, 10 % from 5k images)."""
    t = 2 * HOUR
    accts = accounts(fal=40, together=24, replicate=20, gpus=2, fal__tiers=((1000, 0.05), (5000, 0.10)))
    return build("volume_tiers", seed, t, traffic(seed, t, 5.0, standard=0.25), accts, 2).finish()


def api_only(seed: int = 11) -> World:
    """No GPUs of one's own: isolates the choice of provider, where the bound is tight."""
    t = 1.5 * HOUR
    accts = accounts(fal=30, together=16, replicate=16, gpus=0)
    return build("api_only", seed, t, traffic(seed, t, 5.0, standard=0.20), accts, 0).finish()


def night_trickle(seed: int = 21) -> World:
    """One call in four seconds: offers go cold, GPUs stand idle."""
    t = 3 * HOUR
    return build("night_trickle", seed, t, traffic(seed, t, 0.25, diurnal=0.3), accounts(), 2).finish()


def overload(seed: int = 22) -> World:
    """Twice what all accounts can draw together, for ten minutes."""
    t = 0.75 * HOUR
    crowd = traffic(seed, t, 9.0, flash=((600, 600, 4.0),))
    return build("overload", seed, t, crowd, accounts(fal=20, together=10, replicate=10), 2).finish()


def slow_creep(seed: int = 23) -> World:
    """The cheap account slows by half over an hour, the main one quickens; no event says so."""
    t = 1.5 * HOUR
    w = build("slow_creep", seed, t, traffic(seed, t, 5.0), accounts(), 2)
    slow_drift(w, TOGETHER, 600, 4200, 1.8)
    slow_drift(w, FAL, 600, 4200, 0.75)
    return w.finish()


def chaos(seed: int = 24) -> World:
    """Everything at random, drawn from the seed: brown-outs, outages, squeezes, prices, GPUs."""
    rng = np.random.default_rng([seed, 3])
    t = 1.5 * HOUR
    gpus = int(rng.integers(0, 6))
    slots = {name: int(rng.integers(12, 48)) for name in ("fal", "together", "replicate")}
    crowd = traffic(seed, t, float(rng.uniform(2.0, 7.0)), batch=float(rng.uniform(0.0, 0.2)))
    w = build("chaos", seed, t, crowd, accounts(**slots, gpus=gpus), gpus)
    for _ in range(int(rng.integers(3, 8))):
        _disturb(w, rng, t)
    return w.finish()


def _disturb(w: World, rng: np.random.Generator, t: float) -> None:
    account = int(rng.choice([FAL, TOGETHER, REPLICATE]))
    begins = float(rng.uniform(300, t - 900))
    ends = begins + float(rng.uniform(60, 600))
    match int(rng.integers(0, 6)):
        case 0:
            brownout(w, account, begins, ends, float(rng.uniform(1.5, 4.0)))
        case 1:
            outage(w, account, begins, min(ends, begins + 300), FAST_ERROR)
        case 2:
            outage(w, account, begins, min(ends, begins + 120), HANG)
        case 3:
            errors(w, account, begins, ends, float(rng.uniform(0.05, 0.3)))
        case 4:
            squeeze(w, account, begins, ends, int(rng.integers(4, 12)))
        case _:
            names = [e.name for e in w.endpoints if e.account == account]
            reprice(w, str(rng.choice(names)), begins, float(rng.uniform(0.6, 1.8)))
            if w.gpus:
                squeeze(w, POOL, begins, ends, int(rng.integers(0, w.gpus + 1)))


DEVELOPMENT = (
    calm_day,
    busy_day,
    flash_crowd,
    brownout_cheap,
    hard_outages,
    limit_squeeze,
    price_shock,
    studio_batch,
    small_account,
    volume_tiers,
    api_only,
)
UNSEEN = (night_trickle, overload, slow_creep, chaos)
BY_NAME: Mapping[str, Callable[[int], World]] = {make.__name__: make for make in (*DEVELOPMENT, *UNSEEN)}
SEEDS: Mapping[str, int] = {make.__name__: int((make.__defaults__ or (0,))[0]) for make in (*DEVELOPMENT, *UNSEEN)}
