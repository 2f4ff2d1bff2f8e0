"""The generated files are current, and the command that writes them says when they are not."""

import pytest

from kubevo_operator.monitoring import __main__ as command


@pytest.mark.parametrize("name", sorted(command.FILES))
def test_the_committed_file_is_current(root, name):
    assert (root / name).read_text() == command.FILES[name](), "stale: run make monitoring"


def test_the_command_writes_what_it_then_finds_current(tmp_path, capsys):
    (tmp_path / "charts").mkdir()
    assert command.main(["--check"], tmp_path) == command.STALE
    said = capsys.readouterr().err
    assert all(f"{name} is stale or missing" in said for name in command.FILES)
    assert command.main([], tmp_path) == 0
    assert command.main(["--check"], tmp_path) == 0
    name = next(iter(command.FILES))
    (tmp_path / name).write_text("edited by hand\n")
    assert command.main(["--check"], tmp_path) == command.STALE
    assert capsys.readouterr().err == f"{name} is stale or missing: run make monitoring\n"


def test_wrong_use_writes_nothing(tmp_path, capsys):
    assert command.main(["--force"], tmp_path) == command.WRONG
    assert "usage" in capsys.readouterr().err
    assert command.main([], tmp_path) == command.WRONG
    assert "expected the repository's root" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", sorted(command.FILES))
def test_a_file_fits_a_config_map_that_kubectl_apply_annotates(name):
    assert len(command.FILES[name]().encode()) < 256 * 1024
