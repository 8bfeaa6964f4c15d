"""Identity of an agent: a key that never leaves the device, and its certificate."""

import hashlib
import logging
import time
from dataclasses import dataclass
from pathlib import Path

import grpc
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import NameOID

from disinherit.client.agent.config import AgentConfig
from disinherit.client.agent.pacing import backoff
from disinherit.common.connecting import find_cause
from disinherit.common.errors import (
    CampaignError,
    InputError,
    NotKnownError,
    StoreError,
    UnreachableError,
)
from disinherit.common.files import write_atomic, write_private
from disinherit.v1 import agents_pb2 as pb
from disinherit.v1.agents_pb2_grpc import AgentsStub

_ENROL_SECONDS = 60.0
_AGAIN_SECONDS = 60.0
_LONGEST_PAUSE = 3.0
_OPTIONS = (  # our own pauses decide; gRPC's must not add to them
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1_000),
)

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Identity:
    """The credentials of an agent, all PEM.

    Attributes:
        key: the agent's private key.
        certificate: its certificate from the coordinator.
        ca: certificate of the authority that certifies the coordinator.
    """

    key: bytes
    certificate: bytes
    ca: bytes

    def credentials(self) -> grpc.ChannelCredentials:
        """Return the credentials for gRPC."""
        return grpc.ssl_channel_credentials(self.ca, self.key, self.certificate)


def load_identity(config: AgentConfig) -> Identity:
    """Return the identity stored by `enrol`.

    Raises:
        InputError: if the agent has not enrolled yet, or the authority's certificate is missing.
    """
    try:
        key = _key_path(config).read_bytes()
        certificate = _certificate_path(config).read_bytes()
    except OSError as error:
        raise InputError(
            f"Expected an agent that has enrolled, but: {error}. Ask the coordinator's operator "
            "for a token and run: disinherit agent --config FILE --enrol TOKEN."
        ) from error
    return Identity(key, certificate, _read_ca(config))


def enrol(config: AgentConfig, token: str) -> Identity:
    """Make a key, have it certified, and store both.

    The key of an earlier attempt is used again.  So a lost answer can be requested again with the
    same token.  While the coordinator cannot be reached, such as while it is started again, it is
    tried again for up to a minute.

    Args:
        config: the agent's configuration.
        token: token from the coordinator's operator; valid for one key.

    Raises:
        InputError: if the configuration names no server for enrolment, the coordinator refuses the
            token, or it belongs to another owner.
        CampaignError: if the coordinator cannot be reached in time.
        StoreError: if the state folder cannot be written to.
    """
    if not config.enrol_server:
        raise InputError("Expected enrol_server in the configuration, to enrol at, but got none.")
    ca = _read_ca(config)
    key = _own_key(config)
    request = pb.EnrolRequest(token=token, certificate_request=_request(key, config.owner))
    credentials = grpc.ssl_channel_credentials(ca)
    with grpc.secure_channel(config.enrol_server, credentials, _OPTIONS) as channel:
        answer = _answer(AgentsStub(channel), request, config)
    if answer.owner != config.owner:
        raise InputError(
            f"Expected a token for owner {config.owner!r}, but got one for {answer.owner!r}. "
            "Correct `owner` in the configuration, or ask for another token."
        )
    write_atomic(_certificate_path(config), answer.certificate)
    return Identity(key, answer.certificate, ca)


def check_access(config: AgentConfig, identity: Identity, seconds: float) -> None:
    """Ask the coordinator whether it accepts the agent's certificate; an agent that runs stays.

    Args:
        config: the agent's configuration.
        identity: its stored credentials.
        seconds: longest wait for the answer.

    Raises:
        NotKnownError: if the coordinator refuses the certificate.
        UnreachableError: if it does not answer.
    """
    credentials = identity.credentials()
    with grpc.secure_channel(config.server, credentials, _OPTIONS) as channel:
        try:
            for _ in AgentsStub(channel).Fetch(pb.FetchRequest(), timeout=seconds):
                pass
        except grpc.RpcError as error:
            if error.code() is grpc.StatusCode.NOT_FOUND:  # from a release that does not know this
                return
            if error.code() is grpc.StatusCode.UNAUTHENTICATED:
                raise NotKnownError(str(error.details())) from error
            raise UnreachableError(
                f"Expected an answer of {config.server}, but {_failure(error)}."
            ) from error


