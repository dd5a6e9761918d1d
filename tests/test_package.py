"""The package as a whole: its public names, what an import costs, its errors, its files."""

import errno
import os
import subprocess
import sys

import pytest

import tenfold
from tenfold import errors
from tenfold.errors import MissingExtraError, StorageError, UnknownNameError, require
from tenfold.files import write_text, written_whole


def test_every_public_name_can_be_imported():
    for name in tenfold.__all__:
        assert getattr(tenfold, name) is not None
    assert set(tenfold.__all__) == set(dir(tenfold))
    with pytest.raises(AttributeError, match="no attribute 'fitt'"):
        tenfold.fitt  # noqa: B018


def test_importing_the_package_imports_nothing_heavy():
    code = "import sys, tenfold; sys.exit(any(m in sys.modules for m in ('torch', 'numpy', 'rich', 'pydantic')))"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("room", ["models", "tasks", "methods"])
def test_importing_a_room_imports_no_library_that_takes_seconds(room):
    heavy = "('torchvision', 'timm', 'torchmetrics', 'torch._dynamo')"
    code = f"import sys, tenfold.{room}; sys.exit(any(m in sys.modules for m in {heavy}))"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_every_error_has_one_root_and_stands_in_the_drawing():
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, Exception)]
    assert len(kinds) > 10
    for kind in kinds:
        assert issubclass(kind, errors.TenfoldError)
        assert kind.__name__ in errors.__doc__


def test_an_unknown_name_offers_the_nearest_or_all():
    assert "Did you mean resnet18" in str(UnknownNameError("model", "resnet8", ["resnet18", "vgg"]))
    assert "Allowed: a, b." in str(UnknownNameError("letter", "zzz", ["b", "a"]))
    assert str(UnknownNameError("letter", "zzz", map(str, range(99)), "See the list.")).endswith("'zzz'. See the list.")


def test_a_missing_extra_is_named_with_its_command():
    with pytest.raises(MissingExtraError, match=r"'no_such_package_here'.*pip install 'tenfold\[export\]'"):
        require("no_such_package_here", "export")
    assert require("json", "export").dumps([]) == "[]"


def test_a_broken_dependency_is_not_called_missing(tmp_path, monkeypatch):
    (tmp_path / "half_a_package.py").write_text("import something_it_needs")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModuleNotFoundError, match="something_it_needs") as caught:
        require("half_a_package", "export")
    assert not isinstance(caught.value, MissingExtraError)


def test_a_file_is_replaced_only_when_it_is_whole(tmp_path):
    path = tmp_path / "new" / "folder" / "file.txt"
    write_text(path, "old")
    with pytest.raises(ZeroDivisionError), written_whole(path) as part:
        part.write_text(f"half of it {1 / 0}")
    assert path.read_text() == "old"
    assert list(path.parent.iterdir()) == [path]
    write_text(path, "new")
    assert path.read_text() == "new"


def test_a_full_disk_leaves_the_old_file_and_says_so(tmp_path, monkeypatch):
    path = tmp_path / "file.txt"
    write_text(path, "old")

    def full(_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(StorageError, match=r"could not write .*file\.txt: No space left on device.*is untouched"):
        write_text(path, "new")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_place_that_cannot_be_a_folder_is_refused(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match="choose another place"):
        write_text(tmp_path / "file" / "below", "text")


def test_new_files_have_the_permissions_of_the_user(tmp_path):
    write_text(tmp_path / "ours", "")
    (tmp_path / "usual").touch()
    assert (tmp_path / "ours").stat().st_mode == (tmp_path / "usual").stat().st_mode
