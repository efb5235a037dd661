"""Reports of a training by Telegram's bot API; a failed report never stops a training.

API: https://core.telegram.org/bots/api#sendmessage
"""

import http.client
import json
import socket
import sys
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

from ava_asd.config import read_mapping
from core.runtime.errors import UserError

API_URL = "https://api.telegram.org"
KEYS = ("api_key", "chat_id", "api_url")
PLACEHOLDERS = {"api_key": "your telegram bot api key", "chat_id": "telegram chat id"}
TIMEOUT_S = 5.0
LONGEST_TEXT = 4096  # characters; the API refuses longer ones


@dataclass
class TelegramBot:
    """Sends messages to one chat.

    Attributes:
        api_key: the bot's token, a secret: it is never printed.
        chat_id: the chat's number, or @channel.
        api_url: address of the API, without the token.
        timeout_s: longest wait for the server.
        warned: whether a failure was reported already.
    """

    api_key: str = field(repr=False)
    chat_id: str
    api_url: str = API_URL
    timeout_s: float = TIMEOUT_S
    warned: bool = False

    def send(self, text: str) -> bool:
        """Send a message; False where it could not be delivered, which is said once, on standard error."""
        body = json.dumps({"chat_id": self.chat_id, "text": text[:LONGEST_TEXT]}).encode()
        key = quote(self.api_key, safe=":")
        try:
            request = urllib.request.Request(
                f"{self.api_url.rstrip('/')}/bot{key}/sendMessage",
                data=body,
                headers={"Content-Type": "application/json"},
            )
            with urllib.request.urlopen(request, timeout=self.timeout_s):
                return True
        except (OSError, ValueError, http.client.HTTPException) as error:
            if not self.warned:
                # The words of the error may hold the address, and with it the key.
                reason = str(error).replace(key, "<api_key>") or type(error).__name__
                print(f"no Telegram report ({reason}); the training goes on", file=sys.stderr)
            self.warned = True
            return False

    def report_epoch(self, run: str, epoch: int, values: Mapping[str, float]) -> bool:
        """Send an epoch's numbers.

        Args:
            run: name of the training.
            epoch: from 1.
            values: what was measured in training and in validation, as "train_<name>" and "val_<name>".
        """
        lines = [f"[{socket.gethostname()}] {run}", f"Epoch {epoch}"]
        for title, prefix in (("Training", "train_"), ("Validation", "val_")):
            own = {name.removeprefix(prefix): value for name, value in values.items() if name.startswith(prefix)}
            lines += [f"\n{title}:", *(f"{name}: {value:.4f}" for name, value in own.items())]
        return self.send("\n".join(lines))


def read_bot(path: str | Path) -> TelegramBot:
    """The bot of a YAML file such as configs/telegram.yaml.

    Raises:
        UserError: the file is absent or no YAML, or has unknown keys, missing ones or placeholders; all in one message.
    """
    values = read_mapping(path)
    faults = [f"unknown key {key!r}; there are {', '.join(KEYS)}" for key in values if key not in KEYS]
    for key, placeholder in PLACEHOLDERS.items():
        value = values.get(key)
        if not _is_text(value) or value == placeholder:
            faults.append(f"{key}: fill in the bot's key or the chat's id, between quotes")
    if not _is_address(values.get("api_url", API_URL)):
        faults.append(f"api_url is {values['api_url']!r}: expected an address such as {API_URL}")
    if faults:
        raise UserError(f"{path} has faults:\n" + "\n".join(f"  - {fault}" for fault in faults))
    return TelegramBot(**{key: str(value) for key, value in values.items()})


def _is_address(value: Any) -> bool:
    try:
        address = urlsplit(str(value))
    except ValueError:  # a bracket that no other closes, for one
        return False
    return address.scheme in ("http", "https") and bool(address.hostname)


def _is_text(value: Any) -> bool:
    return isinstance(value, str | int) and not isinstance(value, bool) and bool(str(value).strip())
