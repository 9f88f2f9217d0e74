"""The guard's three questions: is it one plain URL, may it be opened, are all of its addresses public?"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.errors import InvalidImageUrl
from app.media.netguard import Guard, SystemResolver, Unresolvable, is_handable, is_public, parse_url

# (first, last or typical address, what it is): each row's addresses are refused
REFUSED_V4 = [
    ("0.0.0.0", "0.255.255.255", "RFC 791 this network"),
    ("10.0.0.0", "10.255.255.255", "RFC 1918"),
    ("100.64.0.0", "100.127.255.255", "RFC 6598 CGNAT"),
    ("100.100.100.200", "100.100.100.200", "Alibaba metadata"),
    ("127.0.0.0", "127.255.255.255", "RFC 1122 loopback"),
    ("168.63.129.16", "168.63.129.16", "Azure host agent"),
    ("169.254.0.0", "169.254.255.255", "RFC 3927 link-local"),
    ("169.254.169.254", "169.254.170.2", "AWS, GCP, Azure metadata; ECS credentials"),
    ("172.16.0.0", "172.31.255.255", "RFC 1918"),
    ("192.0.0.0", "192.0.0.255", "RFC 6890; 192.0.0.192 is Oracle's metadata"),
    ("192.0.2.0", "192.0.2.255", "RFC 5737 documentation"),
    ("192.88.99.0", "192.88.99.255", "RFC 7526 6to4 relay"),
    ("192.168.0.0", "192.168.255.255", "RFC 1918"),
    ("198.18.0.0", "198.19.255.255", "RFC 2544 benchmarking"),
    ("198.51.100.0", "198.51.100.255", "RFC 5737 documentation"),
    ("203.0.113.0", "203.0.113.255", "RFC 5737 documentation"),
    ("224.0.0.0", "239.255.255.255", "RFC 5771 multicast"),
    ("240.0.0.0", "255.255.255.254", "RFC 1112 reserved"),
    ("255.255.255.255", "255.255.255.255", "RFC 919 broadcast"),
]
REFUSED_V6 = [
    ("::", "::", "RFC 4291 unspecified"),
    ("::1", "::1", "RFC 4291 loopback"),
    ("::7f00:1", "::8.8.8.8", "RFC 4291 IPv4-compatible"),
    ("::ffff:127.0.0.1", "::ffff:169.254.169.254", "RFC 4291 IPv4-mapped"),
    ("64:ff9b::127.0.0.1", "64:ff9b::a9fe:a9fe", "RFC 6052 NAT64"),
    ("64:ff9b:1::", "64:ff9b:1:ffff:ffff:ffff:ffff:ffff", "RFC 8215 local NAT64"),
    ("64:ff9b:1::127.0.0.1", "64:ff9b:1::8.8.8.8", "RFC 8215 local NAT64"),
    ("100::", "100::ffff:ffff:ffff:ffff", "RFC 6666 discard"),
    ("2001::", "2001:0:ffff:ffff:ffff:ffff:ffff:ffff", "RFC 4380 Teredo"),
    ("2001:0:4136:e378:8000:63bf:3fff:fdd2", "2001:0:1:1:0:0:80ff:fffe", "RFC 4380 Teredo, carries 127.0.0.1"),
    ("2001:2::", "2001:2:0:ffff:ffff:ffff:ffff:ffff", "RFC 5180 benchmarking"),
    ("2001:10::", "2001:2f:ffff:ffff:ffff:ffff:ffff:ffff", "RFC 4843, 7343 ORCHID"),
    ("2001:db8::", "2001:db8:ffff:ffff:ffff:ffff:ffff:ffff", "RFC 3849 documentation"),
    ("2002::", "2002:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "RFC 3056 6to4"),
    ("2002:7f00:1::", "2002:a9fe:a9fe::1", "RFC 3056 6to4 of loopback, metadata"),
    ("2606:4700::5efe:127.0.0.1", "2606:4700::200:5efe:10.0.0.1", "RFC 5214 ISATAP"),
    ("3fff::", "3fff:fff:ffff:ffff:ffff:ffff:ffff:ffff", "RFC 9637 documentation"),
    ("4000::", "5f00::1", "unassigned; RFC 9602 segment routing"),
    ("fc00::", "fdff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "RFC 4193 unique local"),
    ("fd00:ec2::254", "fd20:ce::254", "metadata of AWS, GCP"),
    ("fe80::", "febf:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "RFC 4291 link-local"),
    ("fe80::5efe:8.8.8.8", "fe80::1%1", "RFC 5214 ISATAP on a link; with a zone"),
    ("fec0::", "feff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "RFC 3879 site-local"),
    ("ff00::", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "RFC 4291 multicast"),
]
PUBLIC = """
    1.1.1.1 8.8.8.8 9.255.255.255 11.0.0.0 100.63.255.255 100.128.0.0 126.255.255.255 128.0.0.0 168.63.129.15
    168.63.129.17 169.253.255.255 169.255.0.0 172.15.255.255 172.32.0.0 192.0.1.0 192.0.3.0 192.167.255.255
    192.169.0.0 198.17.255.255 198.20.0.0 223.255.255.255 2606:4700:4700::1111 2a00:1450:4001:81b::200e
    2001:4860:4860::8888 2003::1 ::ffff:8.8.8.8 64:ff9b::8.8.8.8 2606:4700::5efe:8.8.8.8
