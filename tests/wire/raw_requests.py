"""Requests as raw bytes, and what a server that takes no chances does with each: the table, and how to run a row.

It knows nothing of the server it is run against. A rejected request is answered with one of the statuses (or closed
without a word where 0 is among them) and nothing of it reaches the application; an accepted one arrives once, with
exactly these body bytes. After every row a new connection must be served right.
"""

from __future__ import annotations

import asyncio
from typing import NamedTuple

PATH = b"/v1/chat/completions"
BODY = b'{"model":"m","messages":[{"role":"user","content":"hi"}]}'
OTHER = b'{"model":"m","messages":[{"role":"user","content":"smuggled"}]}'
SIZE = b"%d" % len(BODY)
LINE = b"POST " + PATH + b" HTTP/1.1"
HOST = b"Host: gateway.test"
JSON = b"Content-Type: application/json"
LENGTH = b"Content-Length: " + SIZE
CODED = b"Transfer-Encoding: chunked"
SECOND = b"\r\n".join((LINE, HOST, JSON, b"Content-Length: %d" % len(OTHER), b"", OTHER))

BAD = (400,)
FOUND_NOWHERE = (400, 404)


class Row(NamedTuple):
    """One request; `accepted` is the body the application must see, or None when it must see nothing.

    `path_only`: not a chat completion, so only what happens to the bytes can be compared between servers.
    """

    name: str
    segments: tuple[bytes, ...]
    statuses: tuple[int, ...] = ()
    accepted: bytes | None = None
    path_only: bool = False


class Answer(NamedTuple):
    """The first response on a connection; status 0: the connection ended without one."""

    status: int
    head: bytes
    body: bytes


def head(*fields: bytes, line: bytes = LINE, host: bytes | None = HOST, kind: bytes | None = JSON) -> bytes:
    given = [each for each in (line, host, kind) if each is not None]
    return b"\r\n".join((*given, *fields, b"", b""))


def chunks(*pieces: bytes) -> bytes:
    return b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"


def no(name: str, *segments: bytes, statuses: tuple[int, ...] = BAD, path_only: bool = False) -> Row:
    return Row(name, segments, statuses=statuses, path_only=path_only)


def yes(name: str, *segments: bytes, body: bytes = BODY, path_only: bool = False) -> Row:
    return Row(name, segments, accepted=body, path_only=path_only)


def counted(name: str, *fields: bytes, line: bytes = LINE, host: bytes | None = HOST) -> Row:
    """Rejected: a counted request with something wrong in its head."""
    return no(name, head(*fields, LENGTH, line=line, host=host) + BODY)


def coded(name: str, body: bytes, statuses: tuple[int, ...] = BAD) -> Row:
    """Rejected: a chunked request with something wrong in its body."""
    return no(name, head(CODED) + body, statuses=statuses)


def target(name: str, path: bytes, statuses: tuple[int, ...] = BAD) -> Row:
    return no(name, head(LENGTH, line=b"POST " + path + b" HTTP/1.1") + BODY, statuses=statuses, path_only=True)


def host(name: str, value: bytes) -> Row:
    return counted(f"host {name}", host=b"Host: " + value)


