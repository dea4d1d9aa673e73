import pytest

from epigraph.errors import NameRefused
from epigraph.library.names import check_alias, check_name, is_name, split_reference


@pytest.mark.parametrize("name", ["routing", "a", "7", "v1.2_x-y", "_x", "a" * 64, "console", "Default2"])
def test_plain_names_are_accepted(name: str) -> None:
    assert check_name(name) == name


@pytest.mark.parametrize(
    "name", ["", ".hidden", "-rf", "a/b", "a\\b", "a b", "é", "a\n", "a" * 65, "a@1", "../x", "a:b", "x\0"]
)
def test_unsafe_names_are_refused_with_the_rule(name: str) -> None:
    assert not is_name(name)
    with pytest.raises(NameRefused, match="A name has 1 to 64 letters"):
        check_name(name)


@pytest.mark.parametrize(
    ("name", "rule"),
    [
        ("auto", "reserved"),
        ("Base", "reserved"),
        ("a..b", r"'\.\.'"),
        ("a.", r"ends in '\.'"),
        ("NUL", "device"),
        ("com1.txt", "device"),
    ],
)
def test_other_names_are_refused_with_their_rule(name: str, rule: str) -> None:
    with pytest.raises(NameRefused, match=rule):
        check_name(name)


def test_references() -> None:
    assert split_reference("routing") == ("routing", "latest")
    assert split_reference("routing@latest") == ("routing", "latest")
    assert split_reference("routing@3") == ("routing", 3)
    assert split_reference("routing@prod") == ("routing", "prod")


@pytest.mark.parametrize("reference", ["@3", "routing@", "../x@1", "routing@a/b", "routing@1@2", "routing@-1"])
def test_what_is_no_reference_is_refused(reference: str) -> None:
    with pytest.raises(NameRefused, match="cannot be used"):
        split_reference(reference)


@pytest.mark.parametrize("alias", ["3", "latest"])
def test_an_alias_cannot_look_like_a_version(alias: str) -> None:
    with pytest.raises(NameRefused, match="already means a version"):
        check_alias(alias)
