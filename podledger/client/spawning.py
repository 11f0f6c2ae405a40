"""Spawning a pod: the environment to pass to the child, and the event to record, in one call."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from podledger.core.events import PodSpawned, ScopeSubDelegated
from podledger.core.fields import Scope, Stamp
from podledger.core.stamps import (
    INCARNATION_VARIABLE,
    POD_VARIABLE,
    SOCKET_VARIABLE,
    SPOOL_VARIABLE,
    Stamper,
    process_stamper,
)


class PreparedSpawn(NamedTuple):
    """A pod that is about to be spawned. Start it with `environment`, and append `spawned`.

    `environment` holds only podledger's variables: add them to the child's environment.
    """

    pod_name: str
    incarnation: str
    environment: Mapping[str, str]
    socket_path: str
    scope: Scope
    callback_address: str

    def spawned(self, pid: int | None = None) -> PodSpawned:
        """Return the event that the owner appends to its ledger; `pid` is that of the started process."""
        return PodSpawned(
            pod_name=self.pod_name,
            socket_path=self.socket_path,
            scope=self.scope,
            callback_address=self.callback_address,
            pid=pid,
            stamp=Stamp.naming(self.incarnation),
        )

    def delegated(self, parent_pod: str) -> ScopeSubDelegated:
        """Return the event that a pod without a ledger reports to its own parent; the sender stamps it."""
        return ScopeSubDelegated(
            parent_pod=parent_pod, sub_pod=self.pod_name, sub_socket=self.socket_path, scope=self.scope
        )


def prepare_spawn(
    pod_name: str,
    parent_socket: str | os.PathLike[str],
    *,
    socket_path: str = "",
    scope: Scope = (),
    spool: str | os.PathLike[str] | None = None,
    stamper: Stamper | None = None,
    after: str | None = None,
) -> PreparedSpawn:
    """Prepare to spawn a pod that reports to `parent_socket`, with an incarnation of its own.

    A pod without a `socket_path` only reports. `spool` is the folder that keeps its reports until this owner has
    recorded them; without it, a child does not use the spool of this process either. `stamper` (by default this
    process's) remembers the incarnation for the reports of this process about the pod. Each call is another one,
    so a respawned pod gets a new tenure.

    A new incarnation is greater than each one that this process made, although the clock may have been set back. It is
    also greater than `after`, the newest that is known of this name: `Ledger.prepare_spawn` takes that from the ledger.
    """
    incarnation = (stamper or process_stamper()).spawn(pod_name, after=after)
    callback = os.fspath(parent_socket)
    environment = {INCARNATION_VARIABLE: incarnation, POD_VARIABLE: pod_name, SOCKET_VARIABLE: callback}
    if spool is not None:
        environment[SPOOL_VARIABLE] = str(Path(spool).absolute())
    elif SPOOL_VARIABLE in os.environ:
        environment[SPOOL_VARIABLE] = ""
    return PreparedSpawn(pod_name, incarnation, environment, socket_path, scope, callback)
