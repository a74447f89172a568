"""When a GPU of our own pays: pure arithmetic on prices, throughput and demand.

Three prices of one picture, each right for another question:

    marginal    a picture more while the machine is on anyway: what the choice of a single order looks at
    full load   the machine's hour over what it can draw in one: the least that a picture can ever cost
    effective   the machine's hours over what it did draw: what a picture really costs

Money is nano-dollars and exact until the one rounding; a month is 730.5 hours.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from math import ceil

from msgspec import Struct

from policies.money import NanoUsd, half_even

HOURS_PER_MONTH = Fraction(1461, 2)
"""365.25 days of 24 hours over 12 months."""

MOST_MACHINES = 1000
"""Beyond so many machines the answer is a negotiation, not a sum."""


class WeightsLicence(Struct, frozen=True, kw_only=True):
    """What the owner of the weights asks for running them, a month."""

    fee: NanoUsd = 0
    included: int = 0
    """Pictures a month that the fee covers."""
    overage: NanoUsd = 0
    """For each picture beyond them."""

    def month(self, images: int) -> NanoUsd:
        """What a month of so many pictures costs."""
        return self.fee + self.overage * max(images - self.included, 0)


class Plan(Struct, frozen=True, kw_only=True):
    """A way to run the model on machines of our own."""

    hour: NanoUsd
    """What an hour of one machine costs, busy or idle."""
    images_per_hour: Fraction
    """What one machine draws in an hour when it always has work."""
    utilisation: Fraction = Fraction(1)
    """Share of that which may be planned with: the rest keeps queues short."""
    engineering: NanoUsd = 0
    """People, a month: whatever the number of machines."""
    licence: WeightsLicence = WeightsLicence()
    cold_start: Fraction = Fraction(0)
    """Hours that a machine is paid for before it draws its first picture."""
    starts: int = 0
    """Cold starts a month."""

    @property
    def capacity(self) -> Fraction:
        """Pictures a month that one machine is planned to draw."""
        return self.images_per_hour * self.utilisation * HOURS_PER_MONTH

    def machines(self, images: int) -> int:
        """How many machines a month of so many pictures needs, evenly spread."""
        return max(ceil(images / self.capacity), 1)

    def month(self, images: int) -> NanoUsd:
        """What so many pictures cost in a month of machines that are always on, all in."""
        return half_even(self._machines_month(self.machines(images))) + self.engineering + self.licence.month(images)

    def _machines_month(self, machines: int) -> Fraction:
        return self.hour * (machines * HOURS_PER_MONTH + self.starts * self.cold_start)


def full_load(hour: NanoUsd, images_per_hour: Fraction) -> NanoUsd:
    """A picture of a machine that always has work: $0.34 over 600 is $0.000566667."""
    return half_even(hour / images_per_hour)


def effective(hour: NanoUsd, hours: Fraction, images: int) -> NanoUsd | None:
    """A picture of a machine that was on for so many hours; None when it drew none."""
    return half_even(hour * hours / images) if images else None


def per_image(month: NanoUsd, images: int) -> NanoUsd | None:
    """A month's cost, divided; None when nothing was drawn."""
    return half_even(Fraction(month, images)) if images else None


def marginal(hour: NanoUsd, seconds: Fraction, *, always_on: bool) -> NanoUsd:
    """A picture more: nothing on a machine that is paid anyway, its seconds on one that is paid by the second."""
    return 0 if always_on else half_even(hour * seconds / 3600)


def break_even_hour(hour: NanoUsd, price: NanoUsd) -> Fraction | None:
    """Pictures an hour from which the hour costs less than buying them; None when they are free to buy.

    It does not depend on how fast the machine is, as long as it can draw that many.
    """
    return Fraction(hour, price) if price else None


def break_even_month(plan: Plan, price: NanoUsd) -> int | None:
    """The least pictures a month for which owning costs no more than buying, all in; None when it never does.

    Machines come whole, so owning may be dearer again just above a machine's capacity; this is the first crossing.
    """
    if price <= 0:
        return None
    for machines in range(1, MOST_MACHINES + 1):
        least, most = int(plan.capacity * (machines - 1)) + 1, int(plan.capacity * machines)
        tops = [top for top in (plan.licence.included, most) if least <= top <= most]  # where owning is best
        top = next((top for top in tops if plan.month(top) <= price * top), None)
        if top is not None:
            return _first(plan, price, least, top)
        if _never(plan, price, most):
            return None
    return None


def _never(plan: Plan, price: NanoUsd, images: int) -> bool:
    """Whether further machines cannot help: what each can draw is worth no more than it costs."""
    beyond = images >= plan.licence.included
    return beyond and plan.capacity * (price - plan.licence.overage) <= plan.hour * HOURS_PER_MONTH