def _answer(stub: AgentsStub, request: pb.EnrolRequest, config: AgentConfig) -> pb.EnrolResponse:
    """Return the coordinator's answer, tried again while there is no connection to it."""
    deadline = time.monotonic() + _AGAIN_SECONDS
    failures = 0
    while True:
        try:
            return stub.Enrol(request, timeout=_ENROL_SECONDS, wait_for_ready=False)
        except grpc.RpcError as error:
            pause = min(backoff(failures), _LONGEST_PAUSE)
            left = deadline - time.monotonic() - pause
            if error.code() is not grpc.StatusCode.UNAVAILABLE or left <= 0:
                raise _refusal(error, config) from error
            if not failures:
                why = find_cause(str(error.details()))
                _log.warning("Not enrolled yet, trying for %.0f s: %s", left, why)
            failures += 1
            time.sleep(pause)


def _refusal(error: grpc.RpcError, config: AgentConfig) -> Exception:
    refused = (
        grpc.StatusCode.UNAUTHENTICATED,
        grpc.StatusCode.INVALID_ARGUMENT,
        grpc.StatusCode.PERMISSION_DENIED,
    )
    if error.code() in refused:
        return InputError(f"The coordinator refused to enrol this agent: {error.details()}")
    return CampaignError(
        f"Expected to enrol at {config.enrol_server}, but {_failure(error)}. Check `enrol_server` "
        "and `ca` in the configuration, and run the same command again."
    )


def _failure(error: grpc.RpcError) -> str:
    """Return why a coordinator did not enrol an agent, without gRPC's words."""
    if error.code() is grpc.StatusCode.UNAVAILABLE:
        return find_cause(str(error.details()))
    if error.code() is grpc.StatusCode.DEADLINE_EXCEEDED:
        return "it did not answer in time"
    if error.code() is grpc.StatusCode.UNIMPLEMENTED:
        return "what listens there serves no agents"
    return "it failed there: see the coordinator's log"


def _read_ca(config: AgentConfig) -> bytes:
    try:
        return config.ca.read_bytes()
    except OSError as error:
        raise InputError(
            f"Expected the certificate of the fleet's authority at {config.ca}, but: "
            f"{error.strerror}. Copy the coordinator's ca.pem there."
        ) from error


def _own_key(config: AgentConfig) -> bytes:
    """Return the agent's key, created on first use."""
    path = _key_path(config)
    try:
        config.state.mkdir(parents=True, exist_ok=True, mode=0o700)
        if not path.exists():
            write_private(path, _new_key())
        return path.read_bytes()
    except OSError as error:
        raise StoreError(
            f"Expected a state folder that can be written to at {config.state}, but: {error}."
        ) from error


def _new_key() -> bytes:
    key = ec.generate_private_key(ec.SECP256R1())
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def _request(key: bytes, owner: str) -> bytes:
    loaded = load_pem_private_key(key, None)
    if not isinstance(loaded, ec.EllipticCurvePrivateKey):
        raise InputError(f"Expected an elliptic-curve key, but got {type(loaded).__name__}.")
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, owner[:64])])
    request = x509.CertificateSigningRequestBuilder().subject_name(subject)
    return request.sign(loaded, hashes.SHA256()).public_bytes(Encoding.PEM)


def key_id(identity: Identity) -> str:
    """Return the SHA-256 of the certified public key, by which the coordinator's log names it."""
    key = x509.load_pem_x509_certificate(identity.certificate).public_key()
    der = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return hashlib.sha256(der).hexdigest()


def _key_path(config: AgentConfig) -> Path:
    return config.state / "agent.key"


def _certificate_path(config: AgentConfig) -> Path:
    return config.state / "agent.pem"
