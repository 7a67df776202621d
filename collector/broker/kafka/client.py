"""aiokafka's client, for a cluster in which some brokers may be away.

aiokafka asks one broker after another, waits for each as long as its slowest request may take, and makes one connection at a
time. So one broker that is paused, or behind a network that drops its packets, delays answers that the others could give. This
client asks the next broker after a short while, and takes the first answer.

Invariants:
1. A question that any broker can answer waits at most HEDGE_S for each broker that does not answer.
   (test_a_question_goes_to_the_next_broker_after_a_while)
2. Connecting to one broker never waits for the connection to another. (test_connections_do_not_wait_for_each_other)
3. A broker that was lost is away until a new connection to it has been answered.
   (test_a_lost_broker_is_away_until_it_answers)
4. Metadata is read every `metadata_refresh_s`, from the bootstrap servers if no known broker answers.
   (test_a_cluster_whose_brokers_have_all_moved_is_found_again)
"""

import asyncio
import random
from collections.abc import Callable, Collection, Coroutine, Sequence
from contextlib import AbstractAsyncContextManager, nullcontext
from functools import partial
from typing import Any, Final

from aiokafka.client import AIOKafkaClient, ConnectionGroup
from aiokafka.conn import CloseReason, collect_hosts, create_conn
from aiokafka.errors import (
    GroupCoordinatorNotAvailableError,
    KafkaConnectionError,
    KafkaError,
    NodeNotReadyError,
    NoError,
    RequestTimedOutError,
    for_code,
)
from aiokafka.protocol.coordination import FindCoordinatorRequest
from aiokafka.protocol.group import HeartbeatRequest, LeaveGroupRequest
from aiokafka.protocol.metadata import MetadataRequest
from aiokafka.protocol.transaction import InitProducerIdRequest

from collector.broker.kafka.options import KafkaOptions, connection, text

# How long to wait for one broker before another is asked the same question.
HEDGE_S: Final = 0.2
# The time between two attempts to connect to a broker that is away.
_PROBE_S: Final = 0.3
# Requests that a broker answers at once. It may hold others back: until members have joined, or until messages come.
_ANSWERED_AT_ONCE: Final = (FindCoordinatorRequest, HeartbeatRequest, InitProducerIdRequest, LeaveGroupRequest, MetadataRequest)


