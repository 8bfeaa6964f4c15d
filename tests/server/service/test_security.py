"""Authentication, authorisation, and TLS of the service."""

import datetime
import hashlib
import ipaddress
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from disinherit.common.errors import InputError, NotKnownError
from disinherit.server.service.listening import TlsFiles, listen
from disinherit.server.service.principals import Principal, Role, Token, TokenBook
from disinherit.v1 import coordinator_pb2 as pb
from tests.support.campaign import build, make_request
from tests.support.service import CALLS, TOKENS, Client, Running, secret, serving

Code = grpc.StatusCode
MESSAGES = {
    "RegisterModel": pb.RegisterModelRequest(),
    "WithdrawModel": pb.WithdrawModelRequest(id="x"),
    "ListModels": pb.ListModelsRequest(),
    "GetGraph": pb.GetGraphRequest(),
    "PlanRequest": pb.PlanRequestRequest(request=make_request()),
    "SubmitRequest": pb.SubmitRequestRequest(request=make_request()),
    "ResumeRequest": pb.ResumeRequestRequest(id="x"),
    "ListRequests": pb.ListRequestsRequest(),
    "GetCoverage": pb.GetCoverageRequest(id="x"),
    "GetRequest": pb.GetRequestRequest(id="x"),
    "WatchRequest": pb.GetRequestRequest(id="x"),
    "RollBackRequest": pb.RollBackRequestRequest(id="x"),
    "ExportAudit": pb.ExportAuditRequest(request_id="x"),
    "GetSigningKeys": pb.GetSigningKeysRequest(),
    "GetReport": pb.GetReportRequest(id="x"),
    "GetAttestation": pb.GetAttestationRequest(id="x"),
    "ListOwners": pb.ListOwnersRequest(),
    "WatchFleet": pb.WatchFleetRequest(),
    "WhoAmI": pb.WhoAmIRequest(),
    "GetSystem": pb.GetSystemRequest(),
}
LOOK = {"ListModels", "GetGraph", "GetRequest", "ListRequests", "WatchRequest", "GetCoverage"}
LOOK |= {"GetReport", "GetAttestation", "GetSigningKeys", "ListOwners", "WatchFleet", "WhoAmI"}
KEEP = {"GetSystem", "ExportAudit"}
STEER = {"RegisterModel", "RegisterModels", "WithdrawModel", "PlanRequest"}
STEER |= {"SubmitRequest", "PauseRequest", "ResumeRequest", "ResendRequest", "AbortRequest"}
MAY = {
    "viewer": LOOK,
    "operator": LOOK | STEER | KEEP,
    "approver": LOOK
    | {"ApproveRequest", "ResumeRequest", "AbortRequest", "RollBackRequest"}
    | KEEP,
    "anna": {"RegisterModel", "RegisterModels", "WithdrawModel", "ListModels", "WhoAmI"},
    "ben": {"RegisterModel", "RegisterModels", "WithdrawModel", "ListModels", "WhoAmI"},
}


def code_of(client: Client, call: str) -> grpc.StatusCode:
    return answer_of(client, call)[0]


def answer_of(client: Client, call: str) -> tuple[grpc.StatusCode, str]:
    """The status of a call, and what it says of it."""
    message = MESSAGES.get(call, pb.ControlRequest(id="x"))
    try:
        if call == "RegisterModels":
            list(client.RegisterModels(iter([pb.RegisterModelsRequest()])))
            return Code.OK, ""
        answer = getattr(client, call)(message)
        if call in ("WatchRequest", "ExportAudit", "GetAttestation", "GetGraph"):
            list(answer)
        elif call == "WatchFleet":  # which does not end
            next(answer)
    except grpc.RpcError as error:
        code = error.code()
        assert isinstance(code, Code)
        return code, str(error.details())
    return Code.OK, ""


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with serving(tmp_path_factory.mktemp("empty")) as running:
        yield running


def test_every_call_of_the_schema_is_tried_here() -> None:
    service = pb.DESCRIPTOR.services_by_name["Coordinator"]
    assert {method.name for method in service.methods} == CALLS


@pytest.mark.parametrize("who", TOKENS)
def test_a_role_may_make_exactly_its_calls(who: str, running: Running) -> None:
    client = running.client(who)
    denied = {call for call in CALLS if code_of(client, call) is Code.PERMISSION_DENIED}
    assert denied == CALLS - MAY[who]


@pytest.mark.parametrize("who", TOKENS)
def test_a_refusal_says_who_may_do_what_and_names_no_call(who: str, running: Running) -> None:
    for call in CALLS - MAY[who]:
        _, said = answer_of(running.client(who), call)
        assert said.startswith("Expected the token of a")
        assert "do this" not in said  # every call has words of its own
        assert call not in said


def test_an_operator_who_approves_reads_whose_token_it_takes(running: Running) -> None:
    assert answer_of(running.client("operator"), "ApproveRequest")[1] == (
        "Expected the token of an approver to approve a request, but that of 'operator' is of an "
        "operator."
    )


