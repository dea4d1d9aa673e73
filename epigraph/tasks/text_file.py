"""The text of a file, or a clear reason why it has none.

    bytes → refuse what is binary → UTF-8 | UTF-8 with BOM | UTF-16 with BOM → text; any other encoding is refused by name

A few broken lines in a file that otherwise is UTF-8 are kept with lone surrogates, so that they become faults of their
rows and not of the file.
"""

import codecs
import difflib
import re
from pathlib import Path

from epigraph.errors import DataError, NotFound

_BROKEN = re.compile("[\ud800-\udfff]")
_SAMPLE = 200_000
_BINARY = {
    b"PK\x03\x04": "a zip archive or an Excel workbook (.xlsx)",
    b"\xd0\xcf\x11\xe0": "an old Excel or Word file",
    b"PAR1": "a Parquet file",
    b"\x89PNG": "a PNG image",
    b"\xff\xd8\xff": "a JPEG image",
    b"%PDF": "a PDF document",
    b"\x1f\x8b": "a gzip archive",
    b"BZh": "a bzip2 archive",
    b"7z\xbc\xaf": "a 7z archive",
    b"SQLite format 3": "a SQLite data base",
    b"ARROW1": "an Arrow file",
}
_WAY_OUT = {
    "a Parquet file": "Rename it to .parquet.",
    "a zip archive or an Excel workbook (.xlsx)": "Save the sheet as CSV UTF-8, or unpack the archive.",
    "an old Excel or Word file": "Save the sheet as CSV UTF-8.",
    "a gzip archive": "Decompress it first (gunzip).",
    "a bzip2 archive": "Decompress it first (bunzip2).",
}
# Encodings that charset-normalizer confuses with Western European ones on short texts.
_WESTERN = re.compile(r"(cp1250|cp1252|cp1254|cp1257|latin_1|iso8859_\d+|mac_\w+|cp437|cp775|cp85\d|cp86\d|hp_roman8)$")