FRAMING = [
    no("both lengths, chunked body", head(LENGTH, CODED) + chunks(BODY)),
    no("both lengths, coding first", head(CODED, LENGTH) + chunks(BODY)),
    no("CL.TE: a request hidden behind the last chunk", head(b"Content-Length: 999", CODED) + b"0\r\n\r\n" + SECOND),
    no("TE.CL: a request hidden in a chunk", head(CODED, b"Content-Length: 4") + chunks(SECOND)),
    no("both, length of zero", head(b"Content-Length: 0", CODED) + chunks(BODY)),
    no("TE.TE: chunked and an unknown coding", head(CODED, b"Transfer-Encoding: cow") + chunks(BODY)),
    no("TE.TE: an unknown coding and chunked", head(b"Transfer-Encoding: cow", CODED) + chunks(BODY)),
    no("TE.TE: chunked twice", head(CODED, CODED) + chunks(BODY)),
    no("TE.TE: chunked twice, in two cases", head(CODED, b"transfer-encoding: Chunked") + chunks(BODY)),
    no("coding listed twice", head(b"Transfer-Encoding: chunked, chunked") + chunks(BODY)),
    no("coding identity", head(b"Transfer-Encoding: identity") + BODY),
    no("coding chunked, identity", head(b"Transfer-Encoding: chunked, identity") + chunks(BODY)),
    no("coding empty", head(b"Transfer-Encoding:") + chunks(BODY)),
    no("coding only a comma", head(b"Transfer-Encoding: ,") + chunks(BODY)),
    no("coding with a leading comma", head(b"Transfer-Encoding: ,chunked") + chunks(BODY)),
    no("coding with a trailing comma", head(b"Transfer-Encoding: chunked,") + chunks(BODY)),
    no("coding in quotes", head(b'Transfer-Encoding: "chunked"') + chunks(BODY)),
    no("coding with a parameter", head(b"Transfer-Encoding: chunked;q=1") + chunks(BODY)),
    no("coding with two words", head(b"Transfer-Encoding: x chunked") + chunks(BODY)),
    no("coding behind a vertical tab", head(b"Transfer-Encoding: \x0bchunked") + chunks(BODY)),
    no("coding behind a form feed", head(b"Transfer-Encoding:\x0cchunked") + chunks(BODY)),
    no("coding with a NUL", head(b"Transfer-Encoding: chunked\x00") + chunks(BODY)),
    no("coding with a no-break space", head(b"Transfer-Encoding: \xa0chunked") + chunks(BODY)),
    no("coding xchunked", head(b"Transfer-Encoding: xchunked") + chunks(BODY), statuses=(400, 501)),
    no("coding chunkedx", head(b"Transfer-Encoding: chunkedx") + chunks(BODY), statuses=(400, 501)),
    no("coding gzip", head(b"Transfer-Encoding: gzip") + BODY, statuses=(400, 501)),
    no("coding gzip, chunked", head(b"Transfer-Encoding: gzip, chunked") + chunks(BODY), statuses=(400, 501)),
    no("coding with a space before its colon", head(b"Transfer-Encoding : chunked") + chunks(BODY)),
    no("coding with a tab before its colon", head(b"Transfer-Encoding\t: chunked") + chunks(BODY)),
    no("coding folded to the next line", head(b"Transfer-Encoding:\r\n chunked") + chunks(BODY)),
    no("coding hidden in a folded field", head(b"X-Padding: a\r\n Transfer-Encoding: chunked", LENGTH) + BODY),
    no("coding behind a bare LF", head(b"X-Padding: a\nTransfer-Encoding: chunked", LENGTH) + BODY),
    no("coding behind a bare CR", head(b"X-Padding: a\rTransfer-Encoding: chunked", LENGTH) + BODY),
    no("coding in HTTP/1.0", head(CODED, line=b"POST " + PATH + b" HTTP/1.0") + chunks(BODY)),
    no("both in HTTP/1.0", head(CODED, LENGTH, line=b"POST " + PATH + b" HTTP/1.0") + chunks(BODY)),
    counted("length twice, equal", LENGTH),
    counted("length twice, different", b"Content-Length: 0"),
    counted("length twice, the second in lower case", b"content-length: 5"),
    no("length as a list of equals", head(b"Content-Length: " + SIZE + b", " + SIZE) + BODY),
    no("length as a list without a space", head(b"Content-Length: " + SIZE + b",0") + BODY),
    no("length with a plus", head(b"Content-Length: +" + SIZE) + BODY),
    no("length with a minus", head(b"Content-Length: -" + SIZE) + BODY),
    no("length of minus zero", head(b"Content-Length: -0")),
    no("length in hexadecimal", head(b"Content-Length: 0x3a") + BODY),
    no("length with a fraction", head(b"Content-Length: " + SIZE + b".0") + BODY),
    no("length with an exponent", head(b"Content-Length: 5e1") + BODY),
    no("length with an underscore", head(b"Content-Length: 5_8") + BODY),
    no("length with a space inside", head(b"Content-Length: 5 8") + BODY),
    no("length with a letter behind", head(b"Content-Length: " + SIZE + b"b") + BODY),
    no("length in quotes", head(b'Content-Length: "' + SIZE + b'"') + BODY),
    no("length empty", head(b"Content-Length:") + BODY),
    no("length of spaces", head(b"Content-Length:   ") + BODY),
    no("length in other digits", head(b"Content-Length: \xd9\xa5\xd9\xa8") + BODY),
    no("length of 2**64 and a little", head(b"Content-Length: 18446744073709551674") + BODY, statuses=(400, 413)),
    no("length of 400 digits", head(b"Content-Length: " + b"9" * 400) + BODY, statuses=(400, 413)),
    no("length beyond the limit", head(b"Content-Length: 99999999999") + BODY, statuses=(413,)),
    no("length with a space before its colon", head(b"Content-Length : " + SIZE) + BODY),
    no("length folded", head(b"Content-Length:\r\n\t" + SIZE) + BODY),
    no("length named by Connection", head(b"Connection: Content-Length", LENGTH) + BODY),
    no("coding named by Connection", head(b"Connection: close, transfer-encoding", CODED) + chunks(BODY)),
    yes("a counted body", head(LENGTH) + BODY),
    yes("a counted body in its own segment", head(LENGTH), BODY),
    yes("a counted body in three segments", head(LENGTH), BODY[:3], BODY[3:20], BODY[20:]),
    yes("length in lower case", head(b"content-length: " + SIZE) + BODY),
    yes("length in upper case", head(b"CONTENT-LENGTH: " + SIZE) + BODY),
    yes("length without a space behind the colon", head(b"Content-Length:" + SIZE) + BODY),
    yes("length between tabs", head(b"Content-Length:\t" + SIZE + b"\t") + BODY),
    yes("length with leading zeros", head(b"Content-Length: 00000" + SIZE) + BODY),
    yes("length under another name is nothing", head(LENGTH, b"Content_Length: 5", b"X-Content-Length: 5") + BODY),
    yes("a coding under another name is nothing", head(LENGTH, b"Transfer_Encoding: chunked") + BODY),
    yes("no body at all", head(line=b"GET " + PATH + b" HTTP/1.1"), body=b"", path_only=True),
    yes("a length of zero", head(b"Content-Length: 0"), body=b"", path_only=True),
]

