"""The settings of podledger, each read from an environment variable that begins with `PODLEDGER_`."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

from podledger.core.protocol import MAX_FRAME_BYTES
from podledger.core.times import MAX_SECONDS
from podledger.server.limits import Limits

Seconds = Annotated[float, Field(le=MAX_SECONDS, allow_inf_nan=False)]


class Settings(BaseSettings):
    """The settings from the environment. An option of the command line overrides them."""

    model_config = SettingsConfigDict(env_prefix="PODLEDGER_", frozen=True)

    db: str = Field("podledger.db", description="The database: a path, or `sqlite:///PATH`.")
    ledger: str | None = Field(None, description="The ledger, if the database holds several.")
    busy_timeout_s: Seconds = Field(5.0, ge=0, description="How long to wait for another process's lock, in seconds.")
    max_frame_bytes: int = Field(
        MAX_FRAME_BYTES, ge=256, le=16 << 20, description="The longest line that `serve` accepts, in bytes."
    )
    max_connections: int = Field(1024, ge=1, description="How many connections may be open at once.")
    idle_timeout_s: Seconds = Field(
        60.0, gt=0, description="Close a connection that sends nothing for this many seconds."
    )
    max_queued: int = Field(10_000, ge=1, description="Stop reading while this many events wait to be committed.")
    max_batch: int = Field(1_000, ge=1, description="How many events are committed in one transaction.")
    drain_grace_s: Seconds = Field(1.0, ge=0, description="How long a stopping `serve` goes on reading, in seconds.")
    sweep_every_s: Seconds = Field(5.0, gt=0, description="How often `serve` sweeps its spools, in seconds.")
    allowed_uids: frozenset[int] = Field(
        frozenset(), description="Other users whose pods may report, as a JSON list such as `[1000]`."
    )

    def limits(self) -> Limits:
        """Return the limits of a receiver."""
        return Limits(
            max_frame_bytes=self.max_frame_bytes,
            max_connections=self.max_connections,
            idle_timeout_s=self.idle_timeout_s,
            max_queued=self.max_queued,
            max_batch=self.max_batch,
            drain_grace_s=self.drain_grace_s,
            allowed_uids=self.allowed_uids,
        )
