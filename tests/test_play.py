"""``xent play``: one page, for this machine alone, until it is stopped."""

from __future__ import annotations

import http.client
import os
import re
import signal
import socket
import subprocess
import sys
import webbrowser
from collections.abc import Callable, Iterator
from typing import NamedTuple

import pytest
from click.testing import CliRunner

from xent.cli import play
from xent.cli.main import main
from xent.explanation.page import policy

SECONDS = 60


class Playing(NamedTuple):
    process: subprocess.Popen[str]
    port: int


def started(*options: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "xent", "play", *options]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(command, env={**os.environ, "BROWSER": "true"}, **pipes)


@pytest.fixture
def playing() -> Iterator[Callable[..., Playing]]:
    processes = []

    def begin(*options: str) -> Playing:
        process = started(*options)
        processes.append(process)
        address = process.stdout.readline()
        found = re.fullmatch(r"http://127\.0\.0\.1:(\d+)/\n", address)
        assert found, address + process.stderr.read()
        return Playing(process, int(found[1]))

    yield begin
    for process in processes:
        process.kill()
        process.communicate()


def ask(
    port: int, method: str = "GET", path: str = "/", **headers: str
) -> tuple[http.client.HTTPResponse, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=SECONDS)
    try:
        connection.putrequest(method, path, skip_host="Host" in headers)
        for name, value in headers.items():
            if value:
                connection.putheader(name, value)
        connection.endheaders()
        response = connection.getresponse()
        return response, response.read()
    finally:
        connection.close()


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    """One server for all questions about its answers."""
    process = started("--no-browser", "--port", "0")
    yield int(process.stdout.readline().rstrip("/\n").rpartition(":")[2])
    process.send_signal(signal.SIGTERM)
    assert process.communicate(timeout=SECONDS) == ("", "Stopped.\n")  # and nothing was logged
    assert process.returncode == 0


def test_the_page_comes_with_its_headers(port: int) -> None:
    response, body = ask(port)
    assert response.status == 200
    assert response.getheader("Content-Type") == "text/html; charset=utf-8"
    assert response.getheader("Content-Security-Policy") == policy()
    assert response.getheader("X-Content-Type-Options") == "nosniff"
    assert response.getheader("Referrer-Policy") == "no-referrer"
    assert response.getheader("Cache-Control") == "no-store"
    assert response.getheader("Server") == "xent"
    assert len(body) == int(response.getheader("Content-Length"))
    page = body.decode()
    assert page.startswith("<!doctype html>")
    assert '"names": ["cat", "dog", "bird"]' in page


def test_head_is_the_same_without_the_page(port: int) -> None:
    response, body = ask(port, "HEAD")
    assert response.status == 200
    assert int(response.getheader("Content-Length")) > 1000
    assert body == b""


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/index.html"), ("GET", "/favicon.ico"), ("GET", "/../../etc/passwd"),
        ("GET", "/?a=b"), ("GET", "http://127.0.0.1/"), ("POST", "/"),
        ("PUT", "/"), ("OPTIONS", "/"), ("BREW", "/"), ("HEAD", "/x"),
    ],
)  # fmt: skip
def test_there_is_nothing_else(port: int, method: str, path: str) -> None:
    response, body = ask(port, method, path)
    assert response.status == 404
    assert body == (b"" if method == "HEAD" else b"Not Found\n")
    assert response.getheader("X-Content-Type-Options") == "nosniff"


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("127.0.0.1", 200), ("localhost", 200), ("LocalHost:8010", 200), ("127.0.0.1:1", 200),
        ("evil.test", 421), ("evil.test:8010", 421), ("localhost.evil.test", 421),
        ("127.0.0.1.evil.test", 421), ("evil.test@127.0.0.1", 421), ("0.0.0.0", 421), ("", 421),
    ],
)  # fmt: skip
def test_another_name_of_this_machine_is_refused(port: int, host: str, status: int) -> None:
    response, body = ask(port, Host=host)
    assert response.status == status
    assert (b"cat" in body) is (status == 200)


def test_what_is_no_request_is_refused_in_plain_words(port: int) -> None:
    with socket.create_connection(("127.0.0.1", port), timeout=SECONDS) as connection:
        connection.sendall(b"<img src=x> y z w\r\n\r\n")
        answer = connection.makefile("rb").read()
    assert answer == b"Bad Request\n"


