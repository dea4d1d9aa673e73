import codecs
from pathlib import Path

import pytest

from epigraph.errors import DataError, NotFound
from epigraph.tasks.text_file import broken_text, read_text

VIETNAMESE = "text,label\nTôi rất thích sản phẩm này,tích cực\n"
CHINESE = "文本,标签\n房间隔音效果极差,负面\n服务很好,正面\n"


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("text", [VIETNAMESE, CHINESE])
def test_unicode_encodings_give_the_same_text(tmp_path, text, encoding):
    path = tmp_path / "a.csv"
    path.write_bytes(text.encode(encoding))
    assert read_text(path) == text


def test_utf16_big_endian_with_a_mark(tmp_path):
    path = tmp_path / "a.csv"
    path.write_bytes(codecs.BOM_UTF16_BE + CHINESE.encode("utf-16-be"))
    assert read_text(path) == CHINESE


@pytest.mark.parametrize(
    ("text", "encoding", "said"),
    [
        ("text,label\nLe café est très bon,positif\n", "latin-1", "line 2 .* ISO-8859-1 .*Latin-1.*iconv -f ISO-8859-1"),
        ("text,label\nmañana,a\n¿Dónde?,b\n", "latin-1", "Latin-1"),
        ("text,label\n" + "plain,a\n" * 60 + "café,b\n", "latin-1", "line 62 .*Latin-1"),
        ("text,label\nHe said “hi” – it’s fine,a\n", "cp1252", "Windows-1252"),
        (CHINESE * 5, "gbk", "GB18030"),
        ("текст,метка\nОчень хорошо работает,да\n" * 5, "cp1251", "CP1251"),
        ("text,label\ngood,a\n", "utf-16-le", "UTF-16 without a mark.*iconv -f UTF-16LE"),
        ("text,label\ngood,a\n", "utf-16-be", "iconv -f UTF-16BE"),
        ("text,label\ngood,a\n", "utf-32", "UTF-32"),
    ],
)
def test_other_encodings_are_refused_by_name(tmp_path, text, encoding, said):
    path = tmp_path / "a.csv"
    path.write_bytes(text.encode(encoding))
    with pytest.raises(DataError, match=said):
        read_text(path)


def test_a_broken_line_in_utf8_is_left_to_its_row(tmp_path):
    path = tmp_path / "a.csv"
    path.write_bytes(VIETNAMESE.encode() * 10 + b"caf\xe9,x\n")
    text = read_text(path)
    assert [broken_text(line) for line in text.splitlines()].count(True) == 1


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"PK\x03\x04" + bytes(20), "Excel"),
        (b"\x89PNG\r\n\x1a\n", "PNG"),
        (b"PAR1abcPAR1", "Parquet.*Rename it to .parquet"),
        (b"\x1f\x8b\x08\x00", "gzip"),
        (b"text,label\na,\0\n", "line 2 has a NUL"),
        (b"\x7fELF\x02\x01\x01" + bytes(9) + b"\x03\0>\0\x01\0\0\0" + bytes(600), "line 1 has a NUL"),  # not UTF-16
        (b"a,b\n" + bytes(range(1, 9)) * 20, "control characters"),
        (codecs.BOM_UTF16_LE + b"a\0\0\0", "NUL"),
        (codecs.BOM_UTF16_LE + b"a\0b", "not UTF-16"),
        (b"", "is empty: it has no bytes"),
        (codecs.BOM_UTF8 + b" \n", "only blank lines"),
    ],
)
def test_files_that_hold_no_text(tmp_path, data, said):
    path = tmp_path / "a.csv"
    path.write_bytes(data)
    with pytest.raises(DataError, match=said):
        read_text(path)


def test_missing_file_names_its_neighbour(tmp_path):
    (tmp_path / "train.csv").write_text("a")
    with pytest.raises(NotFound, match=r"train\.csv"):
        read_text(tmp_path / "trian.csv")
    with pytest.raises(NotFound, match="no folder"):
        read_text(tmp_path / "nowhere" / "train.csv")


def test_folder_and_permission(tmp_path, monkeypatch):
    with pytest.raises(DataError, match="is a folder"):
        read_text(tmp_path)

    def refuse(self):
        raise PermissionError

    monkeypatch.setattr(Path, "read_bytes", refuse)
    with pytest.raises(DataError, match="permission denied"):
        read_text(tmp_path / "a.csv")
