"""What each built-in pattern hides, and what it leaves."""

from __future__ import annotations

import pytest
from streamgate_redact import checks
from streamgate_redact.partial import Unsupported
from streamgate_redact.patterns import BUILT_IN, Pattern, Rule
from streamgate_redact.scan import Scanner

PEM = "-----BEGIN RSA PRIVATE KEY-----\nMIIEowIBAAKCAQEA1234567890abcd\n{}\n-----END RSA PRIVATE KEY-----"
ENCRYPTED = "Proc-Type: 4,ENCRYPTED\nDEK-Info: AES-128-CBC,00"
JWT = "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.dozjgNryP4J3jVmNHl0w5N"


def hidden(name: str, text: str) -> str:
    return Scanner([Rule(BUILT_IN[name])]).whole(text, lambda _: "#")


@pytest.mark.parametrize(
    ("name", "text", "out"),
    [
        ("email", "mail john.doe+x@mail.example.co.uk.", "mail #."),
        ("email", "o'brien@example.com, (x_y@a-b.org)", "#, (#)"),
        ("email", "a@b.com_c@d.com", "##"),
        ("email", "root@x.1.com user@xn--bcher-kva.example", "# #"),
        ("email", "jörg@exämple.de 联系john@example.com联系", "# 联系#联系"),
        ("email", "a@b, @handle, a@b.c, x@10.0.0.1, 3 @ 4.50", "a@b, @handle, a@b.c, x@10.0.0.1, 3 @ 4.50"),
        ("card", "4111 1111 1111 1111 or 4111-1111-1111-1111.", "# or #."),
        ("card", "378282246310005 5500005555555559 6011000990139424", "# # #"),
        ("card", "4111111111111111 12 and 1234 4111111111111111", "# 12 and 1234 #"),
        ("card", "4111111111111112 41111111111111112222 x", "4111111111111112 41111111111111112222 x"),
        ("card", "1700000000000 3.4111111111111111", "1700000000000 3.4111111111111111"),
        ("card", "4111111111111111x, 4111 1111 1111 1111john@example.com", "#x, #john@example.com"),
        ("key", "sk-proj-abcDEF0123456789abcdefXYZ_-tail!", "#!"),
        ("key", "sk-ant-api03-AbCdEfGhIjKlMnOpQr0123", "#"),
        ("key", "ghp_abcdefghij0123456789abcdefghij0123 github_pat_11ABCDEFG0123456789abcdef", "# #"),
        ("key", "AKIAIOSFODNN7EXAMPLE AIzaSyA1234567890abcdefghijklmnopqrstuv", "# #"),
        ("key", "xoxb-123456789012-abcdef glpat-abcdefghij0123456789 sk_live_abcdefghij012345", "# # #"),
        ("key", "sk-learn-compatible-estimators", "sk-learn-compatible-estimators"),
        ("key", "task-ABCDEFGHIJKLMNOPQRSTUVWX", "task-ABCDEFGHIJKLMNOPQRSTUVWX"),
        ("jwt", f"token {JWT}. Next", "token #. Next"),
        ("jwt", "eyJhbGciOiJIUzI1NiJ9 alone", "eyJhbGciOiJIUzI1NiJ9 alone"),
        ("bearer", "Authorization: Bearer abcDEF123.abc-12345678.", "Authorization: #."),
        ("bearer", "the bearer responsibilities of a Bearer Bond", "the bearer responsibilities of a Bearer Bond"),
        ("private_key", PEM.format("abc=") + "\n\nHope it helps", "#\n\nHope it helps"),
        ("private_key", PEM.format("MIIEowIBAAKCAQEA1234567890abcd") + " x", "# x"),
        ("private_key", PEM.format("abc=").replace("\n", "\\n") + "\\nx", "#\\nx"),
        ("private_key", PEM.format("Q=").replace("Y-----\nM", f"Y-----\n{ENCRYPTED}\n\nM"), "#"),
        ("private_key", "`-----BEGIN PRIVATE KEY-----` begins it", "`-----BEGIN PRIVATE KEY-----` begins it"),
        ("iban", "DE89 3704 0044 0532 0130 00, GB82WEST12345698765432.", "#, #."),
        ("iban", "DE89 3704 0044 0532 0130 01 AB12CDEFGHIJKLMNOP", "DE89 3704 0044 0532 0130 01 AB12CDEFGHIJKLMNOP"),
        ("phone", "+41 44 668 18 00, (212) 555-0123, +14155550123", "#, #, #"),
        ("phone", "+4111 1111 1111 1111", "#"),
        ("phone", "2024-12-31 10:00, +5%, 1+1234567", "2024-12-31 10:00, +5%, 1+1234567"),
    ],
)  # fmt: skip
def test_a_pattern_hides_what_it_is_for(name: str, text: str, out: str):
    """And nothing that only looks alike."""
    assert hidden(name, text) == out


def test_windows_are_small():
    """Characters that each pattern may hold; what the README says."""
    windows = {name: Rule(pattern).window for name, pattern in BUILT_IN.items()}
    assert windows == {
        "private_key": 449, "jwt": 608, "key": 50, "bearer": 45, "email": 388, "iban": 64, "card": 37, "phone": 41,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("pattern", "why"),
    [
        (Pattern("x", "a*"), "where there is nothing"),
        (Pattern("x", "a+"), "no longest match"),
        (Pattern("x", "aaaa", longest=3), "4 characters at least"),
    ],
)
def test_a_pattern_has_a_least_and_a_longest_match(pattern: Pattern, why: str):
    """Else there would be no window."""
    with pytest.raises(Unsupported, match=why):
        Rule(pattern)


@pytest.mark.parametrize(
    ("digits", "genuine"), [("4111111111111111", True), ("79927398713", True), ("79927398710", False)]
)
def test_luhn(digits: str, genuine: bool):
    """ISO/IEC 7812."""
    assert checks.luhn(digits) is genuine


def test_an_account_number_has_the_remainder_one():
    """ISO 13616, with its own example."""
    assert checks.remainder("GB82WEST12345698765432") == 1
    assert checks.remainder("GB82WEST12345698765433") != 1
