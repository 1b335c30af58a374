"""Security profiles 1 to 3 over real TLS: who gets in, who does not, and for how long."""

from __future__ import annotations

import asyncio
import ssl
import warnings
from datetime import timedelta
from pathlib import Path
from typing import Any

import orjson
import pytest
import websockets
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization

from agent.stations.certificates import read_chain
from tests.support.secure_depot import (
    KEY,
    NOW,
    VERSIONS,
    Pki,
    basic,
    depot,
    expired,
    until,
)


@pytest.fixture(scope="module")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Pki:
    return Pki(tmp_path_factory.mktemp("pki"))


def row(name: str = "CP-01", profile: int = 1, **more: Any) -> dict[str, Any]:
    password = {"password": KEY} if profile in (1, 2) else {}
    return {"id": name, "security_profile": profile} | password | more


# --- in -----------------------------------------------------------------------------


@pytest.mark.parametrize("version", VERSIONS)
async def test_each_profile_lets_its_station_in(
    version: str, pki: Pki, tmp_path: Path
) -> None:
    """Boot, set-up and all, over each kind of connection, in one depot."""
    rows = [row("CP-01", 1), row("CP-02", 2), row("CP-03", 3)]
    async with depot(tmp_path, rows, tls=pki.tls()) as place:
        stations = [
            place.station("CP-01", place.plain, ocpp_version=version, password=KEY),
            place.station(
                "CP-02",
                place.secure,
                ocpp_version=version,
                password=KEY,
                ssl_context=pki.context(),
            ),
            place.station(
                "CP-03",
                place.secure,
                ocpp_version=version,
                ssl_context=pki.context(pki.station("CP-03")),
            ),
        ]
        for station in stations:
            await place.online(station)
        proved = {
            item["station_id"]: item["security_profile"]
            for item in place.events("station_connected")
        }

    assert proved == {"CP-01": 1, "CP-02": 2, "CP-03": 3}


@pytest.mark.parametrize("kind", ["RSA", "ECDSA"])
async def test_both_certificates_are_offered_by_what_the_station_can(
    kind: str, pki: Pki, tmp_path: Path
) -> None:
    """A00.FR.317: suites of both kinds, with a certificate for each."""
    context = pki.context()
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(f"ECDHE-{kind}-AES128-GCM-SHA256")
    async with (
        depot(tmp_path, [row(profile=2)], tls=pki.tls()) as place,
        websockets.connect(
            place.secure + "CP-01",
            ssl=context,
            subprotocols=["ocpp1.6"],  # type: ignore[list-item]
            additional_headers=basic("CP-01", KEY),
            proxy=None,
        ) as socket,
    ):
        used = socket.transport.get_extra_info("cipher")[0]

    assert used == f"ECDHE-{kind}-AES128-GCM-SHA256"


async def test_suites_without_forward_secrecy_are_for_those_who_ask_for_them(
    pki: Pki, tmp_path: Path
) -> None:
    """`static_rsa` is off unless a station knows nothing better."""
    context = pki.context()
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers("AES128-GCM-SHA256")
    found = []
    for static_rsa in (False, True):
        tls = pki.tls(static_rsa=static_rsa)
        async with depot(tmp_path, [row(profile=2)], tls=tls) as place:
            found.append(
                await place.knock(
                    "CP-01", place.secure, headers=basic("CP-01", KEY), ssl=context
                )
            )

    assert found == [0, 101]


# --- out ----------------------------------------------------------------------------


def _old_tls(pki: Pki, version: ssl.TLSVersion) -> ssl.SSLContext:
    context = pki.context()
    context.set_ciphers("ALL:@SECLEVEL=0")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        context.minimum_version = ssl.TLSVersion.TLSv1
        context.maximum_version = version
    return context


async def test_a11_what_is_no_tls_1_2_is_refused(pki: Pki, tmp_path: Path) -> None:
    """A11: TLS 1.1 and below, whatever suites are offered."""
    async with depot(tmp_path, [row(profile=2)], tls=pki.tls()) as place:
        for version in (ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1):
            context = _old_tls(pki, version)
            found = await place.knock(
                "CP-01", place.secure, headers=basic("CP-01", KEY), ssl=context
            )
            assert found == 0
        told = {item["reason"] for item in place.events("tls_handshake_failed")}
        good = await place.knock(
            "CP-01", place.secure, headers=basic("CP-01", KEY), ssl=pki.context()
        )

    assert good == 101
    assert told == {"unsupported_protocol"}


