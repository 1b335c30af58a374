"""Billing: accounts, verification, and the webhook of finished sessions."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

import structlog

from agent.cloud import accounts
from agent.cloud.accounts import AccountsFile
from agent.cloud.webhook import NAME, Webhook
from agent.control.health import CloudHealth
from agent.control.outbox import IDLE_S, Drainer
from agent.domain.billing import AccountBook, BillingRules
from agent.domain.errors import ConfigFault, StoreFault
from agent.host.metrics import Sample
from agent.parts.base import Ground, Part, Task
from agent.ports import FactSaved
from agent.settings import Billing, Settings

log = structlog.get_logger()

LOOK_S = 5.0
"""The accounts file and every open session's account are looked at this often, seconds
of the depot's clock: one stat, and a look-up per vehicle."""
LOOK_FLOOR_S = 0.1
"""Real seconds between two looks at least, for clocks that run fast."""
SCOPE, LAST_GOOD = "billing", "accounts-file"
"""Where the text of the last good accounts file is kept: a depot that restarts after a
power cut must not stand because somebody mistyped a date meanwhile."""


class BillingPart(Part):
    """Keeps the accounts, looks at sessions' accounts, delivers bills."""

    def __init__(self, ground: Ground) -> None:
        """Build; nothing is read before the tasks run."""
        self._ground = ground
        self._section = ground.settings.billing
        self._file = _file(self._section)
        self._book = AccountBook()
        self._is_good = True
        self._look_now = asyncio.Event()
        self._looking = asyncio.Lock()
        self._webhook: Webhook | None = None
        self.drainer: Drainer | None = None
        self._has_begun = False
        """Before the first look nothing is limited: an empty book would stop everybody."""
        if self._section.webhook_url:
            self._build_webhook(self._section)

    def _build_webhook(self, section: Billing) -> None:
        ground = self._ground
        health = CloudHealth(NAME, ground.clock)
        ground.clouds.append(health)
        ground.destinations.append(NAME)
        ground.depot.owes_bills = True
        self._webhook = Webhook(
            section.webhook_url, section.webhook_token.get_secret_value()
        )
        self.drainer = Drainer(
            NAME,
            ground.store,
            self._webhook,
            ground.clock,
            ground.ids,
            health,
            idle_s=IDLE_S * max(ground.pace, 0.1),
        )
        ground.drainers.append(self.drainer)

    def tasks(self) -> Sequence[Task]:
        """The accounts, and the outbox where there is a webhook."""
        tasks: list[Task] = [
            ("accounts", self._watch),
            ("accounts-reload", self._obey),
        ]
        if self.drainer is not None:
            tasks.append(("billing-outbox", self.drainer.run))
        return tasks

    def reload(self, new: Settings) -> None:
        """Take over the rules; the file is read again, changed or not."""
        if new.billing.accounts_file != self._section.accounts_file:
            self._file = _file(new.billing)
            if self._file is None:
                self._book, self._is_good = AccountBook(), True
        elif self._file is not None:
            self._file.forget()
        self._section = new.billing
        self._take_rules()
        self._look_now.set()

    def samples(self) -> Sequence[Sample]:
        """How many accounts there are, and whether the file is in force as it stands."""
        if self._file is None:
            return ()
        return (
            Sample(
                name="accounts",
                help="payment accounts in force",
                value=float(len(self._book.accounts)),
            ),
            Sample(
                name="accounts_file_good",
                help="1 while the accounts file is in force as it stands, 0 while refused",
                value=float(self._is_good),
            ),
        )

    async def close(self) -> None:
        """Close kept connections."""
        if self._webhook is not None:
            await self._webhook.close()

    # --- accounts -------------------------------------------------------------------

    async def _watch(self) -> None:
        await self._take_last_good()
        await self._look(begin=True)
        while True:
            await self._ground.clock.sleep(LOOK_S)
            await asyncio.sleep(LOOK_FLOOR_S)
            await self._look()

    async def _obey(self) -> None:
        """Look at once when the configuration was read again."""
        while True:
            await self._look_now.wait()
            self._look_now.clear()
            await self._look()

    async def _look(self, *, begin: bool = False) -> None:
        """One look at the file and at every open session."""
        try:
            async with self._looking:
                await self._read()
                if begin:
                    self._has_begun = True
                    self._take_rules()
            await self._ground.intake.check_accounts()
        except StoreFault as fault:
            log.error("record_not_stored", reason=str(fault))

    async def _read(self) -> None:
        """Take over the file if it changed; a bad one changes nothing."""
        file = self._file
        if file is None:
            return
        try:
            text = await file.changed()
            if text is None:
                return
            book = await asyncio.to_thread(accounts.parse, text, str(file.path))
        except ConfigFault as fault:
            self._is_good = False
            kept = len(self._book.accounts)
            log.error("config_refused", reason=f"{fault}; {kept} accounts stay in force")
            return
        self._is_good = True
        self._book = book
        self._take_rules()
        log.info("accounts_received", accounts=len(book.accounts), file=str(file.path))
        await self._keep(text)

    async def _keep(self, text: str) -> None:
        fact = FactSaved(scope=SCOPE, name=LAST_GOOD, body={"text": text})
        await self._ground.store.commit([fact], self._ground.clock.now())

    async def _take_last_good(self) -> None:
        """Begin with the accounts of the last run: the file may be bad by now."""
        if self._file is None:
            return
        try:
            kept = (await self._ground.store.facts(SCOPE)).get(LAST_GOOD, {})
            self._book = accounts.parse(str(kept.get("text", "")), "the last good copy")
        except (ConfigFault, StoreFault) as fault:
            log.warning("accounts_copy_not_read", reason=str(fault))

    def _take_rules(self) -> None:
        section, depot = self._section, self._ground.depot
        if not self._has_begun:
            return
        if self._file is None:
            depot.billing = None
            depot.grants.clear()
        else:
            depot.billing = BillingRules(
                book=self._book,
                is_required=section.required,
                without=section.without_account,
            )
        depot.changed.set()


def _file(section: Billing) -> AccountsFile | None:
    return AccountsFile(Path(section.accounts_file)) if section.accounts_file else None


def check(settings: Settings) -> None:
    """Check the accounts file, if there is one. Raises ConfigFault with every fault."""
    path = settings.billing.accounts_file
    if path:
        accounts.parse(accounts.read_text(Path(path)), path)


def build(ground: Ground) -> BillingPart:
    """Build the part always: an accounts file may come with a reload."""
    return BillingPart(ground)