@pytest.mark.parametrize("token", ["", "wrong", secret("viewer")[:-1], secret("viewer") + "x"])
def test_a_call_without_a_valid_token_is_refused(token: str, running: Running) -> None:
    client = Client(running.channel, token)
    assert {code_of(client, call) for call in CALLS} == {Code.UNAUTHENTICATED}


def test_a_token_in_another_scheme_is_refused(running: Running) -> None:
    call = running.channel.unary_unary("/disinherit.v1.Coordinator/ListModels")
    metadata = [("authorization", f"Basic {secret('viewer')}")]
    with pytest.raises(grpc.RpcError, match="UNAUTHENTICATED"):
        call(b"", metadata=metadata, timeout=10)


def test_a_token_expires() -> None:
    now = [100.0]
    digest = hashlib.sha256(b"t").hexdigest()
    book = TokenBook([Token(digest, Principal("ci", Role.VIEWER), 200.0)], lambda: now[0])
    assert book.principal("t").name == "ci"
    now[0] = 200.0
    with pytest.raises(NotKnownError, match="'ci' expired"):
        book.principal("t")


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("[[token]\n", "TOML|token"),
        ("x = 1", "token"),
        ("[[tokens]]", "tokens"),
        ('[[token]]\nname = "a"\nrole = "viewer"', "sha256"),
        ('[[token]]\nname = "a"\nrole = "viewer"\nsha256 = "AB"', "64 lower-case"),
        ('[[token]]\nname = "a"\nrole = "root"\nsha256 = "{}"', "'root'"),
        ('[[token]]\nname = "a"\nrole = "owner"\nsha256 = "{}"', "'owner'"),
        ('[[token]]\nname = "a"\nrole = "owner:a/b"\nsha256 = "{}"', "a/b"),
        ('[[token]]\nname = "a"\nrole = "viewer:x"\nsha256 = "{}"', "viewer:x"),
        ('[[token]]\nname = "a"\nrole = "viewer"\nsha256 = "{}"\nexpires = 2027-01-01', "zone"),
        ('[[token]]\nname = "a"\nrole = "viewer"\nsha256 = "{}"\nends = 1', r"\['a'\]\.ends"),
    ],
)
def test_a_malformed_token_file_is_refused(text: str, named: str, tmp_path: Path) -> None:
    path = tmp_path / "tokens.toml"
    path.write_text(text.replace("{}", "ab" * 32))
    with pytest.raises(InputError, match=named) as caught:
        TokenBook.read(path)
    assert "tokens.toml" in str(caught.value)


def test_a_token_removed_from_the_file_is_refused_from_then_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with serving(tmp_path) as running:
        client = running.client("viewer")
        assert code_of(client, "ListRequests") is Code.OK
        tokens = tmp_path / "tokens.toml"
        kept = tokens.read_text()
        tokens.write_text("half a line, as of an edi")
        assert code_of(client, "ListRequests") is Code.OK
        assert "the former tokens stay valid" in caplog.text
        tables = kept.split("[[token]]")
        others = [table for table in tables if 'name = "viewer"' not in table]
        tokens.write_text("[[token]]".join(others))
        assert code_of(client, "ListRequests") is Code.UNAUTHENTICATED
        assert code_of(running.client("operator"), "ListRequests") is Code.OK
        tokens.write_text(kept)
        assert code_of(client, "ListRequests") is Code.OK


