"""Secrets come from files where TRIVET_SECRETS_DIR names their folder."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trivet.errors import InvalidRequest
from trivet.settings import Settings
from trivet.supervisor.workers import environment


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TRIVET_SECRETS_DIR", str(tmp_path))
    return tmp_path


def test_a_file_is_read_without_the_end_of_its_line(folder: Path) -> None:
    (folder / "trivet_s3_secret_key").write_text("key\n")
    (folder / "trivet_redis_url").write_text("redis://:password@valkey:6379/0\n")
    settings = Settings.load()
    assert settings.s3_secret_key.get_secret_value() == "key"
    assert settings.redis_url == "redis://:password@valkey:6379/0"
    # They count as named by somebody: no server of this machine is looked for in their place.
    assert {"s3_secret_key", "redis_url"} <= settings.model_fields_set


def test_a_variable_comes_before_a_file_and_an_argument_before_both(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "trivet_s3_bucket").write_text("of the file")
    assert Settings.load().s3_bucket == "of the file"
    monkeypatch.setenv("TRIVET_S3_BUCKET", "of the variable")
    assert Settings.load().s3_bucket == "of the variable"
    assert Settings.load(s3_bucket="of the argument").s3_bucket == "of the argument"


def test_without_a_folder_no_file_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "trivet_s3_bucket").write_text("of the file")
    monkeypatch.chdir(tmp_path)
    assert Settings.load().s3_bucket == Settings.model_fields["s3_bucket"].default


def test_a_folder_that_is_not_there_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRIVET_SECRETS_DIR", str(tmp_path / "none"))
    with pytest.raises(InvalidRequest, match=r"TRIVET_SECRETS_DIR is wrong: .*/none is no folder that can be read"):
        Settings.load()


def test_a_file_that_may_not_be_read_is_told_with_whom(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = folder / "trivet_s3_secret_key"
    path.write_text("key")

    def refuse(self: Path, *_: object, **__: object) -> str:
        raise PermissionError(13, "Permission denied", str(self))

    # Root, as whom tests may run, reads any file.
    monkeypatch.setattr(Path, "read_text", refuse)
    with pytest.raises(InvalidRequest, match=f"{path} cannot be read: Permission denied") as caught:
        Settings.load()
    assert str(os.geteuid()) in caught.value.hint


def test_a_wrong_value_in_a_file_is_told_by_its_setting(folder: Path) -> None:
    (folder / "trivet_io_threads").write_text("many")
    with pytest.raises(InvalidRequest, match="Setting TRIVET_IO_THREADS is wrong"):
        Settings.load()


@given(st.text(st.characters(codec="ascii", categories=("L", "N", "P", "S")), min_size=1))
def test_any_secret_reaches_a_worker_as_it_stands_in_its_file(
    tmp_path_factory: pytest.TempPathFactory, secret: str
) -> None:
    folder = tmp_path_factory.mktemp("secrets", numbered=True)
    (folder / "trivet_s3_secret_key").write_text(f"{secret}\n")
    told = environment(Settings.load(secrets_dir=folder), {})
    assert told["TRIVET_S3_SECRET_KEY"] == secret
