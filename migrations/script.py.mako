"""${message}.

Revises ${down_revision | comma,n}. A migration is frozen: it states its own SQL and imports nothing of podledger.
0002_views.py says how to add a column to a view.
"""

from alembic import op

revision = ${repr(up_revision)}
down_revision = ${repr(down_revision)}
branch_labels = None
depends_on = None


def upgrade() -> None:
    ${upgrades if upgrades else "raise NotImplementedError"}


def downgrade() -> None:
    ${downgrades if downgrades else "raise NotImplementedError"}
