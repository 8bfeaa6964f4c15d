"""The agent's connection: an outgoing stream, held open and reconnected when lost."""

import importlib.metadata
import logging
import queue
import threading
import time
from collections.abc import Callable, Iterator

import grpc

from disinherit.client.agent.activity import ActivityFile
from disinherit.client.agent.config import AgentConfig
from disinherit.client.agent.hours import CoordinatorClock
from disinherit.client.agent.identity import Identity
from disinherit.client.agent.pacing import Throttle, backoff
from disinherit.client.agent.runner import Stopped, TaskAnswer
from disinherit.common.connecting import find_cause
from disinherit.common.errors import CheckpointError
from disinherit.common.wire.messages import PROTOCOL
from disinherit.v1 import agents_pb2 as pb
from disinherit.v1.agents_pb2_grpc import AgentsStub

_PART_BYTES = 64 * 1024
_STABLE_SECONDS = 10.0
_LONGEST_SLEEP = 3600.0  # then the agent fetches the coordinator's time again
_OPTIONS = (
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
    # Our own back-off decides; gRPC's must not add to it.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 5_000),  # time for a single attempt
    ("grpc.max_reconnect_backoff_ms", 1_000),
)
_FINAL = frozenset(
    {
        grpc.StatusCode.NOT_FOUND,
        grpc.StatusCode.OUT_OF_RANGE,
        grpc.StatusCode.UNAUTHENTICATED,
        grpc.StatusCode.PERMISSION_DENIED,
        grpc.StatusCode.UNIMPLEMENTED,
    }
)
"""Final answers to a fetch; trying again does not change them."""

_REMIND_SECONDS = 3600.0

_log = logging.getLogger(__name__)


class Outage:
    """What the log says while there is no connection: since when, why, and what happens next.

    One line tells of it, another one if the reason changes, and one each hour that it lasts.

    Args:
        server: the coordinator.
    """

    def __init__(self, server: str) -> None:
        self._server = server
        self._since = 0.0
        self._said = 0.0
        self._why = ""

    def note(self, why: str) -> None:
        """Take in that there is no connection."""
        now = time.time()
        self._since = self._since or now
        if why == self._why and now - self._said < _REMIND_SECONDS:
            return
        self._why, self._said = why, now
        _log.warning(
            "No connection to %s since %s: %s. Nothing is lost: this agent tries again by itself, "
            "at least once a minute, and tasks wait for it.",
            self._server,
            time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(self._since)),
            why,
        )

    def end(self) -> None:
        """Take in that there is a connection."""
        away = f" again, after {time.time() - self._since:.0f} s" if self._since else ""
        self._since, self._why = 0.0, ""
        _log.info("Connected to %s%s", self._server, away)


def _cause(error: grpc.RpcError) -> str:
    """Return why a call failed, in words for people."""
    details = " ".join(str(error.details()).split()).rstrip(".")
    code = error.code()
    if details.startswith("Expected"):  # the coordinator's own words
        return details
    if code is grpc.StatusCode.UNIMPLEMENTED:
        return "no coordinator serves agents at this address, or it is of another release"
    if code in (grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN):
        return "the coordinator failed, as its log says"
    return find_cause(details)