async def test_a11_certificates_that_are_not_the_stations_open_nothing(
    pki: Pki, tmp_path: Path
) -> None:
    """A11: none, another CA's, one that has ended, another station's."""
    (tmp_path / "foreign").mkdir()
    foreign = Pki(tmp_path / "foreign")
    theirs = ssl.create_default_context(cafile=str(pki.ca))
    theirs.load_cert_chain(*foreign.station("CP-01"))
    rows = [row(profile=3), row("CP-02", 3), row("CP-03", 0)]
    async with depot(tmp_path, rows, tls=pki.tls()) as place:

        async def knock(name: str, context: ssl.SSLContext) -> int:
            return await place.knock(name, place.secure, ssl=context)

        own = pki.context(pki.station("CP-01"))
        old = pki.context(pki.station("CP-01", days=1, began=expired()))
        found = {
            "own": await knock("CP-01", own),
            "none": await knock("CP-01", pki.context()),
            "foreign CA": await knock("CP-01", theirs),
            "ended": await knock("CP-01", old),
            "another's": await knock("CP-02", own),
            "another's, at one without credentials": await knock("CP-03", own),
        }
        told = {item["reason"] for item in place.events("tls_handshake_failed")}

    assert found == {
        "own": 101,
        "none": 403,
        "foreign CA": 0,
        "ended": 0,
        "another's": 403,
        "another's, at one without credentials": 403,
    }
    assert "certificate has expired" in told
    assert len(told) == 2


async def test_a_certificate_may_name_a_station_by_its_certificate_name_or_serial(
    pki: Pki, tmp_path: Path
) -> None:
    """A00.FR.405: the standard's common name is the serial number."""
    rows = [
        row("CP-01", 3, certificate_name="box-1.depot.example"),
        row("CP-02", 3, serial_number="SN-7"),
    ]
    async with depot(tmp_path, rows, tls=pki.tls()) as place:

        async def knock(name: str, common_name: str) -> int:
            context = pki.context(pki.station(common_name))
            return await place.knock(name, place.secure, ssl=context)

        found = [
            await knock("CP-01", "box-1.depot.example"),
            await knock("CP-01", "CP-01"),
            await knock("CP-02", "SN-7"),
            await knock("CP-02", "CP-02"),
        ]

    assert found == [101, 403, 101, 101]


@pytest.mark.parametrize("profile", [2, 3])
async def test_a6_a_station_of_profile_2_or_3_is_refused_without_tls(
    profile: int, pki: Pki, tmp_path: Path
) -> None:
    """SEC-04: not even with the right password."""
    async with depot(tmp_path, [row(profile=profile)], tls=pki.tls()) as place:
        bare = await place.knock("CP-01", place.plain)
        with_password = await place.knock("CP-01", place.plain, headers=basic("CP-01", KEY))
        told = place.events("station_refused")

    assert (bare, with_password) == (403, 401)
    assert all("needs TLS" in item["reason"] for item in told)


@pytest.mark.parametrize("version", VERSIONS)
async def test_another_device_under_a_stations_id_is_sent_away(
    version: str, tmp_path: Path
) -> None:
    """B01.FR.12: the serial number of the boot must be the one that is expected."""
    rows = [row(serial_number="SN-1"), row("CP-02", serial_number="SN-2")]
    async with depot(tmp_path, rows) as place:
        place.station(
            "CP-01", place.plain, ocpp_version=version, password=KEY, serial="SN-9"
        )
        good = place.station(
            "CP-02", place.plain, ocpp_version=version, password=KEY, serial="sn-2"
        )
        await place.online(good)
        await until(lambda: place.events("station_serial_refused"))
        await until(
            lambda: any(
                item["station_id"] == "CP-01"
                for item in place.events("station_disconnected")
            )
        )
        booted = place.daemon.depot.states.get("CP-01")  # type: ignore[call-overload]

    assert booted is None or not booted.serial


# --- profiles never fall ---------------------------------------------------------------


