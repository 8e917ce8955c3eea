"""Only URLs of public hosts are accepted, in a form that every program reads in the same way."""

import socket
import time

import pytest

from conversation_service.outbound import addresses
from conversation_service.outbound.addresses import AddressRejected, check_url, is_public, parse

REJECTED = {
    "url_length": ["https://example.org/" + "a" * 2_048],
    "url_characters": [
        " https://example.org/",
        "https://example.org/ ",
        "https://example.org/a b",
        "https://example.org/\n",
        "https://exam\tple.org/",
        "https://example.org/\r\nHost: localhost",
        "https://example.org\\@127.0.0.1/",
        "https:\\\\example.org/",
        "https://example.org/\0",
        "https://exämple.org/",
        "https://\u0435xample.org/",  # a Cyrillic e
        "https://\uff11\uff12\uff17.0.0.1/",  # fullwidth digits
        "https://127。0。0。1/",
        "https://ⓛocalhost/",
        "https://example.org/%",
        "https://example.org/%zz",
        "https://example.org/<x>",
        "https://{host}/",
    ],
    "url_form": [
        *("", "example.org", "//example.org/", "/hook", "https:example.org", "https:/example.org"),
        *("javascript:alert(1)", "https://[::1/", "https://a[b].org/"),
    ],
    "url_scheme": [
        *("http://example.org/", "ftp://example.org/", "file://example.org/etc/passwd"),
        *(
            "gopher://example.org/",
            "wss://example.org/",
            "http://127.0.0.1/".replace("127.0.0.1", "8.8.8.8"),
        ),
    ],
    "url_credentials": [
        *("https://user@example.org/", "https://user:secret@example.org/", "https://@example.org/"),
        *("https://example.org@127.0.0.1/", "https://example.org:443@127.0.0.1/"),
        "https://a@b@example.org/",
    ],
    "url_fragment": [
        *("https://example.org/#", "https://example.org/#a", "https://example.org#@127.0.0.1/"),
    ],
    "url_host": [
        *(
            "https://::1/",
            "https://::1]/",
            "https:///hook",
            "https://",
            "https://:443/",
            "https://?a=b",
        ),
        *("https://localhost/", "https://LOCALHOST/", "https://a.localhost/", "https://metadata/"),
        *("https://metadata.google.internal/", "https://printer.local/", "https://a.home.arpa/"),
        *("https://auth.default.svc/", "https://auth.default.svc.cluster.local/"),
        *("https://example.org./", "https://127.0.0.1./", "https://example..org/"),
        *("https://.example.org/", "https://-a.example.org/", "https://a-.example.org/"),
        *("https://a_b.example.org/", "https://" + "a" * 64 + ".org/", "https://*.example.org/"),
        "https://" + "a." * 126 + "aa/",
        *("https://2130706433/", "https://127.1/", "https://127.0.1/", "https://0/"),
        *(
            "https://0x7f000001/",
            "https://0x7f.0.0.1/",
            "https://0177.0.0.1/",
            "https://010.8.8.8/",
        ),
        *("https://127.0.0.1.5/", "https://256.1.1.1/", "https://1.2.3.4.0x5/", "https://a.0x/"),
        *("https://example.1/", "https://%31%32%37.0.0.1/", "https://127.0.0.1%2f.example.org/"),
        *("https://[fe80::1%25eth0]/", "https://[2606:4700::1%251]/", "https://[]/"),
        *("https://[127.0.0.1]/", "https://[::1x]/", "https://[v1.a]/"),
    ],
    "url_port": [
        *("https://example.org:80/", "https://example.org:8443/", "https://example.org:22/"),
        *("https://example.org:0/", "https://example.org:65979/", "https://example.org:/"),
        *("https://example.org:0443/", "https://example.org:+443/", "https://example.org:443:80/"),
        "https://example.org:x/",
    ],
    "url_address": [
        *("https://127.0.0.1/", "https://10.0.0.1/", "https://169.254.169.254/latest/meta-data/"),
        *(
            "https://[::1]/",
            "https://[::]/",
            "https://[::ffff:127.0.0.1]/",
            "https://[::127.0.0.1]/",
        ),
        *("https://[fd00:ec2::254]/", "https://[64:ff9b::a9fe:a9fe]/", "https://[2002:7f00:1::]/"),
        *("https://168.63.129.16/", "https://0.0.0.0/", "https://255.255.255.255/"),
    ],
}
ACCEPTED = {
    "https://example.org": ("example.org", 443, "/"),
    "HTTPS://Example.ORG/Hook": ("example.org", 443, "/Hook"),
    "https://example.org:443/a?b=c&d=%20": ("example.org", 443, "/a?b=c&d=%20"),
    "https://example.org?a": ("example.org", 443, "/?a"),
    "https://xn--bcher-kva.org/": ("xn--bcher-kva.org", 443, "/"),
    "https://a.b-c.example.org//x/../y;z": ("a.b-c.example.org", 443, "//x/../y;z"),
    "https://1.2.example1.org/@x:y": ("1.2.example1.org", 443, "/@x:y"),
    "https://8.8.8.8/": ("8.8.8.8", 443, "/"),
    "https://[2606:4700:0::1111]/": ("2606:4700::1111", 443, "/"),
}
NOT_PUBLIC = [
    *("0.0.0.1", "0.1.2.3", "10.255.255.255", "100.64.0.1", "100.100.100.200", "127.0.0.1"),
    *("127.255.255.254", "168.63.129.16", "169.254.169.254", "172.16.0.1", "172.31.255.255"),
    *("192.0.0.1", "192.0.0.192", "192.0.2.1", "192.31.196.1", "192.52.193.1", "192.88.99.1"),
    *("192.168.1.1", "192.175.48.1", "198.18.0.1", "198.19.255.255", "198.51.100.1"),
    *("203.0.113.1", "224.0.0.1", "239.255.255.255", "240.0.0.1", "255.255.255.255"),
    *("::", "::1", "::127.0.0.1", "::8.8.8.8", "::ffff:8.8.8.8", "::ffff:0:8.8.8.8"),
    *("64:ff9b::8.8.8.8", "64:ff9b:1::1", "100::1", "2001::1", "2001:0:4136:e378::1"),
    *("2001:2::1", "2001:10::1", "2001:20::1", "2001:1ff:ffff::1", "2001:db8::1", "2002::1"),
    *("2002:a9fe:a9fe::1", "2620:4f:8000::1", "3fff::1", "4000::1", "5f00::1", "fc00::1"),
    *("fd00:ec2::254", "fe80::1", "fe80::1%1", "fec0::1", "ff02::1", "2606:4700::1%1"),
]
PUBLIC = [
    *("1.1.1.1", "8.8.8.8", "9.255.255.255", "11.0.0.1", "100.63.255.255", "100.128.0.1"),
    *("168.63.129.15", "172.15.255.255", "172.32.0.1", "192.0.1.1", "192.169.0.1", "198.20.0.1"),
    *("223.255.255.255", "2000::1", "2001:200::1", "2001:4860:4860::8888", "2003::1"),
    *("2606:4700::1111", "2a00:1450::1", "3ffe::1"),
]