class Link:
    """The agent's link to the coordinator.

    Args:
        config: the agent's configuration.
        identity: the agent's credentials.
        stop: set to make no further connections.
        activity: is told of connections that begin and end.
    """

    def __init__(
        self,
        config: AgentConfig,
        identity: Identity,
        stop: threading.Event,
        activity: ActivityFile,
    ) -> None:
        self._config = config
        self._stop = stop
        self._activity = activity
        self._channel = grpc.secure_channel(config.server, identity.credentials(), _OPTIONS)
        self._stub = AgentsStub(self._channel)
        self._clock = CoordinatorClock()
        self._outage = Outage(config.server)
        self._down = Throttle(config.bytes_per_second, stop)
        self._up = Throttle(config.bytes_per_second, stop)
        self._lock = threading.Lock()
        self._outbox: queue.SimpleQueue[TaskAnswer | None] = queue.SimpleQueue()
        self._call: grpc.Call | None = None

    def run(self, submit: Callable[[pb.AgentTask], None]) -> None:
        """Stay connected and pass on tasks, until `stop` is set and the stream ends.

        Args:
            submit: accepts a task and returns at once.
        """
        failures = 0
        while not self._stop.is_set():
            began = time.monotonic()
            why = "the coordinator ended the connection"
            try:
                self._serve(submit)
            except grpc.RpcError as error:
                why = _cause(error)
            except Exception:  # an agent without a link would be useless
                _log.exception("Not connected, for an unexpected reason")
                why = "an unexpected failure, above"
            closed = self._closed_for()
            if not closed and not self._stop.is_set():
                self._outage.note(why)
                self._activity.away(why)
            if closed:
                self._activity.away("these are not its hours to take part")
                _log.info("Outside the hours to take part; back in %.0f s at the latest", closed)
                self._stop.wait(min(closed, _LONGEST_SLEEP))
                failures = 0
                continue
            failures = 0 if time.monotonic() - began > _STABLE_SECONDS else failures + 1
            self._stop.wait(backoff(failures))

    def answer(self, answer: TaskAnswer) -> None:
        """Send an answer over the present connection; without one the coordinator asks again."""
        with self._lock:
            self._outbox.put(answer)

    def close(self, ended: Callable[[float], bool], seconds: float) -> None:
        """Send the remaining answers and end the connection.

        Args:
            ended: waits some seconds for `run` to end and returns whether it has.
            seconds: longest wait before the remaining answers are dropped.
        """
        self._outbox.put(None)
        if not ended(seconds):
            with self._lock:
                if self._call is not None:
                    self._call.cancel()
            ended(seconds)
        self._channel.close()

    def fetch(self, digest: str, offset: int) -> Iterator[pb.Chunk]:
        """Yield a blob from an offset to its end, over several connections if necessary.

        Args:
            digest: SHA-256 of the blob.
            offset: number of bytes to skip.

        Raises:
            CheckpointError: if the coordinator does not offer it.
            Stopped: if the agent is being stopped.
        """
        failures = 0
        while not self._stop.is_set():
            closed = self._closed_for()
            if closed:
                self._stop.wait(min(closed, _LONGEST_SLEEP))
                continue
            call = self._stub.Fetch(pb.FetchRequest(digest=digest, offset=offset))
            try:
                for chunk in call:
                    yield chunk
                    offset += len(chunk.data)
                    failures = 0
                    if offset == chunk.total:
                        return
                    self._down.spend(len(chunk.data))
                    if self._stop.is_set() or self._closed_for():
                        break
            except grpc.RpcError as error:
                if error.code() in _FINAL:
                    raise CheckpointError(
                        f"Expected to download {digest} from byte {offset} on, but: {_cause(error)}"
                    ) from error
                failures += 1
                self._stop.wait(backoff(failures))
            finally:
                call.cancel()
        raise Stopped

    def _serve(self, submit: Callable[[pb.AgentTask], None]) -> None:
        """Hold one stream until it ends."""
        outbox: queue.SimpleQueue[TaskAnswer | None] = queue.SimpleQueue()
        with self._lock:
            # Unsent answers of the last connection are dropped: the coordinator asks again.
            self._outbox = outbox
            self._call = call = self._stub.Serve(self._outgoing(outbox))
        closing: threading.Timer | None = None
        try:
            for message in call:
                if message.HasField("welcome"):
                    self._outage.end()
                    self._activity.connected()
                    self._clock.set(message.welcome.time_us)
                    if self._closed_for():
                        return
                    closing = self._closing(call)
                else:
                    submit(message.task)
        finally:
            outbox.put(None)
            call.cancel()
            if closing is not None:
                closing.cancel()

    def _outgoing(self, outbox: queue.SimpleQueue[TaskAnswer | None]) -> Iterator[pb.FromAgent]:
        hours = self._config.hours
        hello = pb.Hello(
            protocol=PROTOCOL,
            owner=self._config.owner,
            release=importlib.metadata.version("disinherit"),
            hours="" if hours is None else str(hours),
            bytes_per_second=self._config.bytes_per_second,
        )
        yield pb.FromAgent(hello=hello)
        while (answer := outbox.get()) is not None:
            for start in range(0, max(1, len(answer.data)), _PART_BYTES):
                data = answer.data[start : start + _PART_BYTES]
                last = start + _PART_BYTES >= len(answer.data)
                error = answer.error if last else ""
                self._up.spend(len(data))
                part = pb.AnswerPart(task_id=answer.task_id, data=data, last=last, error=error)
                yield pb.FromAgent(answer=part)

    def _closing(self, call: grpc.Call) -> threading.Timer | None:
        """End a stream when the hours of participation end."""
        second = self._clock.second_of_day()
        if self._config.hours is None or second is None:
            return None
        timer = threading.Timer(self._config.hours.until_closed(second), call.cancel)
        timer.daemon = True
        timer.start()
        return timer

    def _closed_for(self) -> float:
        """Return the seconds until the hours of participation begin; 0 within them."""
        second = self._clock.second_of_day()
        if self._config.hours is None or second is None:
            return 0.0
        return self._config.hours.until_open(second)