class Client(AIOKafkaClient):  # type: ignore[misc]  # aiokafka has no types
    """aiokafka's client, which asks several brokers. Call `bootstrap` before anything else, and `close` in the end."""

    def __init__(self, options: KafkaOptions) -> None:
        """Connect to nothing yet. Raises KafkaUnusable if the certificates can't be used."""
        self._connection: Final = connection(options)
        self._answer_timeout_s: Final = min(options.answer_timeout_s, options.request_timeout_s)
        self._connecting: Final[dict[tuple[Any, int], asyncio.Lock]] = {}
        self._probes: Final[dict[int, asyncio.Task[None]]] = {}  # by broker that is away
        self._late: Final[set[asyncio.Task[Any]]] = set()  # questions that another broker has answered meanwhile
        self._closing = False
        super().__init__(
            bootstrap_servers=list(options.bootstrap),
            metadata_max_age_ms=int(options.metadata_refresh_s * 1000),
            **self._connection,
        )

    async def bootstrap(self) -> None:
        """Find the brokers. Raises KafkaError."""
        self.cluster.update_metadata(await self._first(self._servers(MetadataRequest([]))))
        if self._sync_task is None:
            self._sync_task: asyncio.Task[None] | None = asyncio.create_task(self._md_synchronizer())

    async def close(self) -> None:
        self._closing = True
        tasks = [*self._probes.values(), *self._late]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await super().close()

    async def ask_any(self, request: Any) -> Any:
        """Return the first answer to a request that any broker can answer. Raises KafkaError."""
        nodes = [broker.nodeId for broker in self.cluster.brokers()]
        random.shuffle(nodes)
        nodes.sort(key=self.is_unreachable)
        return await self._first([*(partial(self.send, node, request) for node in nodes), *self._servers(request)])

    async def metadata(self, topics: Collection[str]) -> Any:
        """Return the metadata of these topics, and update `cluster` with it. Raises KafkaError."""
        answer = await self.ask_any(MetadataRequest(list(topics)))
        self.cluster.update_metadata(answer)
        return answer

    def lost(self, node: int) -> None:
        """Note that a request to that broker has failed, or was not answered in time."""
        self.force_metadata_update()
        if node not in self._probes and not self._closing:
            self._probes[node] = asyncio.create_task(self._probe(node), name=f"kafka-probe-{node}")

    def is_unreachable(self, node: int) -> bool:
        """Return whether a broker was lost, and has not answered since."""
        return node in self._probes

    async def send(self, node_id: int, request: Any, *, group: int = ConnectionGroup.DEFAULT) -> Any:
        """Send as aiokafka does, but wait no longer than `answer_timeout_s` for an answer that a broker gives at once."""
        try:
            if not isinstance(request, _ANSWERED_AT_ONCE):
                return await super().send(node_id, request, group=group)
            async with asyncio.timeout(self._answer_timeout_s):
                return await super().send(node_id, request, group=group)
        except TimeoutError:
            made = self._conns.get((node_id, group))
            if made is not None:
                made.close(reason=CloseReason.CONNECTION_TIMEOUT)
            self.lost(node_id)
            raise RequestTimedOutError(f"broker {node_id} does not answer") from None
        except OSError as error:
            self.lost(node_id)
            raise KafkaConnectionError(f"broker {node_id}: {text(error)}") from error
        except KafkaError:
            self.lost(node_id)
            raise

    async def coordinator_lookup(self, coordinator_type: int, coordinator_key: str) -> int:
        """Return the broker that coordinates the group. Raises GroupCoordinatorNotAvailableError if that broker is away: until
        Kafka has elected another, it names the broker that it has lost."""
        answer = await self.ask_any(FindCoordinatorRequest(coordinator_key, coordinator_type))
        error = for_code(answer.error_code)
        if error is not NoError:
            raise error()
        node: int = answer.coordinator_id
        if self.is_unreachable(node):
            raise GroupCoordinatorNotAvailableError(f"broker {node} is away")
        return node

    # Called by aiokafka.

    def get_random_node(self) -> int | None:
        """Return a broker that is not away, or else any broker; None if none is known."""
        nodes = [broker.nodeId for broker in self.cluster.brokers()]
        present = [node for node in nodes if not self.is_unreachable(node)]
        return random.choice(present or nodes) if nodes else None  # noqa: S311  # spreads questions; no secret

    @property
    def _get_conn_lock(self) -> AbstractAsyncContextManager[None]:
        """Return no lock in place of aiokafka's, which is one for all connections; below, each has its own."""
        return nullcontext()

    async def _get_conn(self, node_id: int, *, group: int = ConnectionGroup.DEFAULT, no_hint: bool = False) -> Any:
        try:
            async with asyncio.timeout(self._answer_timeout_s), self._connecting.setdefault((node_id, group), asyncio.Lock()):
                return await super()._get_conn(node_id, group=group, no_hint=no_hint)
        except TimeoutError:
            self.lost(node_id)
            return None

    async def _metadata_update(self, cluster_metadata: Any, topics: Collection[str]) -> bool:
        try:
            answer = await self.ask_any(MetadataRequest(list(topics) if topics else None))
        except Exception:  # noqa: BLE001 - an answer that can't be read must not end the task that asks again
            cluster_metadata.failed_update(None)
            return False
        cluster_metadata.update_metadata(answer)
        return True

    # Our own.

    def _servers(self, request: Any) -> list[Callable[[], Coroutine[Any, Any, Any]]]:
        return [partial(self._ask_server, host, port, request) for host, port, _ in collect_hosts(self._bootstrap_servers)]

    async def _ask_server(self, host: str, port: int, request: Any) -> Any:
        """Ask a bootstrap server, over a new connection: it is not known which broker it is. Raises KafkaError."""
        try:
            async with asyncio.timeout(self._answer_timeout_s):
                made = await create_conn(host, port, **self._connection)
                try:
                    return await made.send(request)
                finally:
                    made.close()
        except OSError as error:  # TimeoutError is one
            raise KafkaConnectionError(f"{host}:{port}: {text(error)}") from error

    async def _first(self, questions: Sequence[Callable[[], Coroutine[Any, Any, Any]]]) -> Any:
        """Return the first answer. Each question is asked HEDGE_S after the question before, or as soon as that has failed.
        Wait for late answers in the background, so that a dead connection is noticed."""
        asked: set[asyncio.Task[Any]] = set()
        left = list(reversed(questions))
        failure: BaseException = NodeNotReadyError("no broker is ready yet")
        try:
            while left or asked:
                if left:
                    asked.add(asyncio.create_task(left.pop()()))
                done, asked = await asyncio.wait(asked, timeout=HEDGE_S if left else None, return_when=asyncio.FIRST_COMPLETED)
                errors = [task.exception() for task in done]  # from every task: asyncio logs errors that were not retrieved
                for task, error in zip(done, errors, strict=True):
                    if error is not None:
                        failure = error
                    elif getattr(task.result(), "brokers", True):
                        return task.result()
                    else:  # a broker that is starting, or that its controller has lost, names no broker, not even itself
                        failure = NodeNotReadyError("no broker is ready yet")
            raise failure
        finally:
            for task in asked:
                self._late.add(task)
                task.add_done_callback(self._forget)

    def _forget(self, task: asyncio.Task[Any]) -> None:
        self._late.discard(task)
        if not task.cancelled():
            task.exception()  # retrieved, since asyncio would log it

    async def _probe(self, node: int) -> None:
        """Return when the broker answers, or no longer belongs to the cluster."""
        try:
            while (broker := self.cluster.broker_metadata(node)) is not None:
                try:
                    async with asyncio.timeout(self._answer_timeout_s):
                        made = await create_conn(broker.host, broker.port, **self._connection)
                except (KafkaError, OSError):  # TimeoutError is an OSError
                    await asyncio.sleep(_PROBE_S)
                else:
                    made.close()
                    return
        finally:
            del self._probes[node]
