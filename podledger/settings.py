"""The settings, each from a variable of the environment with the prefix `PODLEDGER_`, built once at the edge."""

from __future__ import annotations

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

from podledger.core.protocol import MAX_FRAME_BYTES
from podledger.server.limits import Limits


class Settings(BaseSettings):
    """What the environment sets; an option of the command line goes before it."""

    model_config = SettingsConfigDict(env_prefix="PODLEDGER_", frozen=True)

    db: str = Field("podledger.db", description="The database: a path, or `sqlite:///PATH`.")
    ledger: str | None = Field(None, description="The ledger; needed only where the database holds several.")
    busy_timeout_s: float = Field(5.0, ge=0, description="How long another process's lock is waited for.")
    max_frame_bytes: int = Field(MAX_FRAME_BYTES, ge=256, description="The longest line taken from a socket.")
    max_connections: int = Field(1024, ge=1, description="How many connections are open at once.")
    idle_timeout_s: float = Field(60.0, gt=0, description="A connection silent for so long is closed.")
    max_queued: int = Field(10_000, ge=1, description="How many events wait for their commit before reading stops.")
    max_batch: int = Field(1_000, ge=1, description="How many events are committed together.")
    drain_grace_s: float = Field(1.0, ge=0, description="How long open connections are read from when stopping.")
    allowed_uids: frozenset[int] = Field(
        frozenset(), description="Users beside our own whose pods may report, as a JSON list."
    )
    outbox_attempts: int = Field(5, ge=1, description="How often a report to the parent is tried.")

    def limits(self) -> Limits:
        """The receiver's limits."""
        return Limits(
            max_frame_bytes=self.max_frame_bytes,
            max_connections=self.max_connections,
            idle_timeout_s=self.idle_timeout_s,
            max_queued=self.max_queued,
            max_batch=self.max_batch,
            drain_grace_s=self.drain_grace_s,
            allowed_uids=self.allowed_uids,
        )
