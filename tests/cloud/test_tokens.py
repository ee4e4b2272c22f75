"""The file of clients: what it says, and every mistake in it, in one line."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from splitpoint.cloud.access.tokens import Client, Tokens, read_tokens
from splitpoint.cloud.errors import ServeError

A, B = "0f" * 32, "ab" * 32


def loaded(folder: Path, text: str) -> Tokens:
    (folder / "tokens.toml").write_text(text, encoding="utf-8")
    path = folder / "tokens.toml"
    return Tokens.parse(read_tokens(path), path)


def test_clients(tmp_path: Path) -> None:
    digest = hashlib.sha256(b"secret").hexdigest()
    tokens = loaded(
        tmp_path,
        f'["gate-3"]\ntoken_sha256 = "{digest}"\nmodels = ["small"]\nmax_requests_per_s = 2.5\n'
        f'max_bytes_in_flight = 1_000\nmax_streams = 2\n[open]\ntoken_sha256 = "{A}"\n[cert]\n',
    )
    assert tokens.by_token(b"secret") == Client(
        name="gate-3",
        models=frozenset({"small"}),
        max_requests_per_s=2.5,
        max_bytes_in_flight=1000,
        max_streams=2,
    )
    for wrong in (b"", b"Secret", b"secret ", digest.encode()):
        assert tokens.by_token(wrong) is None
    assert tokens.by_certificate("cert") == Client(name="cert")
    assert tokens.by_certificate("gate-3") is None  # that one needs its token
    assert tokens.knows_certificates


def test_models_by_name_or_digest() -> None:
    assert Client(name="a").may_use("any", A)
    some = Client(name="a", models=frozenset({"small", B}))
    assert some.may_use("small", A)
    assert some.may_use("other", B)
    assert not some.may_use("other", A)
    assert not Client(name="a", models=frozenset()).may_use("small", A)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "names no client: add a table"),
        ("= 1", "is no TOML"),
        (f'token_sha256 = "{A}"', "token_sha256 stands in no client's table"),
        ('[a]\ntoken = "secret"', "[a] has the unknown key 'token': did you mean token_sha256?"),
        ("[a]\nmax_request_per_s = 1", "did you mean max_requests_per_s?"),
        ("[a]\nqqq = 1", "known are token_sha256, models, max_requests_per_s"),
        ('[a]\ntoken_sha256 = "secret"', "[a] token_sha256: give the token's SHA-256"),
        (f'[a]\ntoken_sha256 = "{A.upper()}"', "64 digits"),
        ("[a]\nmodels = 'small'", "models = 'small': give a list"),
        ("[a]\nmodels = [1]", "give a list"),
        ("[a]\nmax_requests_per_s = 0", "max_requests_per_s = 0: give a number above 0"),
        ("[a]\nmax_requests_per_s = nan", "give a number above 0"),
        ("[a]\nmax_requests_per_s = true", "give a number above 0"),
        ("[a]\nmax_bytes_in_flight = '1 MB'", "give a number of bytes"),
        ("[a]\nmax_streams = 1.5", "give a whole number"),
        ("[a]\nmax_streams = true", "give a whole number"),
        (f'[a]\ntoken_sha256 = "{A}"\n[b]\ntoken_sha256 = "{A}"', "a and b have the same token"),
        ('["a\\n"]\n', "is no name"),
        (f'["{"a" * 81}"]\n', "is no name"),
        ('[""]\n', "is no name"),
    ],
)
def test_mistakes(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(ServeError) as caught:
        loaded(tmp_path, text)
    assert words in str(caught.value)
    assert "tokens.toml" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert "secret" not in str(caught.value)


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(ServeError, match="No such file"):
        read_tokens(tmp_path / "nothing.toml")
    (tmp_path / "latin.toml").write_bytes(b'[a]\nmodels = ["\xff"]')
    with pytest.raises(ServeError, match="is no TOML"):
        read_tokens(tmp_path / "latin.toml")
