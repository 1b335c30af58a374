"""Certificates as the depot makes and checks them; files of the listener."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.x509.oid import NameOID
from hypothesis import given
from hypothesis import strategies as st

from agent.domain.errors import ConfigFault
from agent.stations.certificates import (
    Authority,
    CertificateFault,
    answer_problem,
    facts_of,
    hash_data,
    key_pem,
    make_key,
    make_request,
    names_of,
    pem_of,
    read_chain,
    read_key,
    request_problem,
    revoked_serials,
)
from agent.stations.signer import LocalSigner
from agent.stations.tls import TlsDoor, TlsFiles

NOW = datetime(2026, 6, 1, tzinfo=UTC)
CA = Authority.make("Depot CA", "Depot", NOW, 3650, bits=2048)
KEY = make_key(is_rsa=False)


def csr(name: str = "CP-01", key: object = KEY) -> str:
    return pem_of(make_request(key, name)).decode()  # type: ignore[arg-type]


def test_a_server_certificate_names_its_hosts_and_is_for_servers_only() -> None:
    """A00.FR.308: the common name is the gateway's name."""
    made = CA.issue_server(KEY, ["gw.depot.example", "10.0.0.5", "::1"], NOW, 100)

    made.verify_directly_issued_by(CA.certificate)
    facts = facts_of(made)
    assert facts.common_name == "gw.depot.example"
    assert facts.organization == "Depot"
    assert round(facts.days_left(NOW)) == 100
    assert names_of(made) == {"gw.depot.example"}
    usage = made.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert [item.dotted_string for item in usage] == ["1.3.6.1.5.5.7.3.1"]
    with pytest.raises(CertificateFault, match="no host name"):
        CA.issue_server(KEY, ["not a host"], NOW, 100)


def test_of_a_request_only_key_name_and_organization_are_taken() -> None:
    """A station cannot ask to be a CA or a gateway."""
    builder = (
        x509.CertificateSigningRequestBuilder()
        .subject_name(
            x509.Name(
                [
                    x509.NameAttribute(NameOID.COMMON_NAME, "cp-01"),
                    x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Other"),
                    x509.NameAttribute(NameOID.COUNTRY_NAME, "XX"),
                ]
            )
        )
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(
            x509.SubjectAlternativeName([x509.DNSName("gw.depot.example")]), critical=False
        )
    )
    request = pem_of(builder.sign(ec.generate_private_key(ec.SECP256R1()), hashes.SHA256()))
    made = CA.issue_station(request.decode(), ["CP-01"], NOW, 30)

    assert not made.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    assert names_of(made) == {"cp-01"}
    assert facts_of(made).organization == "Other"
    assert not made.subject.get_attributes_for_oid(NameOID.COUNTRY_NAME)


def test_nothing_outlives_its_ca() -> None:
    """A certificate that ends after its issuer is trouble on the last day."""
    short = Authority.make("Short", "", NOW, 10, bits=2048)
    made = short.issue_station(csr(), ["CP-01"], NOW, 365)

    assert made.not_valid_after_utc == short.certificate.not_valid_after_utc


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (csr("CP-02"), "not this station's"),
        (csr("\uff23P-01"), "not this station's"),
        (csr(key=make_key(is_rsa=True, bits=1024)), "weaker than 2048"),
        (csr(key=ec.generate_private_key(ec.SECP192R1())), "weaker than 224"),
        ("", "cannot be read"),
        ("-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n-----END CERTIFICATE REQUEST-----", "cannot be read"),
        ("x" * 5501, "5500"),
    ],
)  # fmt: skip
def test_a_bad_request_is_refused_with_its_reason(text: str, words: str) -> None:
    """A02.FR: identity, key strength, form."""
    found = request_problem(text, ["CP-01"])

    assert found is not None
    assert words in found
    with pytest.raises(CertificateFault):
        CA.issue_station(text, ["CP-01"], NOW, 30)


def test_a_request_must_prove_that_it_holds_the_key() -> None:
    """A signature over something else is none."""
    der = bytearray(make_request(KEY, "CP-01").public_bytes(serialization.Encoding.DER))
    at = der.index(b"CP-01")
    der[at : at + 5] = b"CP-02"
    text = x509.load_der_x509_csr(bytes(der)).public_bytes(serialization.Encoding.PEM)

    assert request_problem(text.decode(), ["CP-02"]) == (
        "the request's signature is not valid"
    )


def test_a_key_of_another_kind_is_refused() -> None:
    """OCPP knows RSA and EC."""
    key = ed25519.Ed25519PrivateKey.generate()
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "CP-01")])
    made = x509.CertificateSigningRequestBuilder().subject_name(name).sign(key, None)

    assert request_problem(pem_of(made).decode(), ["CP-01"]) == (
        "the key is neither RSA nor EC"
    )


