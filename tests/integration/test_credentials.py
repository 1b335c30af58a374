"""Passwords and certificates that the agent gives its stations, over real links."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509

from agent.stations.certificates import make_key, make_request, pem_of, read_chain
from tests.support.secure_depot import KEY, NOW, VERSIONS, Depot, Pki, basic, depot, until

ONE = [{"id": "CP-01", "security_profile": 1, "password": KEY}]


@pytest.fixture(scope="module")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Pki:
    return Pki(tmp_path_factory.mktemp("pki"))


def secret_of(station: Any) -> str:
    """The password that a virtual station holds now."""
    core = station._station
    name = "SecurityCtrlr.BasicAuthPassword"
    found = core.setting(name) if station.config.is_2x else core.keys.secret
    return str(found or "")


async def tries(place: Depot, *passwords: str) -> list[int]:
    """Knock with each password while the station itself is away."""
    return [
        await place.knock("CP-01", place.plain, headers=basic("CP-01", item))
        for item in passwords
    ]


# --- passwords ----------------------------------------------------------------------


@pytest.mark.parametrize("version", VERSIONS)
async def test_a_password_is_changed_with_overlap_and_never_shown(
    version: str, tmp_path: Path
) -> None:
    """A01: old and new open until the new one was used; then, and after a restart, it alone."""
    async with depot(tmp_path, ONE) as place:
        station = place.station("CP-01", place.plain, ocpp_version=version, password=KEY)
        await place.online(station)
        status, said = await place.operate("stations.password", station="CP-01")
        new = secret_of(station)
        overlap = place.daemon.server.entrance.known.passwords["CP-01"]  # type: ignore[index]
        station.cut()
        await until(lambda: place.events("password_replaced"))
        station.stop()
        await until(lambda: not place.daemon.server.links)
        after = await tries(place, KEY, new)
        seen = repr(place.logs) + repr(said)
    async with depot(tmp_path, ONE) as place:
        restarted = await tries(place, KEY, new)
        seen += repr(place.logs)
    on_disk = b"".join(item.read_bytes() for item in tmp_path.glob("agent.db*"))

    assert status == 200
    assert len(overlap) == 2
    assert len(new) == (40 if version == "1.6" else 32)
    assert set(new) <= set("0123456789abcdef") or version != "1.6"
    assert (after, restarted) == ([401, 101], [401, 101])
    assert new not in seen
    assert new.encode() not in on_disk


async def test_until_the_station_used_the_new_password_the_old_one_opens(
    tmp_path: Path,
) -> None:
    """SEC-03: a station that says Accepted and goes on with the old one is not lost."""
    async with depot(tmp_path, ONE) as place:
        station = place.station("CP-01", place.plain, password=KEY)
        await place.online(station)
        await place.operate("stations.password", station="CP-01")
        station._station.keys.secret = None  # type: ignore[attr-defined] # forgets it
        station.cut()
        await until(lambda: len(place.events("station_connected")) == 2)
        replaced = place.events("password_replaced")

    assert replaced == []


async def test_a_station_that_takes_no_password_keeps_its_old_one(tmp_path: Path) -> None:
    """Refused, and not connected: nothing changes, and the operator hears why."""
    async with depot(tmp_path, ONE) as place:
        away = await place.operate("stations.password", station="CP-01")
        station = place.station("CP-01", place.plain, password=KEY)
        await place.online(station)
        station._station.keys.change = lambda *_: "NotSupported"  # type: ignore[attr-defined]
        refused = await place.operate("stations.password", station="CP-01")
        known = dict(place.daemon.server.entrance.known.passwords)

    assert away[0] == 409
    assert refused[0] == 409
    assert "NotSupported" in refused[1]
    assert known == {}


async def test_a_first_password_locks_nobody_out_before_it_was_used(tmp_path: Path) -> None:
    """From profile 0 to 1 by one command."""
    async with depot(tmp_path, [{"id": "CP-01"}]) as place:
        station = place.station("CP-01", place.plain)
        await place.online(station)
        await place.operate("stations.password", station="CP-01", reconnect=True)
        await until(lambda: place.events("password_replaced"))
        new = secret_of(station)
        station.stop()
        await until(lambda: not place.daemon.server.links)
        without = await place.knock("CP-01", place.plain)
        found = await tries(place, new)

    assert (without, found) == (401, [101])


async def test_a_password_in_the_configuration_takes_the_place_of_a_given_one(
    tmp_path: Path,
) -> None:
    """A person who writes one down has the last word."""
    async with depot(tmp_path, ONE) as place:
        station = place.station("CP-01", place.plain, password=KEY)
        await place.online(station)
        await place.operate("stations.password", station="CP-01", reconnect=True)
        await until(lambda: place.events("password_replaced"))
        new = secret_of(station)
    other = "e" * 40
    async with depot(tmp_path, [ONE[0] | {"password": other}]) as place:
        found = await tries(place, new, KEY, other)

    assert found == [401, 401, 101]


# --- certificates ---------------------------------------------------------------------


@pytest.mark.parametrize("version", VERSIONS)
async def test_a_station_renews_its_certificate_at_the_local_ca(
    version: str, pki: Pki, tmp_path: Path
) -> None:
    """A02, A03: asked, requested, signed, sent, accepted; and it opens profile 3."""
    signer = {"ca_certificate": str(pki.ca), "ca_key": str(pki.ca_key)}
    async with depot(tmp_path, ONE, pki=signer) as place:
        station = place.station("CP-01", place.plain, ocpp_version=version, password=KEY)
        await place.online(station)
        asked = await place.operate("stations.renew-certificate", station="CP-01")
        await until(lambda: place.events("certificate_accepted"))
        listed = await place.operate("stations.certificates", station="CP-01")
        metrics = place.daemon.metrics().decode()
        chain = _certificates(station).chain
    leaf = read_chain(chain)[0]

    leaf.verify_directly_issued_by(pki.authority.certificate)
    usage = leaf.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert [item.dotted_string for item in usage] == ["1.3.6.1.5.5.7.3.2"]
    assert asked[0] == 200
    row = listed[1]["issued"][-1]
    assert (row["state"], row["common_name"]) == ("accepted", "CP-01")
    assert int(row["serial"], 16) == leaf.serial_number
    assert 'station_certificate_days_left{station_id="CP-01"} 36' in metrics


def _certificates(station: Any) -> Any:
    return station._connecting._calls.certificates


async def test_an_external_signer_works_by_dropping_files(pki: Pki, tmp_path: Path) -> None:
    """Requests go out as files; wrong answers are refused, half ones left, the right sent."""
    folder = tmp_path / "exchange"
    folder.mkdir()
    rows = [ONE[0] | {"id": ".CP 01"}]
    async with depot(tmp_path, rows, pki={"exchange_folder": str(folder)}) as place:
        station = place.station(".CP 01", place.plain, password=KEY)
        await place.online(station)
        keeper = _hurried(place)
        await place.operate("stations.renew-certificate", station=".CP 01")
        request = folder / "%2ECP%2001.csr"
        await until(request.is_file)
        answer = request.with_suffix(".pem")

        async def refused(text: bytes) -> str:
            """What is said of an answer that is wrong, and not just being written."""
            count = len(place.events("certificate_not_signed"))
            part = answer.with_suffix(".part")
            part.write_bytes(text)
            os.utime(part, (0, 0))
            part.replace(answer)
            keeper._wake.set()
            await until(lambda: len(place.events("certificate_not_signed")) > count)
            return str(place.events("certificate_not_signed")[-1]["reason"])

        junk = await refused(b"no certificate")
        other = pem_of(make_request(make_key(is_rsa=False), ".CP 01")).decode()
        foreign = pki.authority.issue_station(other, [".CP 01"], NOW, 30)
        wrong = await refused(pem_of(foreign))
        mine = pki.authority.issue_station(request.read_text(), [".CP 01"], NOW, 30)
        whole = pem_of(mine)
        told = len(place.events("certificate_not_signed"))
        answer.write_bytes(whole[: len(whole) // 2])
        keeper._wake.set()
        await until(lambda: not keeper._wake.is_set())
        await asyncio.sleep(0.3)
        is_left = answer.is_file() and len(place.events("certificate_not_signed")) == told
        answer.write_bytes(whole)
        keeper._wake.set()
        await until(lambda: place.events("certificate_accepted"))
        left = sorted(item.name for item in folder.iterdir())

    assert "no certificate in PEM" in junk
    assert "not for the key" in wrong
    assert is_left  # a copy that was under way
    assert left == ["%2ECP%2001.pem.refused", "%2ECP%2001.pem.taken"]


def _hurried(place: Depot) -> Any:
    part: Any = next(
        item for item in place.daemon.parts if type(item).__name__ == "SecurityPart"
    )
    return part._certificates


@pytest.mark.parametrize(
    ("csr", "reason"),
    [
        ("no request", "PKCS"),
        (pem_of(make_request(make_key(is_rsa=False), "CP-02")).decode(), "not this"),
        (pem_of(make_request(make_key(is_rsa=True, bits=1024), "CP-01")).decode(), "1024"),
        ("x" * 6000, "5500"),
    ],
)
async def test_a_request_that_must_not_be_signed_is_rejected(
    csr: str, reason: str, pki: Pki, tmp_path: Path
) -> None:
    """Another station's name, a weak key, junk: answered Rejected, with the reason logged."""
    signer = {"ca_certificate": str(pki.ca), "ca_key": str(pki.ca_key)}
    async with depot(tmp_path, ONE, pki=signer) as place:
        station = place.station("CP-01", place.plain, password=KEY)
        await place.online(station)
        answer = await station._station.call("SignCertificate", {"csr": csr})
        told = place.events("certificate_request_refused")

    assert answer == {"status": "Rejected"}
    assert reason in told[0]["reason"]


