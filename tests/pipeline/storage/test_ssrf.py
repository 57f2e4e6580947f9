"""Network addresses that a table's links must not reach."""

import asyncio
import socket

import aiohttp
import pytest

from pipeline.storage.ssrf import RefusedAddressError, WebClient, addresses_of, is_refused


@pytest.mark.parametrize(
    "address",
    [
        *("127.0.0.1", "127.9.9.9", "0.0.0.0", "0.1.2.3", "169.254.169.254", "224.0.0.1", "240.0.0.1", "255.255.255.255"),
        *("100.100.100.200", "168.63.129.16", "192.0.0.192"),
        *("::1", "::", "fe80::1", "fe80::1%eth0", "ff02::1", "fd00:ec2::254", "fd20:ce::254"),
        *(
            "169.254.170.2",
            "169.254.170.23",
            "fd00:ec2::23",
            "fd00:ec2::253",
            "fd00:c1::a9fe:a9fe",
            "fd00:42::42",
            "::ffff:100.100.100.200",
        ),
        *("64:ff9b::a9fe:aa17", "2002:a9fe:aa17::", "::ffff:0:169.254.169.254"),
        *("::ffff:169.254.169.254", "::ffff:127.0.0.1", "64:ff9b::a9fe:a9fe", "64:ff9b:1::a9fe:a9fe", "::127.0.0.1", "2002:a9fe:a9fe::1"),
        "2001:0:a9fe:a9fe::1",
    ],
)
def test_the_worker_its_link_and_metadata_are_refused_in_every_form(address):
    assert is_refused(address)


@pytest.mark.parametrize(
    "address",
    [
        *(
            "8.8.8.8",
            "10.0.0.1",
            "172.16.0.1",
            "192.168.1.1",
            "100.64.0.1",
            "2606:4700::1111",
            "fd12:3456::1",
            "fd00:ec3::23",
            "fd20:cf::254",
        ),
        *("::ffff:8.8.8.8", "64:ff9b::808:808", "2002:808:808::1"),
    ],
)
def test_the_internet_and_private_networks_are_not(address):
    assert not is_refused(address)


def test_a_link_of_the_user_has_its_addresses():
    assert addresses_of("http://127.0.0.1:8000/list.csv") == (("127.0.0.1", 8000),)
    assert addresses_of("https://[::1]/list.csv") == (("::1", 443),)
    assert addresses_of("http://no.such.name.invalid/x") == ()


def test_a_socket_is_opened_for_what_is_allowed_only():
    def entry(address):
        return (socket.AF_INET, socket.SOCK_STREAM, 6, "", address)

    client = WebClient(trusted=(("127.0.0.1", 8000),))
    for address in (("127.0.0.1", 8000), ("8.8.8.8", 80)):
        client.open_socket(entry(address)).close()
    for address in (("127.0.0.1", 8001), ("169.254.169.254", 80)):
        with pytest.raises(RefusedAddressError, match=r"an address that tables may not reach"):
            client.open_socket(entry(address))


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::1]", "0.0.0.0", "[::ffff:127.0.0.1]"])
def test_a_name_is_judged_by_the_address_that_is_dialled(host):
    async def get():
        async with await WebClient()() as session, session.get(f"http://{host}:9/"):
            pass

    with pytest.raises(aiohttp.ClientConnectorError) as raised:
        asyncio.run(get())
    assert isinstance(raised.value.os_error, RefusedAddressError)
