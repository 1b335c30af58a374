"""A depot of stations that computes, by its own rules, what it could be drawing.

Shares no code with the agent's budget: a station holds a default, one profile per running
transaction, and applies what arrives. The agent under test is ``power.decide`` with the
book-keeping of ``reconcile``, driven as the executor drives it. Everything follows from
one seed: plugs, caps, lost and late answers, refusals, silence, reboots, restarts of the
agent, stations that ignore limits, steps of the agent's clock.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

from agent.domain import phases, reconcile
from agent.domain import power as brain
from agent.domain.allocator import Node
from agent.domain.capability import ProfileForm, RateUnit
from agent.domain.curve import Curve, curve
from agent.domain.ids import EvseId, Outlet, StationId, TransactionId
from agent.domain.ladder import Rung, Way
from agent.domain.phases import Wiring
from agent.domain.power import LimitOrder, OutletFacts
from agent.domain.profile import Purpose
from agent.domain.reconcile import Left, OutletPower

START_S = 1_790_000_000
STEP_S = (1, 5, 20, 60, 300)
TIMEOUT_S = 20
ALARM_SAMPLES = 3
TOLERANCE_W = 5.0
"""Tenths of a watt at each of a handful of outlets, times the grid factor."""

Steps = list[tuple[int, float]]
"""Absolute start in seconds and W, in order: a profile as a station stores it."""


def limit_at(steps: Steps, at_s: int) -> float | None:
    """The limit in force at a time; None before the first step."""
    found = None
    for start_s, limit_w in steps:
        if start_s <= at_s:
            found = limit_w
    return found


@dataclass
class WorldOutlet:
    """What a station really holds for one outlet.

    ``kind`` is dc, ac3 or ac1; ``phase`` is where a single-phase outlet really hangs.
    With ``only_default`` its limits are TxDefaultProfiles, which outlive a transaction.
    """

    rated_w: float
    default_w: float
    kind: str = "dc"
    phase: int = 1
    is_in_watts: bool = False
    running: str | None = None
    profile: Steps | None = None
    only_default: bool = False
    default_profile: Steps | None = None
    appetite: float = 1.0
    ignores: bool = False
    is_known_deaf: bool = False

    def could_draw(self, at_s: int) -> float:
        """The most that this outlet could draw at a time if nobody acts any more.

        With a transaction: its profile, else the default. It may end at any moment and
        the next vehicle then gets the default; so may an empty outlet.
        """
        if self.is_known_deaf:
            return self.rated_w
        levels = [self.default_w, self.falls_back_to(at_s)]
        if self.running is not None and self.profile is not None:
            levels.append(limit_at(self.profile, at_s) or 0.0)
        return min(max(levels), self.rated_w)

    def falls_back_to(self, at_s: int) -> float:
        """What holds without a profile of the transaction."""
        if self.default_profile is None:
            return self.default_w
        return limit_at(self.default_profile, at_s) or 0.0

    def on_phase(self, power_w: float, phase: int, factor: float) -> float:
        """The most of a power that may flow in one phase: VA at 230 V."""
        if self.kind == "dc":
            return power_w * factor / 3
        if self.kind == "ac1":
            return power_w if phase == self.phase else 0.0
        # A vehicle with one phase takes of a limit in A no more than others do; of one
        # in W it takes all, up to what a phase of the outlet carries.
        return min(power_w, self.rated_w / 3) if self.is_in_watts else power_w / 3

    def draws(self, at_s: int) -> float:
        """What it draws now: an appetite within the limit, or all of it when deaf."""
        if self.running is None:
            return 0.0
        most = self.rated_w * self.appetite
        if self.ignores:
            return most
        told = limit_at(self.profile, at_s) if self.profile is not None else None
        return min(most, self.falls_back_to(at_s) if told is None else told)


@dataclass
class Flight:
    """An order on its way: when it arrives, when its answer does, and what it says."""

    order: LimitOrder
    arrives_s: int
    answers_s: int | None
    gives_up_s: int
    answer: str
    left: tuple[Left, ...] = ()
    is_applied: bool = False
    is_given_up: bool = False


@dataclass
class World:
    """One scenario; ``run`` lives it and raises AssertionError when the cap is passed."""

    seed: int
    steps: int = 16
    chance: random.Random = field(init=False)
    now_s: int = START_S
    skew_s: int = 0
    count: int = 0
    log: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.chance = random.Random(self.seed)
        chance = self.chance
        stations = chance.randint(1, 3)
        self.fallback_w = chance.choice([0.0, 2000.0, 5000.0])
        self.factor = chance.choice([1.0, 1.08])
        self.outlets: dict[Outlet, WorldOutlet] = {}
        self.online: dict[StationId, bool] = {}
        self.rated: dict[StationId, float] = {}
        self.told: dict[StationId, int] = {}
        has_ac = self.seed % 8 == 0  # of depots with AC each phase has its fuse
        wires = random.Random(-1 - self.seed)  # other scenarios stay as they were
        for number in range(stations):
            station = StationId(f"CP-{number}")
            self.online[station] = chance.random() < 0.8
            self.rated[station] = chance.choice([22_000.0, 60_000.0, 150_000.0])
            kind = wires.choice(["dc", "ac3", "ac3", "ac1", "ac1"]) if has_ac else "dc"
            if kind != "dc":
                self.rated[station] = {"ac3": 44_000.0, "ac1": 14_720.0}[kind]
            in_watts = kind == "ac3" and wires.random() < 0.3
            phase = wires.choice([1, 2, 3])
            self.told[station] = phase if wires.random() < 0.6 else 0
            for evse in range(1, chance.randint(1, 2) + 1):
                self.outlets[station, EvseId(evse)] = WorldOutlet(
                    rated_w=self.rated[station],
                    default_w=self.fallback_w,
                    kind=kind,
                    phase=phase,
                    is_in_watts=in_watts,
                    only_default=self.seed % 8 == 1 and wires.random() < 0.6,
                    ignores=chance.random() < 0.06,
                )
        base_w = len(self.outlets) * self.fallback_w * self.factor
        self.cap_w = base_w + chance.choice([5_000.0, 40_000.0, 120_000.0, 400_000.0])
        self.least_cap_w = base_w + 1000.0
        self.circuit = frozenset(list(self.outlets)[: chance.randint(1, len(self.outlets))])
        self.circuit_w = base_w + chance.choice([20_000.0, 1e6])
        # All defaults on one phase: where nobody told a phase, that is what may be.
        self.site_fuse_w = base_w + wires.choice([7_000.0, 20_000.0, 1e6])
        self.circuit_fuse_w = base_w + wires.choice([3_000.0, 15_000.0])
        self.has_fuses = has_ac
        self.books: dict[Outlet, OutletPower] = {o: OutletPower() for o in self.outlets}
        for outlet in self.outlets:
            if self.online[outlet[0]]:
                self.books[outlet] = OutletPower(default_w=self.fallback_w)
        self.saved = dict(self.books)
        self.wants: dict[Outlet, Curve] = {}
        self.measured: dict[Outlet, float] = {}
        self.flights: list[Flight] = []
        self.bounds = {name: 0.0 for name, *_ in self._feeders()}
        self._bound()

    # --- the judge --------------------------------------------------------------------

    def _feeders(self) -> list[tuple[str, float, frozenset[Outlet], int]]:
        """Name, limit, members, and the phase (0: the power of all three)."""
        every = frozenset(self.outlets)
        found = [
            ("site", self.cap_w, every, 0),
            ("feeder", self.circuit_w, self.circuit, 0),
        ]
        if self.has_fuses:
            for phase in (1, 2, 3):
                found.append((f"site L{phase}", self.site_fuse_w, every, phase))
                name = f"feeder L{phase}"
                found.append((name, self.circuit_fuse_w, self.circuit, phase))
        return found

    def _worst_w(
        self,
        members: frozenset[Outlet],
        phase: int,
        on_the_way: dict[Outlet, Steps] | None = None,
    ) -> float:
        """The most that the members could draw together, now or at any later time."""
        times = {self.now_s}
        for outlet in members:
            real = self.outlets[outlet]
            steps = (real.profile or []) + (real.default_profile or [])
            steps = steps + (on_the_way or {}).get(outlet, [])
            times |= {at_s for at_s, _ in steps if at_s > self.now_s}
        return max(self._sum_w(members, phase, at_s, on_the_way or {}) for at_s in times)

    def _sum_w(
        self,
        members: frozenset[Outlet],
        phase: int,
        at_s: int,
        on_the_way: dict[Outlet, Steps],
    ) -> float:
        sums: dict[StationId, float] = {}
        most: dict[StationId, float] = {}
        for outlet in members:
            real, name = self.outlets[outlet], outlet[0]
            factor = self.factor_of(outlet)
            power_w = real.could_draw(at_s)
            if outlet in on_the_way:
                power_w = max(power_w, limit_at(on_the_way[outlet], at_s) or 0.0)
            most[name] = self.rated[name] * factor
            if phase:
                power_w = real.on_phase(power_w, phase, factor)
                most[name] /= 1 if real.kind == "ac1" else 3
            else:
                power_w *= factor
            sums[name] = sums.get(name, 0.0) + power_w
        return sum(min(power_w, most[name]) for name, power_w in sums.items())

    def factor_of(self, outlet: Outlet) -> float:
        """Grid-side watts per watt at the outlet."""
        return self.factor if self.outlets[outlet].kind == "dc" else 1.0

    def _bound(self) -> None:
        """What may be passed while a cap fell or an alarm came: never more than before.

        Orders on their way cannot be called back.
        """
        on_the_way = {
            item.order.outlet: _steps(item.order)
            for item in self.flights
            if not item.is_applied
        }
        for name, cap_w, members, phase in self._feeders():
            self.bounds[name] = max(cap_w, self._worst_w(members, phase, on_the_way))

    def judge(self) -> None:
        """Hold the worst case against every feeder."""
        for name, cap_w, members, phase in self._feeders():
            worst_w = self._worst_w(members, phase)
            bound_w = self.bounds[name]
            assert worst_w <= bound_w + TOLERANCE_W, (
                f"seed {self.seed}: {name} could draw {worst_w:.0f} W of {bound_w:.0f} W at "
                f"{self.now_s - START_S} s\n" + "\n".join(self.log[-25:])
            )
            if not self.flights:
                self.bounds[name] = max(cap_w, min(bound_w, worst_w))

    # --- the agent --------------------------------------------------------------------

    def agent_now(self) -> datetime:
        """The time as the agent's clock shows it."""
        return datetime.fromtimestamp(self.now_s + self.skew_s, UTC)

    def _facts(self) -> dict[Outlet, OutletFacts]:
        busy = {item.order.outlet for item in self.flights if not item.is_given_up}
        facts = {}
        for outlet, real in self.outlets.items():
            fact = OutletFacts(
                rated_w=real.rated_w,
                fallback_w=self.fallback_w,
                grid_factor=self.factor_of(outlet),
                is_connected=self.online[outlet[0]],
                is_busy=outlet in busy,
                measured_w=self.measured.get(outlet, 0.0),
            )
            if real.running is not None:
                fact.transaction_id = TransactionId(real.running)
                fact.started_at = datetime.fromtimestamp(self.now_s, UTC)
                fact.wants = self.wants[outlet]
                fact.form = _form(real)
                fact.floor_w = 1000.0 if self.seed % 2 else 0.0
            facts[outlet] = fact
        return facts

    def _nodes(self) -> list[Node]:
        nodes = [
            Node(name=name, cap_w=cap_w, members=members)
            for name, cap_w, members, phase in self._feeders()
            if not phase
        ]
        if self.has_fuses:
            nodes += self._fuses("site", self.site_fuse_w, frozenset(self.outlets))
            nodes += self._fuses("feeder", self.circuit_fuse_w, self.circuit)
        for station, rated_w in self.rated.items():
            members = frozenset(item for item in self.outlets if item[0] == station)
            cap_w = rated_w * self.factor_of(next(iter(members)))
            nodes.append(Node(name=station, cap_w=cap_w, members=members, is_physical=True))
        return nodes

    def _fuses(self, name: str, fuse_w: float, members: frozenset[Outlet]) -> list[Node]:
        """The phases as the agent's configuration describes them."""
        wirings = {}
        for outlet in members:
            real = self.outlets[outlet]
            wirings[outlet] = Wiring(
                rated_w=real.rated_w * self.factor_of(outlet),
                is_dc=real.kind == "dc",
                phases=1 if real.kind == "ac1" else 3,
                phase=self.told[outlet[0]],
                is_in_watts=real.is_in_watts,
            )
        return phases.phase_nodes(name, fuse_w / 230, wirings)

    def agent_acts(self) -> None:
        """One pass of the power loop."""
        verdict = brain.decide(
            self._facts(),
            self.books,
            self._nodes(),
            now=self.agent_now(),
            safe_from=datetime.fromtimestamp(self.now_s, UTC),
        )
        for order in verdict.orders:
            left = self.books[order.outlet].left
            way = _way(self.outlets[order.outlet])
            # On disk before it leaves.
            self._book(order.outlet, reconcile.leaving(order.power, way, order.sent))
            self._send(order, left)
        for outlet in self.outlets:
            self._clean(outlet)

    def _clean(self, outlet: Outlet) -> None:
        """After a transaction the safe default goes where the last limit still is."""
        real, book = self.outlets[outlet], self.books[outlet]
        is_busy = any(item.order.outlet == outlet for item in self.flights)
        is_due = real.running is None and bool(book.left) and self.online[outlet[0]]
        if not is_due or is_busy or self.count % 3 == 0:  # now and then it is refused
            return
        real.default_profile = None
        self._book(outlet, replace(book, left=()))
        self._note(f"default is back {outlet}")

    def _send(self, order: LimitOrder, left: tuple[Left, ...]) -> None:
        chance = self.chance
        answer = chance.choices(
            ["accepted", "refused", "lost command", "lost answer", "late"],
            [70, 8, 8, 8, 6],
        )[0]
        arrives_s = self.now_s + chance.randint(0, 3)
        answers_s = {
            "lost command": None,
            "lost answer": None,
            "late": self.now_s + TIMEOUT_S + chance.randint(1, 200),
        }.get(answer, arrives_s + chance.randint(0, 3))
        gives_up_s = self.now_s + TIMEOUT_S
        self.flights.append(Flight(order, arrives_s, answers_s, gives_up_s, answer, left))
        limits = [round(limit) for _, limit in order.compiled.profile.periods]
        self._note(f"order {order.outlet} {limits} {answer}")

    # --- time -------------------------------------------------------------------------

    def live(self, seconds: int) -> None:
        """Let time pass, one second of messages at a time, judged at each change."""
        end_s = self.now_s + seconds
        while self.now_s < end_s:
            moments = [end_s]
            for item in self.flights:
                moments += [item.arrives_s, item.gives_up_s]
                moments += [item.answers_s] if item.answers_s is not None else []
            self.now_s = min((at for at in moments if at > self.now_s), default=end_s)
            for flight in list(self.flights):
                self._fly(flight)
            self.judge()

    def _fly(self, flight: Flight) -> None:
        order, outlet = flight.order, flight.order.outlet
        real = self.outlets[outlet]
        is_there = self.online[outlet[0]]
        due = self.now_s >= flight.arrives_s and not flight.is_applied
        if due and flight.answer not in ("refused", "lost command") and is_there:
            flight.is_applied = True
            _apply(real, order)
        answers_s = flight.answers_s
        if answers_s is not None and self.now_s >= answers_s and is_there:
            self._answered(flight)
            self.flights.remove(flight)
        elif not flight.is_given_up and self.now_s >= flight.gives_up_s:
            flight.is_given_up = True
            self._book(outlet, reconcile.unanswered(self.books[outlet], "silence"))
            if flight.answers_s is None:
                self.flights.remove(flight)

    def _answered(self, flight: Flight) -> None:
        order, outlet = flight.order, flight.order.outlet
        power = self.books[outlet]
        newest = power.doubtful
        if newest is None or newest.sent_at != order.sent.sent_at:
            return
        now = self.agent_now()
        is_applied = flight.is_applied
        if flight.answer == "refused" or not is_applied:
            power = reconcile.refused(power, "Rejected")
            # An answer that came late leaves everything that may be there.
            left = power.left if flight.is_given_up else flight.left
            self._book(outlet, replace(power, left=left))
        else:
            power = reconcile.accepted(power, order.sent, now)
            if not flight.is_given_up:
                way = _way(self.outlets[outlet])
                power = reconcile.replaced(power, way, order.sent)
            self._book(outlet, power)

    def _book(self, outlet: Outlet, power: OutletPower) -> None:
        self.books[outlet] = power
        self.saved[outlet] = power

    # --- what happens -----------------------------------------------------------------

    def happen(self) -> None:
        """Let one thing happen to the depot."""
        chance = self.chance
        what = chance.choices(
            [
                "plug",
                "unplug",
                "cap",
                "away",
                "back",
                "reboot",
                "restart",
                "plan",
                "skew",
                "sample",
                "sample",
            ],
            [22, 8, 8, 6, 10, 4, 5, 10, 3, 12, 12],
        )[0]
        outlet = chance.choice(list(self.outlets))
        getattr(self, f"_on_{what}")(outlet)

    def _on_plug(self, outlet: Outlet) -> None:
        real = self.outlets[outlet]
        if real.running is not None or not self.online[outlet[0]]:
            return
        self.count += 1
        real.running, real.profile = f"tx-{self.count}", None
        real.appetite = self.chance.choice([0.1, 0.5, 1.0])
        self.measured.pop(outlet, None)
        self._on_plan(outlet)
        self._note(f"plug {outlet} {real.running}")

    def _on_unplug(self, outlet: Outlet) -> None:
        real = self.outlets[outlet]
        if real.running is None:
            return
        real.running = real.profile = None
        real.is_known_deaf = False
        self._note(f"unplug {outlet}")

    def _on_plan(self, outlet: Outlet) -> None:
        edges = sorted(self.chance.sample(range(0, 7200, 60), self.chance.randint(1, 5)))
        levels = [0.0, 4000.0, 11_000.0, 30_000.0, 150_000.0]
        now_s = self.now_s + self.skew_s
        self.wants[outlet] = curve(
            [(0, self.chance.choice(levels))]
            + [(now_s + at_s, self.chance.choice(levels)) for at_s in edges]
        )

    def _on_cap(self, _: Outlet) -> None:
        if self.chance.random() < 0.5:
            share = self.chance.choice([0.2, 0.5, 0.9])
            self.cap_w = max(self.least_cap_w, self.cap_w * share)
        else:
            self.cap_w *= self.chance.choice([1.2, 2.0])
        self._bound()
        self._note(f"cap {self.cap_w:.0f}")

    def _on_away(self, outlet: Outlet) -> None:
        self.online[outlet[0]] = False
        self._note(f"away {outlet[0]}")

    def _on_back(self, outlet: Outlet) -> None:
        station = outlet[0]
        if self.online[station]:
            return
        self.online[station] = True
        for item in self.outlets:
            if item[0] == station:
                if self.books[item].default_w is None:
                    # What the executor does first: the default, confirmed.
                    self.outlets[item].default_w = self.fallback_w
                    self._book(item, OutletPower(default_w=self.fallback_w))
                self._book(item, reconcile.doubted(self.books[item]))
        self._note(f"back {station}")

    def _on_reboot(self, outlet: Outlet) -> None:
        """Profiles survive, transactions end (B14)."""
        station = outlet[0]
        if not self.online[station]:
            return
        for item, real in self.outlets.items():
            if item[0] == station:
                real.running = real.profile = None
                real.is_known_deaf = False
                self._book(item, reconcile.doubted(self.books[item]))
        self._note(f"reboot {station}")

    def _on_restart(self, _: Outlet) -> None:
        """The agent dies and comes back with what was on disk."""
        self.books = dict(self.saved)
        for item in list(self.flights):
            outlet = item.order.outlet
            if not item.is_given_up:
                self._book(outlet, reconcile.unanswered(self.books[outlet], "restart"))
            # The command is out: the station may still apply it; nobody hears the answer.
            if not item.is_applied and item.answer not in ("refused", "lost command"):
                real = self.outlets[outlet]
                if self.online[outlet[0]]:
                    _apply(real, item.order)
        self.flights.clear()
        for outlet in self.outlets:
            self._book(outlet, reconcile.doubted(self.books[outlet]))
        self._note("restart")

    def _on_skew(self, _: Outlet) -> None:
        self.skew_s = self.chance.choice([-3600, -90, 0, 0, 90, 3600])
        self._note(f"clock {self.skew_s:+d}")

    def _on_sample(self, _: Outlet) -> None:
        """A meter value of every online outlet."""
        for item, real in self.outlets.items():
            if real.running is None or not self.online[item[0]]:
                continue
            measured_w = real.draws(self.now_s)
            self.measured[item] = measured_w
            before = self.books[item]
            after = reconcile.checked(
                before,
                measured_w=measured_w,
                measured_at=self.agent_now(),
                transaction_id=TransactionId(real.running),
            )
            self._book(item, after)
            if after.verified is False and before.verified is not False:
                real.is_known_deaf = real.ignores
                self._note(f"alarm {item}")
                self._bound()
            elif after.verified is True and before.verified is False:
                real.is_known_deaf = False  # three samples: nobody can know better
                self._note(f"trusted again {item}")

    def _note(self, text: str) -> None:
        self.log.append(f"{self.now_s - START_S:6d} s  {text}")

    # --- the whole --------------------------------------------------------------------

    def run(self) -> World:
        """Live the scenario."""
        for _ in range(self.steps):
            self.happen()
            self.agent_acts()
            self.judge()
            self.live(self.chance.choice(STEP_S))
            if self.chance.random() < 0.5:
                self._on_sample(next(iter(self.outlets)))
            self.agent_acts()
        return self


