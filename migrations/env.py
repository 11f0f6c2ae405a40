"""Run the migrations on the connection that podledger passes in, or on the database of `alembic -x url=sqlite:///…`."""

from alembic import context
from sqlalchemy import Connection, create_engine


def migrate(connection: Connection) -> None:
    """Run them in one transaction, so that a migration that fails leaves nothing behind."""
    context.configure(
        connection=connection,
        target_metadata=context.config.attributes.get("target_metadata"),
        transactional_ddl=True,
    )
    with context.begin_transaction():
        context.run_migrations()


given = context.config.attributes.get("connection")
if given is not None:
    migrate(given)
else:
    with create_engine(context.get_x_argument(as_dictionary=True)["url"]).connect() as connection:
        migrate(connection)
        connection.commit()