def read_bytes(path: Path) -> bytes:
    """The bytes of a file that is there, may be read, and is not empty."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise NotFound(f"no file {str(path)!r}.", _near(path)) from None
    except IsADirectoryError:
        raise DataError(f"{path} is a folder, a data file was expected.", "Give one of the files in it.") from None
    except PermissionError:
        raise DataError(f"{path} may not be read: permission denied.", f"Allow it: chmod u+r {path}") from None
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}.") from error
    if not data:
        raise DataError(f"{path} is empty: it has no bytes.", "Give a file with a header line and at least one row.")
    return data


def read_text(path: Path) -> str:
    """The decoded text without its byte-order mark. Raises NotFound, DataError."""
    data = read_bytes(path)
    encoding = _marked_encoding(path, data)
    if encoding is None:
        _refuse_binary(path, data)
        text = _decode_utf8(path, data)
    else:
        text = _decode_marked(path, data, encoding)
    if not text.strip():
        raise DataError(f"{path} is empty: it has only blank lines.", "Give a file with a header line and at least one row.")
    return text


def broken_text(text: str) -> bool:
    """Whether a text holds bytes or surrogates that no encoding can write."""
    return _BROKEN.search(text) is not None


def _near(path: Path) -> str:
    """A hint that names the files beside a missing one."""
    if not path.parent.is_dir():
        return f"There is no folder {str(path.parent)!r} either."
    names = [entry.name for entry in path.parent.iterdir()]
    close = difflib.get_close_matches(path.name, names, n=3, cutoff=0.6)
    return f"Did you mean {' or '.join(str(path.parent / name) for name in close)}?" if close else "Check the path."


def _marked_encoding(path: Path, data: bytes) -> str | None:
    """The encoding that a byte-order mark announces, None where there is no mark."""
    if data.startswith((codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE)):
        raise _wrong_encoding(path, "UTF-32", "its byte-order mark says UTF-32")
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "utf-16"
    return None


def _decode_marked(path: Path, data: bytes, encoding: str) -> str:
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path} starts with a UTF-16 byte-order mark, but byte {error.start} is not UTF-16.",
            "The file is cut off or damaged: save it again, as UTF-8.",
        ) from None
    if "\0" in text:
        raise DataError(f"{path} is a binary file: it has NUL characters.", "Give a text file.")
    return text


def _refuse_binary(path: Path, data: bytes) -> None:
    """Raise DataError for a known binary format, NUL bytes or many control characters."""
    for magic, what in _BINARY.items():
        if data.startswith(magic):
            hint = _WAY_OUT.get(what, "Give a text file (CSV, TSV, JSONL, JSON) or Parquet.")
            raise DataError(f"{path} is a binary file: it is {what}, not {path.suffix or 'text'}.", hint)
    if b"\0" in data:
        head = data[:4096]
        even, odd = head[::2], head[1::2]
        little, big = _all_nul(odd) and _no_nul(even), _all_nul(even) and _no_nul(odd)
        if little or big:
            raise _wrong_encoding(path, "UTF-16LE" if little else "UTF-16BE", "it looks like UTF-16 without a mark")
        line = data[: data.index(b"\0")].count(b"\n") + 1
        raise DataError(f"{path} is a binary file: line {line} has a NUL byte.", "Give a text file or Parquet.")
    head = data[:_SAMPLE]
    control = sum(byte < 32 and byte not in b"\t\n\r\f\v\x1b" for byte in head)
    if control > 0.01 * len(head):
        raise DataError(f"{path} is a binary file: {control} of its first {len(head)} bytes are control characters.")


def _all_nul(data: bytes) -> bool:
    return len(data) > 3 and data.count(0) >= 0.7 * len(data)


def _no_nul(data: bytes) -> bool:
    return data.count(0) <= 0.02 * len(data)


def _decode_utf8(path: Path, data: bytes) -> str:
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        text = data.decode("utf-8-sig", errors="surrogateescape")
        if _is_mostly_utf8(text):
            return text
        line = data[: error.start].count(b"\n") + 1
        encoding, name = _guess(data)
        raise _wrong_encoding(path, encoding, f"line {line} breaks UTF-8, and it looks like {name}") from None


def _is_mostly_utf8(text: str) -> bool:
    """Whether proper UTF-8 beyond ASCII stands on at least three times as many lines as broken bytes do."""
    lines = [line for line in text.split("\n") if not line.isascii()]
    broken = sum(broken_text(line) for line in lines)
    return len(lines) - broken >= 3 * broken


def _guess(data: bytes) -> tuple[str, str]:
    """The likely encoding of bytes that are not UTF-8: its name for iconv, and as people say it."""
    from charset_normalizer import from_bytes

    best = from_bytes(data[:_SAMPLE]).best()
    guess = best.encoding if best is not None else "latin_1"
    if _WESTERN.match(guess) and _reads_western(data):
        if any(0x80 <= byte <= 0x9F for byte in data[:_SAMPLE]):
            return "WINDOWS-1252", "Windows-1252 (Western European)"
        return "ISO-8859-1", "ISO-8859-1 (Latin-1)"
    name = codecs.lookup(guess).name.upper()
    return name, name


def _reads_western(data: bytes) -> bool:
    """Whether the bytes read as Western European: few letters beyond ASCII, and no symbol inside a word."""
    text = data[:_SAMPLE].decode("cp1252", errors="replace")
    letters = [char for char in text if char.isalpha()]
    rare = sum(not char.isascii() for char in letters) <= 0.25 * len(letters)
    return rare and re.search(r"[^\W\d_][¡-©«-´¶-¹»-¿×÷][^\W\d_]", text) is None


def _wrong_encoding(path: Path, encoding: str, why: str) -> DataError:
    target = f"{path.stem}-utf8{path.suffix}"
    return DataError(
        f"{path} is not UTF-8: {why}.",
        f"Convert it: iconv -f {encoding} -t UTF-8 {path} > {target}  (in Excel: save as CSV UTF-8).",
    )