CHUNKS = [
    coded("chunk size with 0x", b"0x3a\r\n" + BODY + b"\r\n0\r\n\r\n"),
    coded("chunk size with a plus", b"+3a\r\n" + BODY + b"\r\n0\r\n\r\n"),
    coded("chunk size with a minus", b"-3a\r\n" + BODY + b"\r\n0\r\n\r\n"),
    coded("chunk size with a space before", b" 3a\r\n" + BODY + b"\r\n0\r\n\r\n"),
    coded("chunk size with a space behind", b"3a \r\n" + BODY + b"\r\n0\r\n\r\n"),
    coded("chunk size with a tab behind", b"3a\t\r\n" + BODY + b"\r\n0\r\n\r\n"),
    coded("chunk size with an underscore", b"3_a\r\n" + BODY + b"\r\n0\r\n\r\n"),
    coded("chunk size that is no number", b"zz\r\n" + BODY + b"\r\n0\r\n\r\n"),
    coded("chunk size empty", b"\r\n" + BODY + b"\r\n0\r\n\r\n"),
    coded("chunk size of nine digits", b"00000003a\r\n" + BODY + b"\r\n0\r\n\r\n"),
    coded("chunk size of 2**64 and a little", b"1000000000000003a\r\n" + BODY + b"\r\n0\r\n\r\n"),
    coded("chunk size beyond the limit", b"ffffffff\r\n" + BODY, statuses=(413,)),
    coded("chunk size ended by LF", b"3a\n" + BODY + b"\r\n0\r\n\r\n"),
    coded("chunk size ended by CR", b"3a\r" + BODY + b"\r\n0\r\n\r\n"),
    coded("chunk size ended by CR CR LF", b"3a\r\r\n" + BODY + b"\r\n0\r\n\r\n"),
    coded("chunk size with a NUL", b"3a\x00\r\n" + BODY + b"\r\n0\r\n\r\n"),
    coded("chunk size larger than the chunk", b"%x\r\n" % (len(BODY) + 1) + BODY + b"\r\n0\r\n\r\n"),
    coded("chunk size smaller than the chunk", b"%x\r\n" % (len(BODY) - 1) + BODY + b"\r\n0\r\n\r\n"),
    coded("chunk ended by two other bytes", b"%x\r\n" % len(BODY) + BODY + b"XX0\r\n\r\n"),
    coded("chunk ended by LF", b"%x\r\n" % len(BODY) + BODY + b"\n0\r\n\r\n"),
    coded("chunk ended by CR", b"%x\r\n" % len(BODY) + BODY + b"\r0\r\n\r\n"),
    coded("chunk ended by LF CR", b"%x\r\n" % len(BODY) + BODY + b"\n\r0\r\n\r\n"),
    coded("chunk without an end", b"%x\r\n" % len(BODY) + BODY + b"0\r\n\r\n"),
    coded("last chunk ended by LF", b"%x\r\n" % len(BODY) + BODY + b"\r\n0\n\n"),
    coded("extension with a bare LF", b"%x;a\n" % len(BODY) + BODY + b"\r\n0\r\n\r\n"),
    coded("extension with a bare CR", b"%x;a\rb\r\n" % len(BODY) + BODY + b"\r\n0\r\n\r\n"),
    coded("extension with a NUL", b"%x;a=\x00\r\n" % len(BODY) + BODY + b"\r\n0\r\n\r\n"),
    coded("extension with a space before it", b"%x ;a=b\r\n" % len(BODY) + BODY + b"\r\n0\r\n\r\n"),
    coded("extension without a name", b"%x;\r\n" % len(BODY) + BODY + b"\r\n0\r\n\r\n"),
    coded("extension without a semicolon", b"%x,a=b\r\n" % len(BODY) + BODY + b"\r\n0\r\n\r\n"),
    coded("extension with an open quote", b'%x;a="b\r\n' % len(BODY) + BODY + b"\r\n0\r\n\r\n"),
    coded("extension with a line end in quotes", b'%x;a="b\r\n"\r\n' % len(BODY) + BODY + b"\r\n0\r\n\r\n"),
    coded("extension of 600 bytes", b"%x;a=" % len(BODY) + b"b" * 600 + b"\r\n" + BODY + b"\r\n0\r\n\r\n"),
    coded("extensions that dwarf the body", b"1;a=" + (b"b" * 400 + b"\r\n{\r\n1;a=") * 60 + b"b\r\n}\r\n0\r\n\r\n"),
    coded("trailer line without a colon", chunks(BODY)[:-2] + b"oops\r\n\r\n"),
    coded("trailer folded", chunks(BODY)[:-2] + b"A: b\r\n c\r\n\r\n"),
    coded("trailer with a bare LF", chunks(BODY)[:-2] + b"A: b\n\r\n"),
    coded("trailer with a space before its colon", chunks(BODY)[:-2] + b"A : b\r\n\r\n"),
    coded("trailer with a NUL", chunks(BODY)[:-2] + b"A: \x00\r\n\r\n"),
    coded("trailer of 9 KiB", chunks(BODY)[:-2] + b"A: " + b"b" * 9000 + b"\r\n\r\n", statuses=(400, 413, 431)),
    yes("one chunk", head(CODED) + chunks(BODY)),
    yes("two chunks", head(CODED) + chunks(BODY[:10], BODY[10:])),
    yes("one byte a chunk", head(CODED) + chunks(*(bytes((byte,)) for byte in BODY))),
    yes("one byte a segment", *(bytes((byte,)) for byte in head(CODED) + chunks(BODY))),
    yes("chunk size in upper case", head(CODED) + b"%X\r\n" % len(BODY) + BODY + b"\r\n0\r\n\r\n"),
    yes("chunk size with leading zeros", head(CODED) + b"%08x\r\n" % len(BODY) + BODY + b"\r\n0\r\n\r\n"),
    yes("last chunk of many zeros", head(CODED) + chunks(BODY)[:-5] + b"00000000\r\n\r\n"),
    yes("coding name in capitals", head(b"Transfer-Encoding: CHUNKED") + chunks(BODY)),
    yes("coding between tabs", head(b"Transfer-Encoding:\tchunked\t") + chunks(BODY)),
    yes("a short extension", head(CODED) + b"%x;a=b\r\n" % len(BODY) + BODY + b"\r\n0\r\n\r\n"),
    yes("a quoted extension", head(CODED) + b'%x;a="b;\\"c"\r\n' % len(BODY) + BODY + b"\r\n0;last\r\n\r\n"),
    yes("a trailer is dropped", head(CODED) + chunks(BODY)[:-2] + b"X-Checksum: 1\r\n\r\n"),
    yes(
        "a trailer does not change the request",
        head(CODED) + chunks(BODY)[:-2] + b"Content-Length: 0\r\nHost: b\r\n\r\n",
    ),
    yes("a body that looks like a chunk", head(LENGTH) + BODY),
]

