"""nginx and HAProxy in front of collectors, as docs/operate/proxies.md configures them: bodies of every size and form, rolling
restarts and kills under load."""

from collections.abc import Iterator
from contextlib import ExitStack

import pytest
from support.processes.fronts import Failed, Front, Grpc, H2c, Http1, Traffic, haproxy, logs, nginx, stored_in, ways
from support.processes.program import Program
from support.waiting import until

# The default. HAProxy looks at /healthz every 500 ms and must see it fail twice; nginx closes what is unused for 1 s.
LAME_DUCK_S = 3


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Program, Program]]:
    place = tmp_path_factory.mktemp("fronts")
    with ExitStack() as stack:
        made = tuple(Program(place / name / "data", shutdown__lame_duck_s=LAME_DUCK_S) for name in ("a", "b"))
        for program in made:
            stack.callback(program.close)
            program.launch()
        for program in made:
            program.await_ready()
        first, second = made
        yield first, second


@pytest.fixture(scope="module")
def fronts(pair: tuple[Program, Program], tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Front, Front]]:
    place = tmp_path_factory.mktemp("proxies")
    with nginx(place / "nginx", *pair) as one, haproxy(place / "haproxy", *pair) as other:
        yield one, other


def test_bodies_of_every_size_and_form_pass(pair: tuple[Program, Program], fronts: tuple[Front, Front]) -> None:
    """They have a byte to 20 MB, plain, in chunks, as gzip, and both, on one kept connection a front; all are stored once."""
    sent = set[str]()
    sizes = {"small": (1, 0), "middle": (50, 2_000), "large": (20, 50_000)}
    for name, front in zip(("nginx", "haproxy"), fronts, strict=True):
        http1, h2c, grpc = Http1(front.http), H2c(front.h2c), Grpc(front.grpc)
        with pytest.raises(Failed, match="400"):
            http1.send(b"x")
        for size, (count, padding) in sizes.items():
            for chunked, zipped in ((False, False), (True, False), (False, True), (True, True)):
                records = [f"{name} {size} {chunked} {zipped} {index}" for index in range(count)]
                http1.send(logs("sizes", records, padding), chunked=chunked, zipped=zipped)
                sent.update(records)
            records = [f"{name} {size} gRPC {index}" for index in range(count)]
            grpc.send(logs("sizes", records, padding))
            sent.update(records)
        # What is large enough to be kept on nginx's disk, or to fill windows many times: through one front each.
        for client in (http1,) if name == "nginx" else (h2c, grpc):
            huge = [f"{name} huge {type(client).__name__} {index}" for index in range(80)]
            body = logs("sizes", huge, 250_000)
            assert len(body) > 20_000_000
            client.send(body)
            sent.update(huge)
        for client in (http1, h2c, grpc):
            client.close()
    assert stored_in("sizes", pair) == dict.fromkeys(sent, 1)


def test_a_rolling_restart_fails_no_request(pair: tuple[Program, Program], fronts: tuple[Front, Front]) -> None:
    """Each of two collectors is stopped with SIGTERM and started again, under load: nothing is sent again."""
    with Traffic("rolling", ways(*fronts)) as traffic:
        traffic.flows()
        for program in pair:
            assert program.stop() == 0, program.log()
            traffic.flows()
            program.start()
            until(lambda: all(front.sees_all() for front in fronts))
            traffic.flows()
    assert traffic.failures() == {}
    traffic.check(*pair)


@pytest.mark.soak  # test_kill.py kills under load, without fronts
def test_a_kill_under_load_loses_nothing(pair: tuple[Program, Program], fronts: tuple[Front, Front]) -> None:
    """What was accepted before kill -9 is stored once; only what a sender sent again may be there twice."""
    with Traffic("killed", ways(*fronts)) as traffic:
        traffic.flows()
        for program in pair:
            program.kill()
            traffic.flows()
            program.start()
            traffic.flows()
    traffic.check(*pair)