def _apply(real: WorldOutlet, order: LimitOrder) -> None:
    """What a station does with a limit that it takes."""
    if real.only_default:
        real.default_profile = _steps(order)
    elif real.running == order.sent.transaction_id:
        real.profile = _steps(order)


def _way(real: WorldOutlet) -> Way:
    """The rung of the ladder on which the agent stands."""
    purpose = Purpose.TX_DEFAULT if real.only_default else Purpose.TX
    rung = Rung.TX_DEFAULT if real.only_default else Rung.PLAIN
    return Way(rung=rung, form=_form(real), purpose=purpose)


def _form(real: WorldOutlet) -> ProfileForm:
    """How the agent writes limits for an outlet: AC in A, but for some that want W."""
    count = {"dc": None, "ac3": 3, "ac1": 1}[real.kind]
    is_amps = count is not None and not real.is_in_watts
    return ProfileForm(
        unit=RateUnit.AMPERE if is_amps else RateUnit.WATT,
        phases=count,
        periods_max=8,
        stack_level=1,
        minimum_w=1000.0 if count is None else 1380.0 * count,
    )


def _steps(order: LimitOrder) -> Steps:
    """The profile as a station reads it, from what was sent."""
    profile = order.compiled.profile
    assert profile.starts_at is not None
    start_s = int(profile.starts_at.timestamp())
    volts = 1.0 if profile.unit == "W" else 230.0 * (profile.phases or 3)
    return [(start_s + at_s, limit * volts) for at_s, limit in profile.periods]
