"""The life of each counter, by which one that was lost and begun anew is told from the old one."""

from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add it; counters that are there have the same."""
    op.execute("ALTER TABLE counters ADD COLUMN life bigint NOT NULL DEFAULT 1")