def _first(plan: Plan, price: NanoUsd, least: int, most: int) -> int:
    """The first count between two at which owning is no dearer; between them it only gets better."""
    while least < most:
        middle = (least + most) // 2
        if plan.month(middle) <= price * middle:
            most = middle
        else:
            least = middle + 1
    return most


class Split(Struct, frozen=True, kw_only=True):
    """Machines for the base of the demand, sellers for the rest; over the hours that were looked at."""

    machines: int
    """At most on at once."""
    machine_hours: int
    """Paid for."""
    starts: int
    """Cold starts, where machines are switched off between."""
    own_images: int
    bought_images: int
    cost: NanoUsd
    """Machines, licence, engineering and what is bought."""
    bought_only: NanoUsd
    """Buying everything."""

    @property
    def saved(self) -> NanoUsd:
        """Less than buying everything."""
        return self.bought_only - self.cost


def bought(price: NanoUsd, demand: Sequence[int]) -> Split:
    """Buying everything."""
    images, cost = sum(demand), price * sum(demand)
    return Split(machines=0, machine_hours=0, starts=0, own_images=0, bought_images=images, cost=cost, bought_only=cost)


def best_split(plan: Plan, price: NanoUsd, demand: Sequence[int]) -> Split:
    """The number of machines, always on, that costs least for a demand given hour by hour; perhaps none.

    An hour's pictures beyond what the machines draw in it are bought. Monthly costs count by the share of a month.
    """
    best = bought(price, demand)
    months = len(demand) / HOURS_PER_MONTH
    most = min(ceil(max(demand, default=0) / _planned(plan)), MOST_MACHINES)
    for machines in range(1, most + 1):
        room = int(_planned(plan) * machines)
        own = sum(min(images, room) for images in demand)
        starting = half_even(months * plan.hour * plan.starts * plan.cold_start)
        split = _split(plan, price, demand, _Layer(machines * len(demand), 0, own), machines, starting)
        if split.cost < best.cost:
            best = split
    return best


def best_by_the_hour(plan: Plan, price: NanoUsd, demand: Sequence[int]) -> Split:
    """When to have which machine on, hour by hour, each start paid for; perhaps never.

    Machine after machine, each takes what the ones before it leave over; for one machine the cheapest sequence of on
    and off is found exactly.
    """
    best = bought(price, demand)
    room, total = int(_planned(plan)), _Layer(0, 0, 0)
    start = half_even(plan.hour * plan.cold_start)
    for machine in range(MOST_MACHINES):
        layer = _on_and_off([min(max(images - machine * room, 0), room) for images in demand], plan.hour, price, start)
        if not layer.hours:
            break
        total = _Layer(total.hours + layer.hours, total.starts + layer.starts, total.own + layer.own)
        split = _split(plan, price, demand, total, machine + 1, start * total.starts)
        if split.cost < best.cost:
            best = split
    return best


class _Layer(Struct, frozen=True):
    """What machines did: hours on, starts, pictures."""

    hours: int
    starts: int
    own: int


def _on_and_off(demand: Sequence[int], hour: NanoUsd, price: NanoUsd, start: NanoUsd) -> _Layer:
    """The cheapest sequence of hours on and off for one machine; what it does not draw is bought."""
    off: tuple[NanoUsd, _Layer] = (0, _Layer(0, 0, 0))
    on: tuple[NanoUsd, _Layer] | None = None
    for images in demand:
        warm = None if on is None else (on[0] + hour, _Layer(on[1].hours + 1, on[1].starts, on[1].own + images))
        cold = (off[0] + start + hour, _Layer(off[1].hours + 1, off[1].starts + 1, off[1].own + images))
        stopped = off if on is None or off[0] <= on[0] else on
        off = stopped[0] + price * images, stopped[1]
        on = cold if warm is None or cold[0] < warm[0] else warm
    return off[1] if on is None or off[0] <= on[0] else on[1]


def _split(plan: Plan, price: NanoUsd, demand: Sequence[int], did: _Layer, machines: int, starting: NanoUsd) -> Split:
    """Price what machines did, and what is bought beside it."""
    months = len(demand) / HOURS_PER_MONTH
    monthly = plan.engineering + plan.licence.month(half_even(did.own / months))
    rest = sum(demand) - did.own
    return Split(
        machines=machines,
        machine_hours=did.hours,
        starts=did.starts,
        own_images=did.own,
        bought_images=rest,
        cost=plan.hour * did.hours + starting + half_even(months * monthly) + price * rest,
        bought_only=price * sum(demand),
    )


def _planned(plan: Plan) -> Fraction:
    """Pictures an hour that one machine is planned to draw."""
    return plan.images_per_hour * plan.utilisation