async def test_a_certificate_that_found_nobody_home_is_sent_at_the_next_connection(
    pki: Pki, tmp_path: Path
) -> None:
    """Over a restart of the agent, too."""
    signer = {"ca_certificate": str(pki.ca), "ca_key": str(pki.ca_key)}
    key = make_key(is_rsa=False)
    csr = pem_of(make_request(key, "CP-01")).decode()
    async with depot(tmp_path, ONE, pki=signer) as place:
        keeper = _hurried(place)
        assert await keeper.wanted("CP-01", csr, None)
        await until(lambda: place.events("certificate_waits"))
    async with depot(tmp_path, ONE, pki=signer) as place:
        station = place.station("CP-01", place.plain, password=KEY)
        _certificates(station)._key = key
        await until(lambda: place.events("certificate_accepted"))

    assert _certificates(station).chain


@pytest.mark.parametrize("version", VERSIONS)
async def test_roots_are_installed_listed_and_deleted_but_never_the_last_by_mistake(
    version: str, pki: Pki, tmp_path: Path
) -> None:
    """M03 to M05, by the commands' operations."""
    async with depot(tmp_path, ONE) as place:
        station = place.station("CP-01", place.plain, ocpp_version=version, password=KEY)
        await place.online(station)
        pem = pki.ca.read_text()
        installed = await place.operate(
            "stations.install-certificate", station="CP-01", kind="csms", pem=pem
        )
        junk = await place.operate(
            "stations.install-certificate", station="CP-01", kind="csms", pem="junk"
        )
        listed = await place.operate("stations.certificates", station="CP-01")
        serial = installed[1]["installed"]["serial"]
        last = await place.operate(
            "stations.delete-certificate", station="CP-01", serial=serial
        )
        unknown = await place.operate(
            "stations.delete-certificate", station="CP-01", serial="ab"
        )
        forced = await place.operate(
            "stations.delete-certificate", station="CP-01", serial=serial, force=True
        )
        empty = await place.operate("stations.certificates", station="CP-01")

    rows = listed[1]["installed"]
    assert [(row["kind"], row["serial"]) for row in rows] == [("csms", serial)]
    assert rows[0]["not_after"]
    assert (junk[0], last[0], unknown[0], forced[0]) == (400, 400, 400, 200)
    assert "last root" in last[1]
    assert empty[1]["installed"] == []


