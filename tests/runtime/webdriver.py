"""Debian's Chromium driven by its own chromedriver, in W3C WebDriver's words: enough to look into a page."""

import json
import shutil
import subprocess
import urllib.request
from contextlib import contextmanager

import pytest
from browsers import OPTIONS, chromium


class Browser:
    """A session: open pages, ask them, hear what they logged and fetched."""

    def __init__(self, address):
        self._address = address
        logging = {"browser": "ALL", "performance": "ALL"}
        wanted = {
            "browserName": "chrome",
            "goog:chromeOptions": {"binary": chromium(), "args": list(OPTIONS)},
            "goog:loggingPrefs": logging,
            "unhandledPromptBehavior": "ignore",
        }
        self._session = self._post("/session", {"capabilities": {"alwaysMatch": wanted}})["sessionId"]

    def open(self, url):
        self.say("/url", {"url": url})

    def ask(self, script, *arguments):
        """What a function body returns in the page."""
        return self.say("/execute/sync", {"script": script, "args": list(arguments)})

    def resize(self, width, height=900):
        """The page's own width, whatever windows of this system can have."""
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self.devtools("Emulation.setDeviceMetricsOverride", metrics)

    def devtools(self, command, parameters):
        return self.say("/goog/cdp/execute", {"cmd": command, "params": parameters})

    def logged(self):
        """Messages of the console since the last call, warnings and refusals by the page's policy included."""
        return [entry["message"] for entry in self.say("/se/log", {"type": "browser"})]

    def fetched(self):
        """Addresses that were asked for since the last call."""
        events = [json.loads(entry["message"])["message"] for entry in self.say("/se/log", {"type": "performance"})]
        return [e["params"]["request"]["url"] for e in events if e["method"] == "Network.requestWillBeSent"]

    def say(self, path, body):
        return self._post(f"/session/{self._session}{path}", body)

    def close(self):
        address = f"{self._address}/session/{self._session}"
        urllib.request.urlopen(urllib.request.Request(address, method="DELETE"), timeout=30).close()

    def _post(self, path, body):
        request = urllib.request.Request(
            self._address + path, json.dumps(body).encode(), {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.load(answer)["value"]


@contextmanager
def driven():
    """A browser without a screen."""
    driver = shutil.which("chromedriver") or pytest.skip("needs chromedriver: apt-get install chromium-driver")
    chromium()
    process = subprocess.Popen([driver, "--port=0"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        line = next(line for line in process.stdout if "started successfully on port" in line)
        port = line.rstrip(".\n").split()[-1]
        browser = Browser(f"http://127.0.0.1:{port}")
        try:
            yield browser
        finally:
            browser.close()
    finally:
        process.terminate()
        process.wait(30)
        process.stdout.close()