async def test_a6_a_profile_that_was_proved_is_the_least_from_then_on(
    pki: Pki, tmp_path: Path
) -> None:
    """A05.FR.09, over a restart too; the configuration alone lets it fall."""
    own = pki.context(pki.station("CP-01"))
    header = basic("CP-01", KEY)
    async with depot(tmp_path, [row(profile=1)], tls=pki.tls()) as place:

        async def tries() -> list[int]:
            return [
                await place.knock("CP-01", place.plain, headers=header),
                await place.knock("CP-01", place.secure, headers=header, ssl=pki.context()),
            ]

        before = await tries()
        await until(lambda: place.events("security_profile_raised"))
        after = await tries()
        certain = await place.knock("CP-01", place.secure, ssl=own)
        await until(lambda: len(place.events("security_profile_raised")) == 2)
    async with depot(tmp_path, [row(profile=1)], tls=pki.tls()) as place:
        restarted = await tries()
    loose = row(profile=1, allow_lower_profile=True)
    async with depot(tmp_path, [loose], tls=pki.tls()) as place:
        allowed = [await place.knock("CP-01", place.plain, headers=header)]
        await until(lambda: place.events("security_profile_lowered"))
        allowed.append(await place.knock("CP-01", place.plain, headers=header))

    assert before == [101, 101]
    assert after == [401, 101]
    assert certain == 101
    assert restarted == [401, 401]
    assert allowed == [101, 101]


async def test_a_connection_that_proved_nothing_raises_nothing(
    pki: Pki, tmp_path: Path
) -> None:
    """Else anybody in the LAN could lock out a station that has no credentials."""
    async with depot(tmp_path, [row(profile=0)], tls=pki.tls()) as place:
        over_tls = await place.knock("CP-01", place.secure, ssl=pki.context())
        plain = await place.knock("CP-01", place.plain)

    assert (over_tls, plain) == (101, 101)


# --- reload -----------------------------------------------------------------------------


def _toml(file: Path, pki: Pki, name: str, folder: Path, stations: str, **tls: str) -> None:
    lines = [
        f"{key} = {orjson.dumps(value).decode()}"
        for key, value in pki.tls(name, **tls).items()
    ]
    file.write_text(
        "[site]\ncap_kw = 400\n[ocpp]\nhost = '127.0.0.1'\nport = 0\n[ocpp.tls]\n"
        + "\n".join(lines)
        + f"\n[store]\npath = '{folder}/agent.db'\n[web]\nport = 0\n{stations}"
    )


STATIONS = f"""
[[stations]]
id = "CP-01"
security_profile = 2
password = "{KEY}"
[[stations]]
id = "CP-02"
security_profile = 3
"""


async def _serial_seen(place: Any, pki: Pki) -> int:
    reader, writer = await asyncio.open_connection(
        "localhost", place.daemon.tls_port, ssl=pki.context()
    )
    der = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    writer.close()
    del reader
    return x509.load_der_x509_certificate(der).serial_number


async def test_new_certificates_are_served_after_a_reload_and_no_link_drops(
    pki: Pki, tmp_path: Path
) -> None:
    """Renewal is a reload; broken files are refused whole."""
    config = tmp_path / "agent.toml"
    pki.server("renewed")
    _toml(config, pki, "server", tmp_path, STATIONS)
    async with depot(tmp_path, [], config_path=config) as place:
        station = place.station(
            "CP-01", place.secure, password=KEY, ssl_context=pki.context()
        )
        await place.online(station)
        before = await _serial_seen(place, pki)
        _toml(config, pki, "renewed", tmp_path, STATIONS)
        place.daemon.reload()
        after = await _serial_seen(place, pki)
        (tmp_path / "torn.pem").write_text("-----BEGIN CERTIFICATE-----\nMIIB")
        _toml(
            config,
            pki,
            "renewed",
            tmp_path,
            STATIONS,
            certificate=str(tmp_path / "torn.pem"),
        )
        place.daemon.reload()
        still = await _serial_seen(place, pki)
        refused = place.events("config_refused")
        links = len(place.events("station_connected"))

    wanted = read_chain((pki.folder / "renewed-ecdsa.pem").read_bytes())[0].serial_number
    assert before != after == still == wanted
    assert "ocpp.tls.certificate" in refused[0]["reason"]
    assert links == 1