def test_two_hosts_are_refused(port: int) -> None:
    with socket.create_connection(("127.0.0.1", port), timeout=SECONDS) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\nHost: evil.test\r\n\r\n")
        assert connection.recv(100).split()[1] == b"421"


def test_other_addresses_of_this_machine_have_no_page(port: int) -> None:
    with pytest.raises(OSError, match=r"refused|timed out|unreachable"):
        socket.create_connection(("127.0.0.2", port), timeout=2)


def test_a_connection_that_waits_blocks_nobody(port: int) -> None:
    with socket.create_connection(("127.0.0.1", port), timeout=SECONDS):
        assert ask(port)[0].status == 200


@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGTERM])
def test_it_ends_in_one_line(playing, end: signal.Signals) -> None:
    process, port = playing("--no-browser", "--port", "0", "--logits", "1,2", "--target", "0")
    assert ask(port)[0].status == 200
    process.send_signal(end)
    assert process.communicate(timeout=SECONDS) == ("", "Stopped.\n")
    assert process.returncode == 0
    with pytest.raises(ConnectionRefusedError):
        ask(port)


def test_a_port_that_is_in_use_is_refused_in_one_line(port: int) -> None:
    result = CliRunner().invoke(main, ["play", "--no-browser", "--port", str(port)])
    assert result.exit_code == 2
    assert result.stdout == ""
    assert result.stderr.count("\n") == 1
    assert f"--port: expected a port that is free; got {port}" in result.stderr


@pytest.fixture
def not_serving(monkeypatch) -> list[str]:
    """The command without its loop; what it asks a browser for."""
    opened: list[str] = []
    from xent.cli.serving import Server

    monkeypatch.setattr(Server, "serve_forever", lambda self: None)
    monkeypatch.setattr(webbrowser, "open", opened.append)
    monkeypatch.setattr(play.threading, "Thread", Now)
    return opened


class Now:
    """A thread that runs when it is started."""

    def __init__(self, target, args, daemon) -> None:
        self.start = lambda: target(*args)


def test_the_usual_port_gives_way_to_a_free_one(not_serving, monkeypatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        number = taken.getsockname()[1]
        monkeypatch.setattr(play, "PORT", number)
        result = CliRunner().invoke(main, ["play", "--no-browser"])
    assert result.exit_code == 0
    assert result.stderr.splitlines()[0].startswith(f"Port {number} is in use; ")
    assert str(number) not in result.stdout


def test_a_browser_is_opened_unless_it_is_not_wanted(not_serving) -> None:
    shown = CliRunner().invoke(main, ["play", "--port", "0"])
    assert not_serving == [shown.stdout.strip()]
    assert shown.stderr == "Ctrl-C stops it.\nStopped.\n"
    CliRunner().invoke(main, ["play", "--port", "0", "--no-browser"])
    assert len(not_serving) == 1


def test_signals_are_given_back(not_serving) -> None:
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    CliRunner().invoke(main, ["play", "--port", "0", "--no-browser"])
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--logits", "1", "--target", "0"], "nothing to play with"),
        (["--logits", "-inf,-inf", "--target", "0"], "nothing to play with"),
        (["--port", "65536"], "--port"),
        (["--port", "-1"], "--port"),
        (["--logits", "1,2"], "--target"),
        (["--logits", "1,x", "--target", "0"], "value 2"),
        (["--file", "none.npz"], "none.npz"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(not_serving, options: list[str], said: str) -> None:
    result = CliRunner().invoke(main, ["play", *options])
    assert result.exit_code == 2
    assert result.stdout == ""
    assert result.stderr.count("\n") == 1
    assert said in result.stderr


def test_what_is_played_with_is_what_is_explained(not_serving, tmp_path) -> None:
    options = ["--logits", "2,1,0", "--target", "1", "--names", "x,y,z"]
    written = tmp_path / "page.html"
    assert CliRunner().invoke(main, ["explain", *options, "-o", str(written)]).exit_code == 0
    page = written.read_text(encoding="utf-8")
    assert '"names": ["x", "y", "z"]' in page
    printed = CliRunner().invoke(main, ["explain", *options, "--format", "html"]).stdout
    assert printed == page
