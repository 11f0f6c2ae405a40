"""Runs the migrations on the connection that podledger hands over, or on `-x url=...` from the command line."""

from alembic import context
from sqlalchemy import Connection, create_engine


def migrate(connection: Connection) -> None:
    context.configure(
        connection=connection,
        target_metadata=context.config.attributes.get("target_metadata"),
        transactional_ddl=True,
    )
    with context.begin_transaction():
        context.run_migrations()


handed_over = context.config.attributes.get("connection")
if handed_over is not None:
    migrate(handed_over)
else:
    with create_engine(context.get_x_argument(as_dictionary=True)["url"]).connect() as connection:
        migrate(connection)
        connection.commit()