""".split()  # noqa: SIM905


@pytest.mark.parametrize(("first", "last", "why"), REFUSED_V4 + REFUSED_V6)
def test_addresses_of_no_public_server_are_refused(first: str, last: str, why: str) -> None:
    assert not is_public(first), why
    assert not is_public(last), why


@pytest.mark.parametrize(("first", "last", "why"), REFUSED_V4)
def test_they_are_refused_inside_ipv6_as_well(first: str, last: str, why: str) -> None:
    for v4 in (first, last):
        high, low = int(ip_address(v4)) >> 16, int(ip_address(v4)) & 0xFFFF
        for v6 in (
            f"::ffff:{v4}",
            f"::{v4}" if int(ip_address(v4)) > 1 else "::",
            f"64:ff9b::{v4}",
            f"64:ff9b:1::{v4}",
            f"2002:{high:x}:{low:x}::1",
            f"2001:0:4136:e378:8000:63bf:{high ^ 0xFFFF:x}:{low ^ 0xFFFF:x}",
            f"2606:4700::5efe:{v4}",
            f"2606:4700::200:5efe:{v4}",
        ):
            assert not is_public(v6), (v6, why)


@pytest.mark.parametrize("address", PUBLIC)
def test_public_addresses_are_public(address: str) -> None:
    assert is_public(address)


@given(st.ip_addresses(v=4))
def test_the_v4_table_is_never_laxer_than_the_standard_library(address: object) -> None:
    if is_public(str(address)):
        assert ip_address(str(address)).is_global


@pytest.mark.parametrize("text", ["", "localhost", "1", "0x7f.1", "127.1", "127.0.0.01", "1.2.3.4/32", " 8.8.8.8"])
def test_what_is_no_address_is_not_public(text: str) -> None:
    assert not is_public(text)


# What tricks servers into their own network, by spelling. All of these are refused without a look at DNS.
TRICKS = """
    http://2130706433/ https://2130706433/ https://017700000001/ https://0x7f000001/ https://0x7f.1/
    https://0x7F.0.0.1/ https://127.1/ https://127.0.1/ https://0177.0.0.1/ https://127.0.0.01/
    https://0x7f.0x0.0x0.0x1/ https://0/ https://0x/ https://00000177.1/ https://127.0.0.1./ https://127.0.0.1.1/
    https://127.0.0.256/ https://4294967295/ https://127.0.0.1/ https://127.127.127.127/ https://0.0.0.0/
    https://169.254.169.254/latest/meta-data/ https://100.100.100.200/ https://168.63.129.16/ https://192.0.0.192/
    https://10.0.0.1/ https://192.168.1.1/ https://255.255.255.255/ https://224.0.0.1/
    https://metadata.google.internal/ https://foo.local/ https://x.onion/ https://localhost/ https://localhost./
    https://LOCALHOST/ https://a.localhost/ https://localhost.localdomain/ https://metadata/ https://db.lan/
    https://printer.home.arpa/ https://ip6-localhost/ https://[::1]/ https://[::]/ https://[::ffff:127.0.0.1]/
    https://[::ffff:7f00:1]/ https://[0:0:0:0:0:ffff:127.0.0.1]/ https://[::127.0.0.1]/ https://[fe80::1]/
    https://[fe80::1%25eth0]/ https://[::1%25]/ https://[fec0::1]/ https://[fd00:ec2::254]/
    https://[64:ff9b::7f00:1]/ https://[64:ff9b:1::7f00:1]/ https://[2002:7f00:1::]/
    https://[2001:0:4136:e378::80ff:fffe]/ https://[::1/ https://::1/ https://::1]/ https://[[::1]]/ https://[]/
    https://[127.0.0.1]/ https://[::1]x/ https://[::1]:/ https://[v1.a]/ https://[::g]/ https://[ff02::1]/
    https://a@127.0.0.1/ https://a:b@example.com/ https://@example.com/ https://example.com@127.0.0.1/
    https://:@example.com/ https://example.com#@127.0.0.1/ https://127.0.0.1#@example.com/
    https://example.com?@127.0.0.1/ https://example.com\\@127.0.0.1/ https://example.com\\.127.0.0.1/
    https:\\\\127.0.0.1/ https:/\\127.0.0.1/ https://example.com/a\\b https://example.com;127.0.0.1/
    https://127.0.0.1%2f@example.com/ https://example.com%2f/ https://127%2e0%2e0%2e1/ https://%6c%6f%63%61lhost/
    https://example.com%00/ https://example.com%23/ https://exa%20mple.com/ https://127.0.0.1%09/ https:/127.0.0.1/
    https:127.0.0.1/ https:///127.0.0.1/ https:////127.0.0.1/ //127.0.0.1/ /etc/passwd 127.0.0.1 example.com/x.png
    file:///etc/passwd file://localhost/etc/passwd ftp://example.com/x gopher://127.0.0.1:6379/_ dict://127.0.0.1/
    ldap://127.0.0.1/ jar:https://example.com!/ data:image/png;base64,AAAA javascript:alert(1)
    unix:///run/docker.sock blob:https://example.com/1 netdoc:///etc/passwd httpx://example.com/
    hhttps://example.com/ s3://bucket/key https+unix://x/ ws://example.com/ url:https://a.com/
    https://example.com:22/ https://example.com:6379/ https://example.com:8080/ https://example.com:0/
    https://example.com:/ https://example.com:00443/ https://example.com:+443/ https://example.com:-1/
    https://example.com:65536/ https://example.com:99999/ https://example.com:443:80/
    https://example.com:443@127.0.0.1/ https://example.com:٤٤٣/ https://example.com:4٤3/ http://example.com/
    http://127.0.0.1/ http://localhost:80/ HTTP://EXAMPLE.COM/ https://１２７.０.０.１/ https://127。0。0。1/
    https://①②⑦.⓪.⓪.①/ https://ⓛⓞⓒⓐⓛⓗⓞⓢⓣ/ https://ｌocalhost/ https://exampⅼe.com/ https://münchen.de/
    https://example.com\u200b/ https://\u202eexample.com/ https://۱۲۷.۰.۰.۱/ httpſ://example.com/
    https://.example.com/ https://example..com/ https://example.com./ https://-a.com/ https://a-.com/ https://./
    https://.../ https:// https://# https://? https://?x@y https://: https://@ http https
