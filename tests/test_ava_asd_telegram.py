"""Telegram reports, sent to a server of our own on this machine."""

import json
import socket
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from ava_asd.telegram import TelegramBot, read_bot
from core.runtime.errors import UserError

EXAMPLE = Path(__file__).resolve().parents[1] / "configs" / "telegram.yaml"
KEY = "123456:AbC-dEf_ghi"


class Api(BaseHTTPRequestHandler):
    """Keeps what it is sent on its server, and answers with the server's status."""

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.received.append((self.path, self.headers["Content-Type"], json.loads(body)))
        self.send_response(self.server.status)
        self.end_headers()
        self.wfile.write(b'{"ok": true}')

    def log_message(self, *args):
        pass


@pytest.fixture
def api(monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with ThreadingHTTPServer(("127.0.0.1", 0), Api) as server:
        server.received, server.status = [], 200
        server.url = f"http://127.0.0.1:{server.server_port}"
        threading.Thread(target=server.serve_forever, args=[0.01], daemon=True).start()
        yield server
        server.shutdown()


def test_the_report_of_an_epoch(api, tmp_path):
    path = tmp_path / "telegram.yaml"
    path.write_text(f"api_key: '{KEY}'\nchat_id: 357829\napi_url: '{api.url}/'\n")
    values = {"loss": 1.23456, "main_accuracy": 0.7, "val_loss": 2.0, "val_main_accuracy": 0.65432}
    assert read_bot(path).report_epoch("a1B2c3", 12, values)
    ((address, kind, message),) = api.received
    assert address == f"/bot{KEY}/sendMessage"
    assert kind == "application/json"
    assert message == {
        "chat_id": "357829",
        "text": f"[{socket.gethostname()}] a1B2c3\nEpoch 12\n\nTraining:\nloss: 1.2346\nmain_accuracy: 0.7000\n\n"
        "Validation:\nloss: 2.0000\nmain_accuracy: 0.6543",
    }


def test_a_long_text_is_cut(api):
    assert TelegramBot(KEY, "1", api.url).send("x" * 5000)
    assert len(api.received[0][2]["text"]) == 4096


def test_a_refusal_is_told_once(api, capsys):
    api.status = 401
    bot = TelegramBot(KEY, "1", api.url)
    assert not bot.send("first")
    assert not bot.send("second")
    assert len(api.received) == 2  # the next epoch tries again
    said = capsys.readouterr().err
    assert said.count("no Telegram report") == 1
    assert "401" in said
    assert KEY not in said


def test_nobody_answers(capsys):
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    assert not TelegramBot(KEY, "1", f"http://127.0.0.1:{port}").send("text")
    assert "the training goes on" in capsys.readouterr().err


def test_a_server_that_is_silent_is_given_up(capsys):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        bot = TelegramBot(KEY, "1", f"http://127.0.0.1:{silent.getsockname()[1]}", timeout_s=0.1)
        assert not bot.send("text")
    assert "timed out" in capsys.readouterr().err


def test_a_key_with_odd_characters(api):
    assert TelegramBot("12 3:a/b?#é\n", "1", api.url).send("text")
    assert api.received[0][0] == "/bot12%203:a%2Fb%3F%23%C3%A9%0A/sendMessage"


def test_no_message_shows_the_key(capsys):
    assert not TelegramBot(KEY, "1", "http://127.0.0.1/a b").send("text")
    said = capsys.readouterr().err
    assert "control characters" in said  # of the whole address
    assert KEY not in said


def test_the_key_is_not_shown():
    assert KEY not in repr(TelegramBot(KEY, "1"))


def test_the_example_wants_to_be_filled_in():
    with pytest.raises(UserError) as refused:
        read_bot(EXAMPLE)
    lines = str(refused.value).splitlines()
    assert [line.split(":")[0] for line in lines[1:]] == ["  - api_key", "  - chat_id"]


@pytest.mark.parametrize("address", ["http://[::1", "http://", "ftp://host", "''"])
def test_addresses_that_are_none(tmp_path, address):
    path = tmp_path / "telegram.yaml"
    path.write_text(f"api_key: '{KEY}'\nchat_id: 1\napi_url: {address}\n")
    with pytest.raises(UserError, match=r"api_url is .*: expected an address such as https://api\.telegram\.org"):
        read_bot(path)


def test_all_faults_in_one_message(tmp_path):
    path = tmp_path / "telegram.yaml"
    path.write_text("api_key: ''\ntoken: x\napi_url: api.telegram.org\n")
    with pytest.raises(UserError) as refused:
        read_bot(path)
    said = str(refused.value)
    for part in ("unknown key 'token'", "api_key: fill in", "chat_id: fill in", "api_url is 'api.telegram.org'"):
        assert part in said
    with pytest.raises(UserError, match="there is no file"):
        read_bot(tmp_path / "absent.yaml")
