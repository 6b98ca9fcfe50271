"""The processor cores of a study: a cluster of this machine's own, or one that runs already."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from nanoed.sim.physics.errors import InputError

if TYPE_CHECKING:
    from distributed import Client

ONE_THREAD = dict.fromkeys(
    (
        *("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "BLIS_NUM_THREADS"),
        *("VECLIB_MAXIMUM_THREADS", "NUMEXPR_NUM_THREADS", "NUMBA_NUM_THREADS"),
    ),
    "1",
)
"""What a worker's environment says before it imports anything."""
CONNECT_S = 20
DEATHS = 2
"""Workers that may die of a run before it is given up as lost."""


@contextmanager
def connected(workers: int, scheduler: str | None) -> Iterator[Client]:
    """A client of `workers` single-threaded processes of this machine, or of the scheduler at tcp://… or tls://….

    The cluster of this machine listens on 127.0.0.1 alone, speaks TLS with certificates made for this once, and its
    web server, there too, has no pages. Certificates for a tls:// scheduler are those of Dask's own configuration.
    Raises InputError where the scheduler cannot be reached.
    """
    logging.getLogger("distributed").setLevel(logging.CRITICAL)
    if scheduler is not None:
        with _existing(scheduler) as client:
            yield client
        return
    import dask
    from distributed import Client, LocalCluster
    from distributed.security import Security

    spawn = {
        "distributed.nanny.pre-spawn-environ": ONE_THREAD,
        "distributed.scheduler.http.routes": [],
        "distributed.worker.http.routes": [],
        "distributed.scheduler.allowed-failures": DEATHS,
    }
    local: dict[str, Any] = {"host": "127.0.0.1", "dashboard_address": "127.0.0.1:0"}  # none: Dask would choose 0.0.0.0
    with (
        dask.config.set(spawn),
        LocalCluster(
            n_workers=workers,
            threads_per_worker=1,
            processes=True,
            security=Security.temporary(),
            silence_logs=logging.CRITICAL,
            scheduler_kwargs={"dashboard": False},
            **local,
        ) as cluster,
        Client(cluster) as client,
    ):
        yield client


def reach(address: str, tell: Callable[[str], None]) -> None:
    """Tell what is odd about a scheduler that runs already.

    Raises InputError where none answers, and where its workers cannot load nanoed.
    """
    with _existing(address) as client:
        if not client.scheduler_info()["workers"]:
            tell("the scheduler has no workers yet; waiting for them")
        try:
            threads = threads_of(client)
        except Exception as error:  # what a worker raises comes as Dask likes
            what = " ".join(str(error).split())[:160]
            raise InputError(
                f"its workers do not load nanoed ({what})", field="--scheduler", value=address,
                allowed="workers with the sources of this program",
            ) from error  # fmt: skip
        if max(threads.values(), default=1) > 1:
            wanted = " ".join(f"{name}={count}" for name, count in ONE_THREAD.items())
            tell(f"the workers' libraries use several threads each: start them with {wanted}")


def threads_of(client: Client) -> dict[str, int]:
    """The most threads that the numerical libraries of each worker would use, by address."""
    found: dict[str, int] = client.run(_threads)
    return found


def _threads() -> int:
    import numba
    from threadpoolctl import threadpool_info

    return max(
        [int(pool["num_threads"]) for pool in threadpool_info()] + [int(numba.config.NUMBA_NUM_THREADS)]
    )


@contextmanager
def _existing(address: str) -> Iterator[Client]:
    from distributed import Client
    from distributed.security import Security

    logging.getLogger("distributed.client").setLevel(logging.CRITICAL)  # Dask gives it a level of its own
    if not address.startswith(("tcp://", "tls://")):
        allowed = "tcp://HOST:PORT or tls://HOST:PORT"
        raise InputError("not an address", field="--scheduler", value=address, allowed=allowed)
    try:
        security = Security(require_encryption=True) if address.startswith("tls://") else None
        client = Client(address, security=security, timeout=CONNECT_S)
    except (OSError, ValueError, TypeError, RuntimeError) as error:
        what = " ".join(str(error).split())[:160]
        raise InputError(f"no scheduler there ({what})", field="--scheduler", value=address) from error
    try:
        yield client
    finally:
        with suppress(RuntimeError, OSError):  # as Dask closes a client whose scheduler has gone, which is told already
            client.close()
