"""Faulty behaviours of an upstream."""

import socket
import struct
import time

from tests.conversation_service import loopback

HEAD = b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n"


def trickle_body(channel: socket.socket) -> None:
    channel.sendall(HEAD)
    while True:
        channel.sendall(b" ")
        time.sleep(0.05)


def endless_body(channel: socket.socket) -> None:
    channel.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
    while True:
        channel.sendall(b" " * 65_536)


def endless_redirect(channel: socket.socket) -> None:
    channel.sendall(b"HTTP/1.1 302 Found\r\nLocation: /elsewhere\r\n\r\n")
    while True:
        channel.sendall(b" " * 65_536)
        time.sleep(0.01)


def endless_headers(channel: socket.socket) -> None:
    channel.sendall(b"HTTP/1.1 200 OK\r\n")
    while True:
        channel.sendall(b"X: y\r\n")
        time.sleep(0.001)


def reset_within_the_body(channel: socket.socket) -> None:
    channel.recv(65_536)
    channel.sendall(HEAD + b"{")
    channel.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    channel.close()


def end_within_the_body(channel: socket.socket) -> None:
    channel.recv(65_536)
    channel.sendall(HEAD + b"{")


WAYS = {
    "hangs": loopback.silence,
    "trickles headers": loopback.trickle,
    "trickles its body": trickle_body,
    "never ends its headers": endless_headers,
    "never ends its body": endless_body,
    "redirects": loopback.respond(status="302 Found", headers="Location: /again\r\n"),
    "redirects without end": endless_redirect,
    "resets": reset_within_the_body,
    "ends too early": end_within_the_body,
    "is too large": loopback.respond(b" " * (1024 * 1024 + 1)),
    "is no JSON": loopback.respond(b"<html>"),
    "is nested without end": loopback.respond(b"[" * 500_000),
    "speaks another protocol": lambda channel: channel.sendall(b"+PONG\r\n" * 3),
    "has a bug": loopback.respond(status="500 Internal Server Error"),
    "is unavailable": loopback.respond(status="503 Service Unavailable"),
    "is busy": loopback.respond(status="429 Too Many Requests"),
}
# The client must end these.
ENDLESS = ["hangs", "trickles headers", "trickles its body", "never ends its headers"]
