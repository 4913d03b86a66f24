"""master.store.schema: migrations, and opening of databases."""

import subprocess
import sys
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from setuptools import find_namespace_packages

from fleetpulse.master.errors import ConfigError, StoreUnavailable
from fleetpulse.master.instruments import Instruments
from fleetpulse.master.store.database import Engines, default_url, open_engines, parse_database_url
from fleetpulse.master.store.schema import VERSIONS, migrate
from fleetpulse.master.store.store import SqlTaskStore
from fleetpulse.master.store.tables import metadata
from tests.master.store.builders import open_store, submit
from tests.master.store.encryptor import ENCRYPTOR


def engines_of(database_url: str) -> Engines:
    return open_engines(parse_database_url(database_url), 1)


def test_migrations_create_the_tables_of_the_code(database_url: str) -> None:
    store = SqlTaskStore(database_url, ENCRYPTOR, Instruments().store)
    store.start()
    store.stop()
    engines = engines_of(database_url)
    with engines.reader.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True, "compare_server_default": True})
        differences = compare_metadata(context, metadata)
    # Naming the condition of this one in the code would load the whole dialect of PostgreSQL.
    assert [(what, index.name) for what, index in differences] == [("remove_index", "ix_tasks_in_the_clear")]
    engines.close()


def test_opening_a_current_database_changes_nothing(database_url: str) -> None:
    with open_store(database_url) as store:
        submit(store, "t1")
    with open_store(database_url) as store:
        assert store.details("t1").task.task_id == "t1"


def test_tasks_of_a_database_without_the_columns_for_options_and_submitters_are_kept(database_url: str) -> None:
    with open_store(database_url) as store:
        task = submit(store, "t1")
    engines = engines_of(database_url)
    with engines.writer.begin() as connection:
        for column in ("options", "submitter"):
            connection.exec_driver_sql(f"ALTER TABLE tasks DROP COLUMN {column}")
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = '0004'")
    engines.close()
    with open_store(database_url) as store:
        assert store.details("t1").task == task


def test_database_of_a_newer_version_is_refused_unchanged(database_url: str) -> None:
    with open_store(database_url):
        pass
    engines = engines_of(database_url)
    with engines.writer.begin() as connection:
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = '9999'")
    with pytest.raises(ConfigError, match=r"newer version of FleetPulse \(its schema is 9999"):
        SqlTaskStore(database_url, ENCRYPTOR, Instruments().store).start()
    with engines.reader.connect() as connection:
        assert connection.exec_driver_sql("SELECT version_num FROM alembic_version").scalar() == "9999"
    engines.close()


def test_code_knows_every_version_without_loading_alembic() -> None:
    config = Config()
    config.set_main_option("script_location", "master:store/migrations")
    scripts = ScriptDirectory.from_config(config)
    assert [script.revision for script in scripts.walk_revisions()] == list(reversed(VERSIONS))
    loaded = "import sys, fleetpulse.master.app; print('alembic' in sys.modules)"
    assert (
        subprocess.run([sys.executable, "-c", loaded], capture_output=True, text=True, check=True).stdout == "False\n"
    )


def test_failed_migration_makes_the_store_unavailable(database_url: str) -> None:
    engines = engines_of(database_url)
    if (path := parse_database_url(database_url).path) is not None:
        path.parent.mkdir()
    with engines.writer.begin() as connection:
        connection.exec_driver_sql("CREATE TABLE tasks (other INTEGER)")
    with pytest.raises(StoreUnavailable, match=r"the tables could not be brought up to date: .*tasks"):
        SqlTaskStore(database_url, ENCRYPTOR, Instruments().store, open_timeout_seconds=0.1).start()
    engines.close()


def test_rolled_back_migration_leaves_nothing(database_url: str) -> None:
    if (path := parse_database_url(database_url).path) is not None:
        path.parent.mkdir()
    engines = engines_of(database_url)
    with engines.writer.connect() as connection, connection.begin() as transaction:
        migrate(connection)
        transaction.rollback()
    with engines.writer.begin() as connection:
        assert MigrationContext.configure(connection).get_current_heads() == ()
        migrate(connection)
    engines.close()


def test_file_that_is_no_database_is_a_config_error(tmp_path: Path) -> None:
    (tmp_path / "fleetpulse.db").write_bytes(b"no database" * 1000)
    with pytest.raises(ConfigError, match=r"fleetpulse\.db is not usable: file is not a database"):
        SqlTaskStore(default_url(tmp_path), ENCRYPTOR, Instruments().store).start()


def test_unreachable_server_is_unavailable_and_no_password_is_shown(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    database_url = f"postgresql://somebody:secret@/fleetpulse?host={tmp_path}"
    with pytest.raises(
        StoreUnavailable, match=r"^the database postgresql\+psycopg://somebody:\*\*\*@/fleetpulse: "
    ) as refused:
        SqlTaskStore(database_url, ENCRYPTOR, Instruments().store, open_timeout_seconds=0.5).start()
    assert "secret" not in str(refused.value) + caplog.text
    assert caplog.text.count("waiting for the database") == 1


def test_wrong_url_parameter_is_a_config_error_at_once(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no_such_parameter"):
        SqlTaskStore(
            f"postgresql://u:secret@/db?host={tmp_path}&no_such_parameter=1", ENCRYPTOR, Instruments().store
        ).start()


def test_migrations_are_in_the_wheel() -> None:
    assert "fleetpulse.master.store.migrations.versions" in find_namespace_packages("src")