""".split()  # noqa: SIM905
ODD = [
    "",
    " https://example.com/",
    "https://example.com/ ",
    "https://example.com /",
    "https://exa mple.com/",
    "https://example.com/a b.png",
    "\thttps://example.com/",
    "ht\ntps://example.com/",
    "https://example.com/\r\nHost: 127.0.0.1",
    "https://example.com\r\n/",
    "https://example.com/a\tb",
    "https://example.com/\n",
    "https://example.com/\x00",
    "https://example.com/\x7f",
    "https://127.0.0.1\x00.example.com/",
    "https://exam\u00adple.com/",
    "https://example.com\u2028/",
    "https://example.com/\ud800",
    "https://" + "a" * 64 + ".com/",
    "https://" + "a." * 130 + "com/",
    "https://example.com/" + "a" * 10_000,
]


async def no_dns(host: str, port: int) -> Sequence[str]:
    raise AssertionError(f"{host} was looked up")


@pytest.mark.parametrize("url", TRICKS + ODD)
def test_tricky_spellings_are_refused_before_dns(url: str) -> None:
    with pytest.raises(InvalidImageUrl) as caught:
        asyncio.run(Guard(resolver=no_dns).check(url))
    assert caught.value.code == "invalid_image_url"
    assert not is_handable(url)


@given(st.text(max_size=80))
def test_no_text_breaks_the_parser(text: str) -> None:
    for url in (text, f"https://{text}/x", f"https://example.com/{text}"):
        try:
            parsed = parse_url(url)
        except InvalidImageUrl:
            continue
        assert parse_url(str(parsed)) == parsed  # one reading, and it is a fixed point
        assert str(parsed).isascii()
        assert str(parsed).isprintable()
        assert " " not in str(parsed)


@pytest.mark.parametrize(
    ("url", "reading"),
    [
        ("https://example.com", "https://example.com/"),
        ("HTTPS://Example.COM/A.png", "https://example.com/A.png"),
        ("https://example.com:443/a", "https://example.com/a"),
        ("https://example.com:80/a", "https://example.com:80/a"),
        ("https://example.com/a?b=c&d=%2F#frag", "https://example.com/a?b=c&d=%2F"),
        ("https://example.com?x=1", "https://example.com/?x=1"),
        ("https://example.com/@user/a.png", "https://example.com/@user/a.png"),
        ("https://example.com/café/雪.png?q=é", "https://example.com/caf%C3%A9/%E9%9B%AA.png?q=%C3%A9"),
        ("https://my_bucket.s3.amazonaws.com/k", "https://my_bucket.s3.amazonaws.com/k"),
        ("https://xn--mnchen-3ya.de/", "https://xn--mnchen-3ya.de/"),
        ("https://8.8.8.8/", "https://8.8.8.8/"),
        ("https://[2606:4700:4700:0:0:0:0:1111]/", "https://[2606:4700:4700::1111]/"),
        ("http://minio:9000/b/k", "http://minio:9000/b/k"),
    ],
)
def test_plain_urls_have_one_reading(url: str, reading: str) -> None:
    assert str(parse_url(url)) == reading


class Dns:
    """A resolver with an answer per turn; the last one stays."""

    def __init__(self, *answers: Sequence[str]) -> None:
        self.answers = list(answers)
        self.asked: list[tuple[str, int]] = []

    async def __call__(self, host: str, port: int) -> Sequence[str]:
        self.asked.append((host, port))
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]


def test_a_checked_url_carries_the_addresses_to_connect_to() -> None:
    dns = Dns(["93.184.216.34", "2606:2800:220:1::1"])
    target = asyncio.run(Guard(resolver=dns).check("https://example.com/a.png?x=1"))
    assert str(target.address) == "93.184.216.34"
    assert len(target.addresses) == 2
    assert (target.url.scheme, target.url.host, target.url.port, target.url.path) == (
        "https",
        "example.com",
        443,
        "/a.png?x=1",
    )
    assert dns.asked == [("example.com", 443)]


@pytest.mark.parametrize(
    "answer",
    [
        ["127.0.0.1"],
        ["::1"],
        ["8.8.8.8", "127.0.0.1"],
        ["127.0.0.1", "8.8.8.8"],
        ["8.8.8.8", "2606:4700::1", "fd00::1"],
        ["::ffff:10.0.0.1"],
        ["fe80::1%eth0"],
        ["169.254.169.254"],
        ["0.0.0.0"],
    ],
)
def test_one_record_that_is_not_public_refuses_the_host(answer: list[str]) -> None:
    with pytest.raises(InvalidImageUrl) as caught:
        asyncio.run(Guard(resolver=Dns(answer)).check("https://127.0.0.1.nip.io/"))
    assert caught.value.message == "The URL's address is not public."  # what it resolves to is nobody's business …
    assert caught.value.detail.startswith("127.0.0.1.nip.io is ")  # … but the operator's


@pytest.mark.parametrize("answer", [[], ["not an address"]])
def test_a_host_without_addresses_is_unresolvable(answer: list[str]) -> None:
    with pytest.raises(Unresolvable):
        asyncio.run(Guard(resolver=Dns(answer)).check("https://example.com/"))


def test_a_failing_resolver_is_unresolvable() -> None:
    async def broken(host: str, port: int) -> Sequence[str]:
        raise OSError(-3, "Temporary failure in name resolution")

    with pytest.raises(Unresolvable) as caught:
        asyncio.run(Guard(resolver=broken).check("https://example.com/"))
    assert caught.value.message == "The URL's host cannot be resolved."


def test_allowed_origins_are_allowed_exactly() -> None:
    guard = Guard(
        frozenset({"http://127.0.0.1:9000", "http://minio:9000/", "http://[::1]:9000"}), resolver=Dns(["10.0.0.5"])
    )
    for url in ("http://127.0.0.1:9000/a", "http://minio:9000/b", "http://MINIO:9000", "http://[::1]:9000/c"):
        assert asyncio.run(guard.check(url)).addresses
    for url in (
        "http://127.0.0.1:9001/",
        "https://127.0.0.1:9000/",
        "http://127.0.0.1/",
        "http://127.0.0.2:9000/",
        "http://localhost:9000/",
        "http://minio/",
        "http://a@127.0.0.1:9000/",
        "http://127.0.0.1:9000@example.com/",
        "http://2130706433:9000/",
    ):
        with pytest.raises(InvalidImageUrl):
            asyncio.run(guard.check(url))


def test_an_allowed_origin_that_is_none_stops_the_start() -> None:
    with pytest.raises(ValueError, match="127"):
        Guard(frozenset({"127.0.0.1:9000"}))


def test_http_can_be_allowed_but_only_to_the_public() -> None:
    guard = Guard(allow_http=True, resolver=Dns(["8.8.8.8"]))
    assert asyncio.run(guard.check("http://example.com/")).url.port == 80
    for url in ("http://127.0.0.1/", "http://localhost/", "http://example.com:8080/"):
        with pytest.raises(InvalidImageUrl):
            asyncio.run(guard.check(url))


@pytest.mark.parametrize(
    ("url", "handable"),
    [
        ("https://v3.fal.media/files/a/b.png", True),
        ("https://example.com:443/x", True),
        ("https://8.8.8.8/x", True),
        ("https://[2606:4700::1]/x", True),
        ("http://example.com/x", False),
        ("https://example.com:8443/x", False),
        ("https://example.com:80/x", False),
        ("https://127.0.0.1/x", False),
        ("https://[::ffff:10.0.0.1]/x", False),
        ("https://localhost/x", False),
        ("https://cdn/x", False),
        ("https://cdn.internal/x", False),
        ("data:image/png;base64,AAAA", False),
    ],
)
def test_only_public_https_urls_are_handed_on(url: str, handable: bool) -> None:
    assert is_handable(url) is handable


def test_the_systems_resolver_knows_this_machine() -> None:
    found = asyncio.run(SystemResolver(threads=1)("localhost", 80))
    assert set(found) <= {"127.0.0.1", "::1"}
    assert found