@pytest.mark.parametrize(
    ("rule", "url"), [(rule, url) for rule, urls in REJECTED.items() for url in urls]
)
def test_a_hostile_url_is_rejected_with_the_rule_that_it_breaks(rule, url):
    with pytest.raises(AddressRejected) as rejected:
        check_url(url)

    assert rejected.value.rule == rule
    assert str(rejected.value.text)


@pytest.mark.parametrize("url", ACCEPTED)
def test_a_public_https_url_is_accepted(url):
    target = parse(url)

    assert (target.host, target.port, target.path) == ACCEPTED[url]


@pytest.mark.parametrize("address", NOT_PUBLIC)
def test_an_address_for_a_special_purpose_is_not_public(address):
    assert not is_public(address)


@pytest.mark.parametrize("address", PUBLIC)
def test_an_address_of_the_internet_is_public(address):
    assert is_public(address)


@pytest.mark.parametrize(
    "found",
    [["127.0.0.1"], ["8.8.8.8", "10.0.0.1"], ["2606:4700::1", "::1"], ["::ffff:169.254.169.254"]],
    ids=str,
)
def test_every_address_of_a_name_must_be_public(internet, found):
    internet.names["hooks.example.org"] = [found]

    with pytest.raises(AddressRejected) as rejected:
        check_url("https://hooks.example.org/")

    assert rejected.value.rule == "url_address"


def test_a_name_without_an_address_is_accepted_as_its_server_can_be_set_up_later(internet):
    check_url("https://hooks.example.org/")


def test_a_name_server_that_does_not_respond_does_not_delay_the_check(monkeypatch):
    monkeypatch.setattr(addresses, "LOOKUP_S", 0.05)
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_args, **_options: time.sleep(0.5))

    check_url("https://hooks.example.org/")


def test_an_operator_can_allow_ports(settings):
    settings.WEBHOOK_ALLOWED_PORTS = [8443]

    assert parse("https://example.org:8443/").port == 8443
    with pytest.raises(AddressRejected):
        parse("https://example.org/")


@pytest.mark.parametrize(
    "url",
    [
        *("http://127.0.0.1:9000/", "https://127.0.0.1/", "http://Localhost/", "http://[::1]:80/"),
        "http://receiver:8080/",
    ],
)
def test_an_operator_can_exempt_hosts(settings, url):
    settings.WEBHOOK_ALLOWED_HOSTS = ["127.0.0.1", "localhost", "::1", "receiver"]

    check_url(url)


@pytest.mark.parametrize(
    ("url", "rule"),
    [
        ("http://user@127.0.0.1/", "url_credentials"),
        ("http://127.0.0.1/#a", "url_fragment"),
        ("http://127.0.0.1:0/", "url_port"),
        ("http://127.0.0.1:65536/", "url_port"),
        ("ftp://127.0.0.1/", "url_scheme"),
        ("http://127.0.0.2/", "url_address"),
        ("http://127.0.0.1.example.org/", "url_scheme"),
        ("http://[::ffff:127.0.0.1]/", "url_address"),
    ],
)
def test_an_exempt_host_keeps_the_other_rules(settings, url, rule):
    settings.WEBHOOK_ALLOWED_HOSTS = ["127.0.0.1"]

    with pytest.raises(AddressRejected) as rejected:
        check_url(url)

    assert rejected.value.rule == rule
