"""Numbered records: order, renewal, and what a crash leaves."""

import pytest

from tenfold.data.record_files import RecordFile
from tenfold.errors import DataError, StorageError, UsageError


def test_records_come_back_in_any_order_and_the_later_of_two_counts(tmp_path):
    with RecordFile(tmp_path / "records", write=True) as file:
        for number, content in ((5, b"five"), (2, b""), (5, b"FIVE!"), (0, b"zero" * 1000)):
            file.append(number, content)
    with RecordFile(tmp_path / "records") as file:
        assert list(file) == [0, 2, 5]
        assert (file.read(5), file.read(2), len(file.read(0))) == (b"FIVE!", b"", 4000)
        assert 2 in file
        assert 3 not in file
        assert len(file) == 3


@pytest.mark.parametrize("lost", [1, 3, 12, 20])
def test_a_record_cut_short_is_as_if_it_had_never_been_and_is_written_over(tmp_path, lost):
    path = tmp_path / "records"
    with RecordFile(path, write=True) as file:
        file.append(0, b"whole")
        file.append(1, b"half")
    path.write_bytes(path.read_bytes()[:-lost])
    with RecordFile(path, write=True) as file:
        assert list(file) == [0]
        file.append(1, b"again")
    with RecordFile(path) as file:
        assert file.read(1) == b"again"


def test_a_changed_byte_is_noticed(tmp_path):
    path = tmp_path / "records"
    with RecordFile(path, write=True) as file:
        for number in range(3):
            file.append(number, bytes([number]) * 50)
    content = bytearray(path.read_bytes())
    content[90] ^= 1
    path.write_bytes(content)
    with RecordFile(path) as file:
        assert file.read(0) == bytes(50)
        assert file.read(2) == b"\2" * 50
        with pytest.raises(DataError, match=r"record 1 of .* is damaged"):
            file.read(1)


def test_a_reader_sees_what_is_written_meanwhile(tmp_path):
    path = tmp_path / "records"
    with RecordFile(path, write=True) as writer, RecordFile(path) as reader:
        writer.append(7, b"seven")
        assert 7 not in reader
        reader.refresh()
        assert reader.read(7) == b"seven"


def test_what_is_wrong_is_said(tmp_path):
    with pytest.raises(StorageError, match="cannot be opened"):
        RecordFile(tmp_path / "none")
    with RecordFile(tmp_path / "records", write=True) as file:
        with pytest.raises(UsageError, match="count from 0"):
            file.append(-1, b"")
        with pytest.raises(DataError, match="holds no record 4"):
            file.read(4)
        file.append(0, b"content")
        (tmp_path / "records").write_bytes(b"")
        with pytest.raises(DataError, match=r"record 0 of .* is damaged"):
            file.read(0)
    with RecordFile(tmp_path / "records") as file, pytest.raises(UsageError, match="open it with write=True"):
        file.append(0, b"")