async def test_a10_what_a_reload_takes_back_ends_within_seconds(
    pki: Pki, tmp_path: Path
) -> None:
    """A10: another password, and a certificate on the revocation list."""
    config = tmp_path / "agent.toml"
    pair = pki.station("CP-02")
    crl = tmp_path / "revoked.pem"

    def revoke(*serials: int) -> None:
        builder = (
            x509.CertificateRevocationListBuilder()
            .issuer_name(pki.authority.certificate.subject)
            .last_update(NOW)
            .next_update(NOW + timedelta(days=1))
        )
        for serial in serials:
            gone = x509.RevokedCertificateBuilder().serial_number(serial)
            builder = builder.add_revoked_certificate(gone.revocation_date(NOW).build())
        made = builder.sign(pki.authority.key, hashes.SHA256())
        crl.write_bytes(made.public_bytes(serialization.Encoding.PEM))

    revoke()
    _toml(config, pki, "server", tmp_path, STATIONS, client_crl=str(crl))
    async with depot(tmp_path, [], config_path=config) as place:
        first = place.station(
            "CP-01", place.secure, password=KEY, ssl_context=pki.context()
        )
        second = place.station("CP-02", place.secure, ssl_context=pki.context(pair))
        await place.online(first)
        await place.online(second)
        links = place.daemon.server.links
        place.daemon.reload()
        await until(lambda: len(place.events("config_reloaded")) == 1)
        await asyncio.sleep(0.05)
        kept = len(links)

        revoke(read_chain(pair[0].read_bytes())[0].serial_number)
        text = STATIONS.replace(KEY, "f" * 40)
        _toml(config, pki, "server", tmp_path, text, client_crl=str(crl))
        place.daemon.reload()
        await until(lambda: not links, 5.0)
        reasons = {
            item["station_id"]: item["reason"]
            for item in place.events("link_closed_by_agent")
        }
        old = await place.knock(
            "CP-01", place.secure, headers=basic("CP-01", KEY), ssl=pki.context()
        )

    assert kept == 2
    assert "credentials" in reasons["CP-01"]
    assert "revoked" in reasons["CP-02"]
    assert old == 401


# --- dates ------------------------------------------------------------------------------


async def test_the_gateways_own_certificates_are_watched(pki: Pki, tmp_path: Path) -> None:
    """Within 30 days a warning, within 7 an alarm; the days are a metric."""
    pki.server("short", days=20)
    async with depot(tmp_path, [row(profile=2)], tls=pki.tls("short")) as place:
        await until(lambda: len(place.events("certificate_expiring")) == 2)
        metrics = place.daemon.metrics().decode()
    pki.server("shorter", days=3)
    async with depot(tmp_path, [row(profile=2)], tls=pki.tls("shorter")) as place:
        await until(lambda: len(place.events("certificate_expiring_soon")) == 2)

    assert 'certificate_days_left{certificate="server-rsa"} 19.' in metrics
    assert 'certificate_days_left{certificate="server-ecdsa"} 19.' in metrics


@pytest.mark.parametrize("version", VERSIONS)
async def test_a_station_whose_certificate_ends_soon_is_asked_to_renew_once_a_day(
    version: str, pki: Pki, tmp_path: Path
) -> None:
    """The end is read from the certificate that its link was opened with."""
    signer = {"ca_certificate": str(pki.ca), "ca_key": str(pki.ca_key)}
    async with depot(tmp_path, [row(profile=3)], tls=pki.tls(), pki=signer) as place:
        station = place.station(
            "CP-01",
            place.secure,
            ocpp_version=version,
            ssl_context=pki.context(pki.station("CP-01", days=10)),
        )
        await place.online(station)
        part: Any = next(
            item for item in place.daemon.parts if type(item).__name__ == "SecurityPart"
        )
        await part._certificates.check()
        await until(lambda: place.events("certificate_accepted"))
        await part._certificates.check()
        asked = place.events("certificate_renewal_asked")
        warned = place.events("certificate_expiring")

    assert len(asked) == 1
    assert {item["certificate"] for item in warned} == {"station"}