@pytest.mark.parametrize("emptied", ["", "# no token any more\n", "token = []\n", None])
def test_the_last_token_can_be_removed_too(
    emptied: str | None, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with serving(tmp_path) as running:
        client = running.client("viewer")
        assert code_of(client, "ListRequests") is Code.OK
        tokens = tmp_path / "tokens.toml"
        kept = tokens.read_text()
        if emptied is None:
            tokens.unlink()
        else:
            tokens.write_text(emptied)
        assert code_of(client, "ListRequests") is Code.UNAUTHENTICATED
        assert ("all tokens are refused" in caplog.text) is (emptied is None)
        tokens.write_text(kept)
        assert code_of(client, "ListRequests") is Code.OK


TWO = (
    '[[token]]\nname = "a"\nrole = "operator"\nsha256 = "{}"\n'
    '[[token]]\nname = "b"\nrole = "approver"\nsha256 = "{other}"\n'
)


def test_tokens_need_different_secrets_and_names(tmp_path: Path) -> None:
    path = tmp_path / "tokens.toml"
    path.write_text(TWO.replace("{}", "ab" * 32).replace("{other}", "cd" * 32))
    assert TokenBook.read(path)
    path.write_text(TWO.replace("{}", "ab" * 32).replace("{other}", "ab" * 32))
    with pytest.raises(InputError, match="'a' and 'b' have the same sha256"):
        TokenBook.read(path)
    path.write_text(
        TWO.replace("{}", "ab" * 32).replace("{other}", "cd" * 32).replace('"b"', '"a"')
    )
    with pytest.raises(InputError, match="two are named 'a'"):
        TokenBook.read(path)


def test_a_watch_ends_when_its_token_is_removed(tmp_path: Path) -> None:
    build(tmp_path)
    with serving(tmp_path) as running:
        operator = running.client("operator")
        operator.SubmitRequest(pb.SubmitRequestRequest(request=make_request()))
        watched = running.client("viewer").WatchRequest(pb.GetRequestRequest(id="q"))
        next(watched)
        tokens = tmp_path / "tokens.toml"
        tables = tokens.read_text().split("[[token]]")
        others = [table for table in tables if 'name = "viewer"' not in table]
        tokens.write_text("[[token]]".join(others))
        operator.AbortRequest(pb.ControlRequest(id="q"))
        with pytest.raises(grpc.RpcError) as raised:
            next(watched)
        assert raised.value.code() is Code.UNAUTHENTICATED


def test_the_secrets_are_not_in_the_token_file(running: Running) -> None:
    text = (running.world.root / "tokens.toml").read_text()
    assert not any(secret(who) in text for who in TOKENS)


# The channel


@pytest.mark.parametrize(
    ("address", "named"),
    [
        ("0.0.0.0:0", "loopback"),
        ("example.org:50051", "loopback"),
        ("127.0.0.1", "host:port"),
        ("127.0.0.1:many", "host:port"),
        (":50051", "host:port"),
    ],
)
def test_plaintext_is_allowed_only_on_loopback(address: str, named: str) -> None:
    with pytest.raises(InputError, match=named):
        listen(address, None, [])


def test_a_port_in_use_is_named_in_one_line(
    running: Running, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(InputError, match=f"another program listens at '{running.address}'"):
        listen(running.address, None, [])
    assert capfd.readouterr().err == ""  # and gRPC says nothing of its own


class Authority:
    """Makes certificates for one test."""

    def __init__(self, folder: Path, name: str) -> None:
        self._folder = folder
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        self.path = folder / f"{name}.pem"
        constraints = x509.BasicConstraints(ca=True, path_length=None)
        self.path.write_bytes(self._sign(self._name, self._key, constraints))

    def issue(self, name: str) -> tuple[Path, Path]:
        """Paths of a new certificate for 127.0.0.1 and its key."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        address = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
        certificate = self._sign(subject, key, x509.SubjectAlternativeName([address]))
        paths = self._folder / f"{name}.pem", self._folder / f"{name}.key"
        paths[0].write_bytes(certificate)
        paths[1].write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        return paths

    def _sign(
        self, subject: x509.Name, key: ec.EllipticCurvePrivateKey, extension: x509.ExtensionType
    ) -> bytes:
        now = datetime.datetime.now(datetime.UTC)
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(hours=1))
            .not_valid_after(now + datetime.timedelta(hours=1))
            .add_extension(extension, critical=False)
            .sign(self._key, hashes.SHA256())
            .public_bytes(Encoding.PEM)
        )


def call_over(address: str, credentials: Any) -> grpc.StatusCode:
    with grpc.secure_channel(address, credentials) as channel:
        return code_of(Client(channel, secret("viewer")), "ListModels")


def test_mutual_tls(tmp_path: Path) -> None:
    ours, theirs = Authority(tmp_path, "ours"), Authority(tmp_path, "theirs")
    certificate, key = ours.issue("server")

    def credentials(client: tuple[Path, Path] | None, authority: Authority = ours) -> Any:
        chain, private = (path.read_bytes() for path in client) if client else (None, None)
        return grpc.ssl_channel_credentials(authority.path.read_bytes(), private, chain)

    good = credentials(ours.issue("good"))
    with serving(
        tmp_path,
        TlsFiles(certificate, key, ours.path),
        channel=lambda address: grpc.secure_channel(address, good),
    ) as running:
        assert code_of(running.client("viewer"), "ListModels") is Code.OK
        assert code_of(Client(running.channel, ""), "ListModels") is Code.UNAUTHENTICATED
        assert call_over(running.address, credentials(None)) is Code.UNAVAILABLE
        assert call_over(running.address, credentials(theirs.issue("bad"))) is Code.UNAVAILABLE
        mistaken = credentials(ours.issue("late"), theirs)  # does not know the server's authority
        assert call_over(running.address, mistaken) is Code.UNAVAILABLE
        with grpc.insecure_channel(running.address) as channel:
            client = Client(channel, secret("viewer"))
            assert code_of(client, "ListModels") is Code.UNAVAILABLE


def test_malformed_tls_files_are_named(tmp_path: Path) -> None:
    authority = Authority(tmp_path, "ours")
    certificate, key = authority.issue("server")
    (tmp_path / "empty").write_bytes(b"")
    with pytest.raises(InputError, match="a key in PEM in '.*empty'"):
        listen("127.0.0.1:0", TlsFiles(certificate, tmp_path / "empty"), [])
    with pytest.raises(InputError, match="certificate in '.*gone'"):
        listen("127.0.0.1:0", TlsFiles(tmp_path / "gone", key), [])
    (tmp_path / "odd").write_bytes(
        b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"
    )
    with pytest.raises(InputError, match="address to listen at"):
        listen("127.0.0.1:0", TlsFiles(certificate, tmp_path / "odd"), [])
