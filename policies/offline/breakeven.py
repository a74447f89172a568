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
    """Kept on all the time."""
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


def best_split(plan: Plan, price: NanoUsd, demand: Sequence[int]) -> Split:
    """The number of machines that costs least for a demand given hour by hour; perhaps none.

    An hour's pictures beyond what the machines draw in it are bought. Monthly costs count by the share of a month.
    """
    months = len(demand) / HOURS_PER_MONTH
    bought_only = price * sum(demand)
    best = Split(machines=0, own_images=0, bought_images=sum(demand), cost=bought_only, bought_only=bought_only)
    per_hour = plan.images_per_hour * plan.utilisation
    most = min(ceil(max(demand, default=0) / per_hour), MOST_MACHINES)
    for machines in range(1, most + 1):
        room = int(per_hour * machines)
        own = sum(min(images, room) for images in demand)
        monthly = half_even(own / months)
        fixed = plan.hour * machines * len(demand) + half_even(
            months * (plan.engineering + plan.licence.month(monthly) + plan.hour * plan.starts * plan.cold_start)
        )
        cost = fixed + price * (sum(demand) - own)
        if cost < best.cost:
            best = Split(
                machines=machines,
                own_images=own,
                bought_images=sum(demand) - own,
                cost=cost,
                bought_only=bought_only,
            )
    return best