BYTES = [
    no("bare LF everywhere", head(LENGTH).replace(b"\r\n", b"\n") + BODY),
    no("bare LF behind the request line", head(LENGTH).replace(b"\r\n", b"\n", 1) + BODY),
    no("bare CR behind the request line", head(LENGTH).replace(b"\r\n", b"\r", 1) + BODY),
    no("bare LF at the end of the head", head(LENGTH)[:-2] + b"\n" + BODY),
    no("CR CR LF", head(b"X-A: b\r", LENGTH) + BODY),
    *(
        no(f"byte {byte:#04x} in a field's value", head(b"X-A: b" + bytes((byte,)) + b"c", LENGTH) + BODY)
        for byte in (0x00, 0x01, 0x07, 0x08, 0x0B, 0x0C, 0x1B, 0x1F, 0x7F)
    ),
    *(
        no(f"{name} in a field's name", head(b"X" + byte + b"A: b", LENGTH) + BODY)
        for name, byte in (
            ("NUL", b"\x00"),
            ("a space", b" "),
            ("a tab", b"\t"),
            ("a slash", b"/"),
            ("a comma", b","),
            ("a quote", b'"'),
            ("an at sign", b"@"),
            ("a bracket", b"["),
            ("a brace", b"{"),
            ("a non-ASCII letter", b"\xe4"),
            ("DEL", b"\x7f"),
        )
    ),
    no("a space before a colon", head(b"X-A : b", LENGTH) + BODY),
    no("a field without a colon", head(b"X-A", LENGTH) + BODY),
    no("a field without a name", head(b": b", LENGTH) + BODY),
    no("a fold with a space", head(b"X-A: b\r\n c", LENGTH) + BODY),
    no("a fold with a tab", head(b"X-A: b\r\n\tc", LENGTH) + BODY),
    no("a fold before the first field", LINE + b"\r\n " + HOST + b"\r\n" + LENGTH + b"\r\n\r\n" + BODY),
    no("a space at the start of a field", head(b" X-A: b", LENGTH) + BODY),
    yes("a value with other alphabets", head("X-A: żółw".encode(), LENGTH) + BODY),
    yes("a value with a tab inside", head(b"X-A: b\tc", LENGTH) + BODY),
    yes("an empty value", head(b"X-A:", LENGTH) + BODY),
    yes("a value with colons", head(b"X-A: b:c::d", LENGTH) + BODY),
    yes("every mark that a name may have", head(b"!#$%&'*+-.^_`|~9: b", LENGTH) + BODY),
    yes("one empty line before the request", b"\r\n" + head(LENGTH) + BODY),
    no("two empty lines before the request", b"\r\n\r\n" + head(LENGTH) + BODY),
    no("a bare LF before the request", b"\n" + head(LENGTH) + BODY),
    no("a space before the request", b" " + head(LENGTH) + BODY),
    no("a TLS hello", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x00" * 64, path_only=True),
    no("text that is no HTTP", b"hello, anybody there?\r\n\r\n", path_only=True),
]

SIZES = [
    no("a request line of 9 KiB", head(LENGTH, line=b"POST /" + b"a" * 9000 + b" HTTP/1.1") + BODY, statuses=(414,)),
    no("a request line without an end", b"POST /" + b"a" * 20000, statuses=(414,)),
    no(
        "a query of 1025 bytes",
        head(LENGTH, line=b"POST " + PATH + b"?" + b"a" * 1025 + b" HTTP/1.1") + BODY,
        statuses=(414,),
    ),
    no("a method of 9 KiB", head(LENGTH, line=b"A" * 9000 + b" " + PATH + b" HTTP/1.1") + BODY, statuses=(405, 414)),
    no("a field of 40 KiB", head(b"X-A: " + b"b" * 40000, LENGTH) + BODY, statuses=(431,)),
    no("a field's name of 40 KiB", head(b"A" * 40000 + b": b", LENGTH) + BODY, statuses=(431,)),
    no("a head without an end", head()[:-2] + b"X-A: b\r\n" * 8000, statuses=(431,)),
    no("101 fields", head(*(b"X-%d: a" % each for each in range(98)), LENGTH) + BODY, statuses=(431,)),
    no("1000 short fields", head(*[b"A:"] * 1000, LENGTH) + BODY, statuses=(431,)),
    yes("100 fields", head(*(b"X-%d: a" % each for each in range(97)), LENGTH) + BODY),
    yes("a field of 16 KiB", head(b"X-A: " + b"b" * 16384, LENGTH) + BODY),
    yes("a query of 1024 bytes", head(LENGTH, line=b"POST " + PATH + b"?" + b"a" * 1024 + b" HTTP/1.1") + BODY),
]

TARGETS = [
    target("absolute target", b"http://gateway.test" + PATH),
    target("absolute target of another host", b"http://evil.test" + PATH),
    target("absolute target, https", b"https://gateway.test" + PATH),
    target("absolute target without a path", b"http://gateway.test"),
    target("authority as a target", b"gateway.test:80"),
    target("asterisk as a target", b"*"),
    no("OPTIONS *", head(line=b"OPTIONS * HTTP/1.1", kind=None), path_only=True),
    target("target without a slash", b"v1/chat/completions"),
    target("target of a query alone", b"?a=b"),
    target("fragment in the target", PATH + b"#a"),
    target("fragment behind a query", PATH + b"?a=b#c"),
    target("backslash in the target", b"/v1\\chat\\completions"),
    target("non-ASCII target", b"/v1/ch\xc3\xa4t"),
    target("non-ASCII query", PATH + b"?a=\xff"),
    target("NUL in the target", b"/v1/chat\x00/completions"),
    target("DEL in the target", b"/v1/chat\x7f/completions"),
    target("space in the target", b"/v1/chat /completions"),
    target("tab in the target", b"/v1/chat\t/completions"),
    target("quote in the target", b'/v1/"chat"/completions'),
    target("brace in the target", b"/v1/{chat}/completions"),
    target("half a percent-encoding", b"/v1/chat%2/completions"),
    target("percent-encoding that is no hex", b"/v1/chat%zz/completions"),
    target("encoded slash", b"/v1%2fchat/completions", FOUND_NOWHERE),
    target("encoded dot segment", b"/v1/x/%2e%2e/chat/completions", FOUND_NOWHERE),
    target("encoded letter", b"/v1/%63hat/completions", FOUND_NOWHERE),
    target("encoded NUL", PATH + b"%00", FOUND_NOWHERE),
    target("encoded question mark", PATH + b"%3fa=b", FOUND_NOWHERE),
    target("dot segments", b"/v1/../v1/chat/completions", FOUND_NOWHERE),
    target("a dot segment", b"/v1/./chat/completions", FOUND_NOWHERE),
    target("double slash at the start", b"/" + PATH, FOUND_NOWHERE),
    target("double slash inside", b"/v1//chat/completions", FOUND_NOWHERE),
    target("slash at the end", PATH + b"/", FOUND_NOWHERE),
    target("path parameter", PATH + b";a=b", FOUND_NOWHERE),
    target("other case", b"/V1/Chat/Completions", FOUND_NOWHERE),
    target("other path", b"/admin", FOUND_NOWHERE),
    target("root", b"/", FOUND_NOWHERE),
    yes("an empty query", head(LENGTH, line=b"POST " + PATH + b"? HTTP/1.1") + BODY),
    yes("a query", head(LENGTH, line=b"POST " + PATH + b"?api-version=2024-10-21&a=%2f HTTP/1.1") + BODY),
    yes("a query with question marks", head(LENGTH, line=b"POST " + PATH + b"?a=b?c=/d HTTP/1.1") + BODY),
]

HOSTS = [
    counted("host absent", host=None),
    counted("host twice", HOST),
    counted("host twice, different", b"Host: other.test"),
    counted("host twice, the second in lower case", b"host: gateway.test"),
    counted("host named by Connection", b"Connection: host"),
    host("empty", b""),
    host("with a path", b"gateway.test/admin"),
    host("with a query", b"gateway.test?a"),
    host("with a fragment", b"gateway.test#a"),
    host("with a user", b"user@gateway.test"),
    host("with a user and a password", b"user:pass@gateway.test"),
    host("with a scheme", b"http://gateway.test"),
    host("with a space", b"gateway.test evil.test"),
    host("with a tab", b"gateway\ttest"),
    host("with a comma", b"gateway.test, evil.test"),
    host("with a backslash", b"gateway.test\\evil.test"),
    host("percent-encoded", b"gateway%2etest"),
    host("non-ASCII", b"g\xc3\xa4teway.test"),
    host("in quotes", b'"gateway.test"'),
    host("with a semicolon", b"gateway.test;evil.test"),
    host("with a NUL", b"gateway.test\x00"),
    host("with an open bracket", b"[::1"),
    host("with an empty bracket", b"[]"),
    host("with a name in brackets", b"[gateway.test]"),
    host("with two groups too many", b"[1:2:3:4:5:6:7:8:9:a]"),
    host("with text behind the bracket", b"[::1]evil"),
    host("of a bare IPv6 address", b"::1"),
    host("with two ports", b"gateway.test:80:81"),
    host("with a port of letters", b"gateway.test:http"),
    host("with a negative port", b"gateway.test:-80"),
    host("with a port too large", b"gateway.test:65536"),
    host("with port zero", b"gateway.test:0"),
    host("of 300 bytes", b"a" * 300),
    counted("host with a space before its colon", host=b"Host : gateway.test"),
    counted("host folded", host=b"Host:\r\n gateway.test"),
    yes("host with a port", head(LENGTH, host=b"Host: gateway.test:8080") + BODY),
    yes("host of an IPv4 address", head(LENGTH, host=b"Host: 127.0.0.1:8080") + BODY),
    yes("host of an IPv6 address", head(LENGTH, host=b"Host: [2001:db8::1]:8080") + BODY),
    yes("host with an underscore", head(LENGTH, host=b"Host: my_gateway:8080") + BODY),
    yes("host with a final dot", head(LENGTH, host=b"Host: gateway.test.") + BODY),
    yes("host in capitals", head(LENGTH, host=b"HOST: GATEWAY.TEST") + BODY),
    yes("host last", head(LENGTH, HOST, host=None) + BODY),
]

VERSIONS = [
    *(
        counted(f"version {version.decode()!r}", line=b"POST " + PATH + b" " + version)
        for version in (
            b"HTTP/2.0",
            b"HTTP/2",
            b"HTTP/3.0",
            b"HTTP/1.2",
            b"HTTP/0.9",
            b"HTTP/1.10",
            b"HTTP/11",
            b"HTTP/1,1",
            b"http/1.1",
            b"HTTP/ 1.1",
            b"HTTP/1.1 ",
            b"HTTPS/1.1",
            b"ICE/1.0",
            b"",
        )
    ),
    counted("no version", line=b"POST " + PATH),
    no("HTTP/0.9", b"GET " + PATH + b"\r\n", path_only=True),
    no("the preface of HTTP/2", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\x00" * 9, path_only=True),
    counted("two spaces before the target", line=b"POST  " + PATH + b" HTTP/1.1"),
    counted("two spaces behind the target", line=b"POST " + PATH + b"  HTTP/1.1"),
    counted("a tab before the target", line=b"POST\t" + PATH + b" HTTP/1.1"),
    counted("a fourth word", line=LINE + b" HTTP/1.1"),
    yes("HTTP/1.0", head(LENGTH, line=b"POST " + PATH + b" HTTP/1.0") + BODY),
    yes("HTTP/1.0 without a host", head(LENGTH, line=b"POST " + PATH + b" HTTP/1.0", host=None) + BODY),
    yes(
        "HTTP/1.0 that wants to stay",
        head(b"Connection: keep-alive", LENGTH, line=b"POST " + PATH + b" HTTP/1.0") + BODY,
    ),
    no("HTTP/1.0 with two hosts", head(HOST, LENGTH, line=b"POST " + PATH + b" HTTP/1.0") + BODY),
]

METHODS = [
    *(
        no(
            f"method {method.decode()!r}",
            head(LENGTH, line=method + b" " + PATH + b" HTTP/1.1") + BODY,
            statuses=statuses,
        )
        for method, statuses in (
            (b"post", (400, 405, 501)),
            (b"Post", (400, 405, 501)),
            (b"TRACE", (400, 405, 501)),
            (b"PRI", (400, 405, 501)),
            (b"PROPFIND", (400, 405, 501)),
            (b"M-SEARCH", (400, 405, 501)),
            (b"P@ST", BAD),
            (b"PO\x00ST", BAD),
            (b"", BAD),
        )
    ),
    no("CONNECT", head(line=b"CONNECT gateway.test:443 HTTP/1.1", kind=None), statuses=(400, 405, 501), path_only=True),
    no("CONNECT to a path", head(line=b"CONNECT " + PATH + b" HTTP/1.1"), statuses=(400, 405, 501), path_only=True),
]

CONNECTIONS = [
    no("an unknown expectation", head(b"Expect: 200-ok", LENGTH) + BODY, statuses=(417,)),
    no("an empty expectation", head(b"Expect:", LENGTH) + BODY, statuses=(400, 417)),
    no("two expectations in one", head(b"Expect: 100-continue, 100-continue", LENGTH) + BODY, statuses=(400, 417)),
    counted("two expectations", b"Expect: 100-continue", b"Expect: 100-continue"),
    yes("an expectation, body in the same segment", head(b"Expect: 100-continue", LENGTH) + BODY),
    yes("an expectation in capitals", head(b"EXPECT: 100-Continue", LENGTH) + BODY),
    yes(
        "an expectation in HTTP/1.0", head(b"Expect: 100-continue", LENGTH, line=b"POST " + PATH + b" HTTP/1.0") + BODY
    ),
    yes("close", head(b"Connection: close", LENGTH) + BODY),
    yes("close among others", head(b"Connection: keep-alive , Close", LENGTH) + BODY),
    yes("two Connection headers", head(b"Connection: keep-alive", b"Connection: x-a", b"X-A: b", LENGTH) + BODY),
    yes("a Connection header that names a header", head(b"Connection: x-a", b"X-A: b", LENGTH) + BODY),
    yes("a Connection header that names none", head(b"Connection: x-none", LENGTH) + BODY),
    yes("an empty Connection header", head(b"Connection:", LENGTH) + BODY),
    yes("Proxy-Connection", head(b"Proxy-Connection: keep-alive", LENGTH) + BODY),
    yes("upgrade to websocket", head(b"Connection: Upgrade", b"Upgrade: websocket", LENGTH) + BODY),
    yes(
        "upgrade to h2c",
        head(b"Connection: Upgrade, HTTP2-Settings", b"Upgrade: h2c", b"HTTP2-Settings: AA", LENGTH) + BODY,
    ),
    yes("TE and Trailer", head(b"TE: trailers", b"Trailer: X-A", LENGTH) + BODY),
    yes(
        "headers that pretend to be a proxy's",
        head(b"X-Forwarded-Host: evil.test", b"X-Original-URL: /admin", LENGTH) + BODY,
    ),
    yes("headers that pretend to change the method", head(b"X-HTTP-Method-Override: DELETE", LENGTH) + BODY),
    yes("a second request in the same segment", head(LENGTH) + BODY + SECOND),
    yes("a second request in the segment of the body", head(LENGTH), BODY + SECOND),
    yes("ten more requests", head(LENGTH) + BODY + SECOND * 10),
    yes("a request behind a chunked one", head(CODED) + chunks(BODY) + SECOND),
    yes("an empty line behind the body", head(LENGTH) + BODY + b"\r\n"),
    yes("garbage behind the body", head(LENGTH) + BODY + b"\x00\xff"),
    yes(
        "CL.0: a body behind a request that has none",
        head(line=b"GET " + PATH + b" HTTP/1.1") + SECOND,
        body=b"",
        path_only=True,
    ),
    yes("0.CL: a length of zero and a body", head(b"Content-Length: 0") + SECOND, body=b"", path_only=True),
]

ROWS = [*FRAMING, *CHUNKS, *BYTES, *SIZES, *TARGETS, *HOSTS, *VERSIONS, *METHODS, *CONNECTIONS]


async def send(address: tuple[str, int], row: Row, within: float = 5.0) -> tuple[Answer, bool]:
    """Send a row on a connection of its own; the answer, and whether the server then closed the connection.

    A server may answer and close before everything is sent: that is what its answer is for.
    """
    async with asyncio.timeout(within):
        reader, writer = await asyncio.open_connection(*address)
        try:
            for segment in row.segments:
                writer.write(segment)
                await writer.drain()
            answer = await read_answer(reader, head_only=row.segments[0].startswith(b"HEAD "))
            # A 404 is the application's word on a request that was framed well: the connection may stay.
            closed = bool(row.statuses) and answer.status != 404 and await reader.read() == b""
        except ConnectionError:
            answer, closed = Answer(0, b"", b""), True
        finally:
            writer.transport.abort()
    return answer, closed


async def read_answer(reader: asyncio.StreamReader, *, head_only: bool = False) -> Answer:
    """Read one final response, whatever its framing; 1xx are skipped."""
    try:
        raw = await reader.readuntil(b"\r\n\r\n")
        while raw.startswith(b"HTTP/1.1 1"):
            raw = await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError:
        return Answer(0, b"", b"")
    lowered = raw.lower()
    if head_only:
        body = b""
    elif b"transfer-encoding: chunked" in lowered:
        body = await _read_chunked(reader)
    elif b"content-length:" in lowered:
        body = await reader.readexactly(int(lowered.split(b"content-length:")[1].split(b"\r\n")[0]))
    else:
        body = await reader.read()
    return Answer(int(raw.split(b" ", 2)[1]), raw, body)


async def _read_chunked(reader: asyncio.StreamReader) -> bytes:
    body = b""
    while size := int(await reader.readuntil(b"\r\n"), 16):
        body += await reader.readexactly(size)
        await reader.readexactly(2)
    await reader.readexactly(2)
    return body
