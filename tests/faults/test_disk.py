"""faults.md D4 and D6: a disk that is full, a file that is damaged."""

from __future__ import annotations

import asyncio
import shutil
import sqlite3
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import structlog

from agent.domain import events
from agent.domain.errors import StoreDamaged, StoreFault
from agent.domain.ids import SessionId, StationId
from agent.ports import JournalRow
from agent.store import sqlite
from agent.store.rescue import backup_path, keep_backup, open_or_restore
from agent.store.sqlite import SqliteStore
from tests.faults.means import chance_of, rounds

NOW = datetime(2026, 1, 15, 18, 0, tzinfo=UTC)
CP = StationId("CP-01")
BYTES_HIT = 200


def a_row(seq: int, text: str = "odd") -> JournalRow:
    return JournalRow(
        seq=seq,
        at=NOW + timedelta(minutes=seq),
        station_id=CP,
        new_session_id=SessionId(""),
        event=events.AnomalyNoted(text=text),
    )


async def test_d4_a_full_disk_uses_what_was_held_back_and_passes(tmp_path: Path) -> None:
    """Refused only when the ballast is used up too, whole units; normal with space."""
    path = tmp_path / "agent.db"
    store = SqliteStore(path)
    store.start()
    store.keep_ballast()
    ballast = tmp_path / "agent.db.ballast"
    held_back = ballast.stat().st_size
    await store.commit([a_row(1)], NOW)
    pages = await store.ask(lambda db: db.execute("PRAGMA page_count").fetchone()[0])
    await store.ask(lambda db: db.execute(f"PRAGMA max_page_count = {pages + 2}"))
    stored = 1

    async def fill() -> None:
        nonlocal stored
        for seq in range(2, 400):
            await store.commit([a_row(seq, "x" * 3000)], NOW)
            stored = seq

    with structlog.testing.capture_logs() as logs, pytest.raises(StoreFault):
        await fill()
    after = ballast.exists()
    held = [row.seq for row in await store.journal()]
    await store.ask(lambda db: db.execute("PRAGMA max_page_count = 1000000"))
    await store.commit([a_row(1000)], NOW)
    store.keep_ballast()
    again = ballast.stat().st_size
    await store.stop()

    assert held_back == again
    assert held_back > 1_000_000
    assert not after
    assert [item["event"] for item in logs] == ["disk_full"]
    assert held == list(range(1, stored + 1))
    with closing(sqlite3.connect(path)) as db:
        assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        assert db.execute("SELECT count(*) FROM journal").fetchone() == (stored + 1,)


def test_d6_a_damaged_file_is_replaced_by_its_newest_backup(tmp_path: Path) -> None:
    """200 random bytes overwritten: never silent; the span of the loss is told."""
    chance = chance_of("D6")
    good = tmp_path / "good"
    good.mkdir()
    asyncio.run(_filled(good / "agent.db"))
    size = (good / "agent.db").stat().st_size
    restored = harmless = 0
    for number in range(rounds(100, 1000)):
        folder = tmp_path / f"{number}"
        shutil.copytree(good, folder)
        path = folder / "agent.db"
        content = bytearray(path.read_bytes())
        for _ in range(BYTES_HIT):
            content[chance.randrange(size)] = chance.randrange(256)
        path.write_bytes(content)
        opened = open_or_restore(path, {CP: 150_000}, NOW + timedelta(days=1))
        found = opened.restored
        opened.store.close()
        with closing(sqlite3.connect(path)) as db:
            assert db.execute("PRAGMA integrity_check(1)").fetchone() == ("ok",)
        if found is None:
            harmless += 1
        else:
            restored += 1
            assert found.lost_since == NOW + timedelta(minutes=300)
            assert found.set_aside.read_bytes()[: len(content)] == content
            assert found.backup == backup_path(path)
        shutil.rmtree(folder)
    print(f"D6: {restored} restored, {harmless} hit nothing that is in use")  # noqa: T201

    assert restored > 0.9 * (restored + harmless)


async def _filled(path: Path) -> None:
    store = SqliteStore(path)
    store.start()
    await store.commit([a_row(seq, "x" * 50) for seq in range(1, 301)], NOW)
    await keep_backup(store, path)
    await store.commit([a_row(seq, "x" * 50) for seq in range(301, 401)], NOW)
    await store.stop()
    Path(f"{path}.lock").unlink()


async def test_d6_damage_in_a_large_file_is_found_by_the_check_and_mended_by_the_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A large file is not read whole at the start, but soon after and weekly."""
    monkeypatch.setattr(sqlite, "CHECKED_AT_START_BYTES", 0)
    path = tmp_path / "agent.db"
    await _filled(path)
    content = bytearray(path.read_bytes())
    content[-4096 * 3 : -4096] = bytes(4096 * 2)
    path.write_bytes(content)
    first = open_or_restore(path, {CP: 150_000}, NOW)
    first.store.start()
    with pytest.raises(StoreDamaged):
        await first.store.check()
    await first.store.stop()
    second = open_or_restore(path, {CP: 150_000}, NOW)
    second.store.close()
    third = open_or_restore(path, {CP: 150_000}, NOW)
    third.store.close()

    assert first.restored is None
    assert second.restored is not None
    assert third.restored is None


def test_d6_a_bad_backup_is_passed_over_and_without_one_the_start_is_refused(
    tmp_path: Path,
) -> None:
    path = tmp_path / "agent.db"
    asyncio.run(_filled(path))
    backup_path(path).replace(backup_path(path, 1))
    backup_path(path).write_bytes(b"rubbish" * 1000)
    path.write_bytes(b"rubbish" * 1000)
    opened = open_or_restore(path, {}, NOW)
    opened.store.close()
    assert opened.restored is not None
    assert opened.restored.backup == backup_path(path, 1)

    for number in range(3):
        backup_path(path, number).unlink(missing_ok=True)
    path.write_bytes(b"rubbish" * 1000)
    with pytest.raises(StoreDamaged):
        open_or_restore(path, {}, NOW)
    assert path.read_bytes() == b"rubbish" * 1000


async def test_d6_backups_move_up_and_are_bounded(tmp_path: Path) -> None:
    path = tmp_path / "agent.db"
    store = SqliteStore(path)
    store.start()
    for seq in range(1, 7):
        await store.commit([a_row(seq)], NOW)
        await keep_backup(store, path)
    await store.stop()
    counts = []
    for number in range(5):
        backup = backup_path(path, number)
        if backup.exists():
            with closing(sqlite3.connect(backup)) as db:
                counts += db.execute("SELECT count(*) FROM journal").fetchone()

    assert counts == [6, 5, 4]
