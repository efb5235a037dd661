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
    values = {
        "train_loss": 1.23456,
        "train_accuracy": 0.7,
        "samples_per_s": 5,
        "val_loss": 2.0,
        "val_accuracy": 0.65432,
    }
    assert read_bot(path).report_epoch("a1B2c3", 12, values)
    ((address, kind, message),) = api.received
    assert (address, kind, message["chat_id"]) == (f"/bot{KEY}/sendMessage", "application/json", "357829")
    assert message["text"] == (
        f"[{socket.gethostname()}] a1B2c3\nEpoch 12\n\nTraining:\nloss: 1.2346\naccuracy: 0.7000\n\n"
        "Validation:\nloss: 2.0000\naccuracy: 0.6543"
    )


def test_a_long_text_is_cut_and_an_odd_key_quoted(api):
    assert TelegramBot("12 3:a/b?#é\n", "1", api.url).send("x" * 5000)
    ((address, _, message),) = api.received
    assert address == "/bot12%203:a%2Fb%3F%23%C3%A9%0A/sendMessage"
    assert len(message["text"]) == 4096


def test_a_refusal_is_reported_once(api, capsys):
    api.status = 401
    bot = TelegramBot(KEY, "1", api.url)
    assert [bot.send("first"), bot.send("second")] == [False, False]
    assert len(api.received) == 2  # the next epoch tries again
    said = capsys.readouterr().err
    assert said.count("no Telegram report") == said.count("401") == 1
    assert KEY not in said


@pytest.mark.parametrize(
    ("listening", "path", "reason"),
    [(True, "", "timed out"), (False, "", "refused"), (True, "/a b", "control characters")],
)
def test_a_report_that_fails_stops_nothing_and_shows_no_key(capsys, listening, path, reason):
    with socket.create_server(("127.0.0.1", 0)) as server:
        bot = TelegramBot(KEY, "1", f"http://127.0.0.1:{server.getsockname()[1]}{path}", timeout_s=0.1)
        if not listening:
            server.close()
        assert not bot.send("text")
    said = capsys.readouterr().err
    assert reason in said
    assert "the training goes on" in said
    assert KEY not in said + repr(bot)


@pytest.mark.parametrize(
    ("content", "facts"),
    [
        (EXAMPLE.read_text(), ["api_key", "chat_id"]),
        ("api_key: ''\ntoken: x\napi_url: api.telegram.org\n", ["'token'", "api_key", "chat_id", "'api.telegram.org'"]),
        *(
            (f"api_key: '{KEY}'\nchat_id: 1\napi_url: {address}\n", [f"api_url is {address}"])
            for address in ("'http://[::1'", "'http://'", "'ftp://host'", "''")
        ),
    ],
)
def test_all_faults_of_a_file_in_one_message(tmp_path, content, facts):
    path = tmp_path / "telegram.yaml"
    path.write_text(content)
    with pytest.raises(UserError) as refused:
        read_bot(path)
    first, *lines = str(refused.value).splitlines()
    assert str(path) in first
    assert len(lines) == len(facts)
    assert all(fact in line for fact, line in zip(facts, lines, strict=True)), lines


def test_no_file(tmp_path):
    with pytest.raises(UserError, match=r"absent\.yaml"):
        read_bot(tmp_path / "absent.yaml")