# --- events, logs, firmware --------------------------------------------------------------


@pytest.mark.parametrize("version", VERSIONS)
async def test_security_events_are_kept_and_graded(version: str, tmp_path: Path) -> None:
    """Critical and grave ones stand out; all survive a restart."""
    async with depot(tmp_path, ONE) as place:
        station = place.station("CP-01", place.plain, ocpp_version=version, password=KEY)
        await place.online(station)
        for kind in ("InvalidTLSVersion", "FirmwareUpdated", "TamperDetectionActivated"):
            event = {"type": kind, "timestamp": "2026-01-01T00:00:00Z", "techInfo": "door"}
            await station._station.call("SecurityEventNotification", event)
        alarms = place.events("security_alarm_raised")
    async with depot(tmp_path, ONE) as place:
        _, listed = await place.operate("stations.security-events", station="CP-01")

    assert [(row["kind"], row["grade"]) for row in listed] == [
        ("TamperDetectionActivated", "alarm"),
        ("FirmwareUpdated", "critical"),
        ("InvalidTLSVersion", "note"),
    ]
    assert [item["kind"] for item in alarms] == ["TamperDetectionActivated"]


@pytest.mark.parametrize("version", VERSIONS)
async def test_logs_and_firmware_come_and_go_by_command(
    version: str, tmp_path: Path
) -> None:
    """GetLog, UpdateFirmware, SignedUpdateFirmware; progress is logged, secrets are not."""
    url = "sftp://user:hunter2@files.example/log"
    async with depot(tmp_path, ONE) as place:
        station = place.station("CP-01", place.plain, ocpp_version=version, password=KEY)
        await place.online(station)
        got = await place.operate("stations.get-log", station="CP-01", url=url)
        await until(lambda: "Uploaded" in _told(place))
        updated = await place.operate(
            "stations.update-firmware", station="CP-01", url="https://files.example/fw"
        )
        await until(lambda: "Installed" in _told(place))
        signed = await place.operate(
            "stations.update-firmware",
            station="CP-01",
            url="https://files.example/fw",
            signature="c2ln",
            certificate="-----BEGIN CERTIFICATE-----",
        )
        bad = [
            await place.operate("stations.get-log", station="CP-01", url=item)
            for item in ("file:///etc/passwd", "nonsense", "http://a b/", "ftp://")
        ]
        half = await place.operate(
            "stations.update-firmware", station="CP-01", url=url, signature="c2ln"
        )
        seen = repr(place.logs)

    assert (got[0], updated[0], signed[0], half[0]) == (200, 200, 200, 400)
    assert [item[0] for item in bad] == [400] * 4
    assert "hunter2" not in seen


def _told(place: Depot) -> list[str]:
    return [item["status"] for item in place.events("station_notified")]