@given(st.binary(max_size=400))
def test_no_text_makes_the_check_raise(noise: bytes) -> None:
    """A station may send what it likes."""
    good = bytearray(csr().encode())
    at = len(noise) % len(good)
    good[at : at + len(noise) // 8] = noise[: len(noise) // 8]

    for text in (noise.decode("latin-1"), good.decode("latin-1")):
        problem = request_problem(text, ["CP-01"])
        assert problem is None or problem


@pytest.mark.parametrize(
    ("chain", "words"),
    [
        (pem_of(CA.issue_station(csr(), ["CP-01"], NOW, 30)).decode(), None),
        (pem_of(CA.issue_station(csr(), ["CP-01"], NOW - timedelta(90), 30)).decode(), "expired"),
        (pem_of(CA.issue_server(KEY, ["gw"], NOW, 30)).decode(), "does not name"),
        (pem_of(CA.certificate).decode(), "not for the key"),
        ("", "no certificate"),
        ("x" * 10_001, "10000"),
    ],
)  # fmt: skip
def test_a_signers_answer_is_checked_before_it_is_sent(
    chain: str, words: str | None
) -> None:
    """The folder is written by somebody else."""
    found = answer_problem(chain, csr(), ["CP-01"], NOW)

    assert found is None if words is None else words in str(found)


def test_a_root_is_named_as_ocpp_names_it() -> None:
    """CertificateHashDataType: hashes of the issuer's name and key."""
    data = hash_data(CA.certificate, CA.certificate)
    key = CA.certificate.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.PKCS1
    )

    assert data.issuer_name_hash == (
        hashlib.sha256(CA.certificate.subject.public_bytes()).hexdigest()
    )
    assert data.issuer_key_hash == hashlib.sha256(key).hexdigest()
    assert int(data.serial_number, 16) == CA.certificate.serial_number
    assert set(data.as_json()) == {
        "hashAlgorithm", "issuerNameHash", "issuerKeyHash", "serialNumber",
    }  # fmt: skip


def test_what_is_no_certificate_key_or_list_is_a_fault_in_words() -> None:
    """Never a bug of a library."""
    locked = KEY.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(b"x"),
    )
    for call in (
        lambda: read_chain("junk"),
        lambda: read_key(b"junk"),
        lambda: read_key(locked),
        lambda: revoked_serials(b"junk"),
        lambda: Authority.read(pem_of(CA.certificate), key_pem(KEY)),
        lambda: Authority.read(pem_of(CA.issue_server(KEY, ["gw"], NOW, 9)), key_pem(KEY)),
    ):
        with pytest.raises(CertificateFault):
            call()


# --- files ----------------------------------------------------------------------------


@pytest.fixture
def pair(tmp_path: Path) -> tuple[str, str]:
    certificate, key = tmp_path / "gw.pem", tmp_path / "gw.key"
    certificate.write_bytes(pem_of(CA.issue_server(KEY, ["gw"], datetime.now(UTC), 30)))
    key.write_bytes(key_pem(KEY))
    key.chmod(0o640)
    return str(certificate), str(key)


def faults(files: TlsFiles) -> str:
    with pytest.raises(ConfigFault) as caught:
        TlsDoor.open(files)
    (problem,) = caught.value.faults
    return f"{problem.key} {problem.problem} {problem.remedy}"


def test_files_of_the_listener_are_named_when_they_are_wrong(
    pair: tuple[str, str], tmp_path: Path
) -> None:
    """Key, reason and remedy, before anything listens."""
    certificate, key = pair
    other = tmp_path / "other.key"
    other.write_bytes(key_pem(make_key(is_rsa=False)))
    other.chmod(0o600)

    assert "ocpp.tls.certificate cannot be read" in faults(
        TlsFiles(pairs=((str(tmp_path / "none"), key),))
    )
    assert "ocpp.tls.private_key does not fit" in faults(
        TlsFiles(pairs=((certificate, str(other)),))
    )
    assert "certificate_2 has the same kind" in faults(TlsFiles(pairs=(pair, pair)))
    assert "ocpp.tls.client_ca cannot be used" in faults(
        TlsFiles(pairs=(pair,), client_ca=str(tmp_path / "none"))
    )
    assert "ocpp.tls.client_crl there is no" in faults(
        TlsFiles(pairs=(pair,), client_crl=certificate)
    )
    assert len(TlsDoor.open(TlsFiles(pairs=(pair,))).facts) == 1


def test_u2_a_key_that_every_user_may_read_is_refused(pair: tuple[str, str]) -> None:
    """U2: before it is used, with the way to mend it."""
    Path(pair[1]).chmod(0o644)

    assert "chmod 0640" in faults(TlsFiles(pairs=(pair,)))


def test_a_key_with_a_pass_phrase_is_refused_and_nobody_is_asked(
    pair: tuple[str, str],
) -> None:
    """A daemon has no terminal."""
    Path(pair[1]).write_bytes(
        KEY.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"x"),
        )
    )

    assert "pass phrase" in faults(TlsFiles(pairs=(pair,)))


def test_a_ca_that_cannot_sign_is_refused_at_the_start(pair: tuple[str, str]) -> None:
    """A server's certificate is no CA."""
    with pytest.raises(ConfigFault, match=r"ocpp\.pki\.ca_key"):
        LocalSigner.open(*pair, days=30)
    with pytest.raises(ConfigFault, match="No such file"):
        LocalSigner.open("/none", "/none", days=30)
