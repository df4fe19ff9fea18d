"""From a predictor to an address in the browser, local and silent."""

from __future__ import annotations

import os
import signal
import socket
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from ipaddress import ip_address
from typing import Any

from fastpose.errors import ConfigError
from fastpose.infer.detectors import pick_detector
from fastpose.infer.predictor import Predictor

LOCAL = "127.0.0.1"
PORTS = range(7860, 7960)
SESSIONS = 32
"""Open pages whose last picture is remembered, a few megabytes each."""

POLICY = (
    "default-src 'self'; img-src 'self' data: blob:; font-src 'self' data:; worker-src 'self' blob:; "
    "script-src 'self' 'unsafe-inline' 'unsafe-eval'; style-src 'self' 'unsafe-inline'; base-uri 'self'; "
    "form-action 'self'"
)
"""The browser loads nothing for this page from elsewhere, and sends nothing there."""


@contextmanager
def served(
    predictor: Predictor, *, detector: str = "people", host: str = LOCAL, port: int | None = None
) -> Iterator[str]:
    """The page's address, as long as the block lasts; uploads are deleted at its end.

    host: the address to listen on; any but a local one lets others in. port: None takes the first free one of
    PORTS. Raises ConfigError for a detector that is none, a missing Gradio, a host that this machine does not
    have and a port that is taken.
    """
    found, name = pick_detector(detector)
    if found is None:
        raise ConfigError(f"detector {detector!r}: the page has its own button for it; name one that looks")
    port = free_port(host, port)
    with tempfile.TemporaryDirectory(prefix="fastpose-app-") as folder, _quiet(folder):
        try:
            from fastpose.app.page import THEME, Page, read_asset
        except ModuleNotFoundError as error:
            raise ConfigError(f"the page needs Gradio ({error}): pip install 'fastpose[app]'") from error
        from fastpose.app.desk import Desk
        from fastpose.app.pictures import MAX_FILE_MB

        desk = Desk(predictor, found, name)
        desk.warm_up()
        page = Page(desk).blocks
        page.launch(
            server_name=host,
            server_port=port,
            theme=THEME,
            css=read_asset("page.css"),
            app_kwargs={"middleware": _middleware(host)},
            max_file_size=MAX_FILE_MB << 20,
            state_session_capacity=SESSIONS,
            footer_links=[],
            **SILENT,
        )
        try:
            yield f"http://{_printable(host)}:{port}/"
        finally:
            page.close(verbose=False)


SILENT: dict[str, Any] = {
    "share": False,
    "inline": False,
    "quiet": True,
    "prevent_thread_lock": True,
    "run_history": False,
    "enable_monitoring": False,
    "pwa": False,
    "mcp_server": False,
    "ssr_mode": False,
    "num_workers": 0,
}
"""Of `Blocks.launch`: what environment variables could otherwise switch on."""


def serve(predictor: Predictor, announce: Callable[[str], None], **options: Any) -> None:
    """`served` until Ctrl-C or SIGTERM; `announce(address)` is called once it answers."""
    stop = threading.Event()
    before = signal.signal(signal.SIGTERM, lambda *_: stop.set())
    try:
        with served(predictor, **options) as address, suppress(KeyboardInterrupt):
            announce(address)
            while not stop.wait(1.0):
                pass
    finally:
        signal.signal(signal.SIGTERM, before)


def is_local(host: str) -> bool:
    """Whether only this machine can reach the address."""
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


def free_port(host: str, port: int | None = None) -> int:
    """The port itself, or the first of PORTS on which nobody listens; ConfigError where there is none."""
    wanted = PORTS if port is None else (port,)
    for number in wanted:
        try:
            family = socket.AF_INET6 if ":" in host else socket.AF_INET
            with socket.socket(family, socket.SOCK_STREAM) as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind((host, number))
            return number
        except (OSError, OverflowError, UnicodeError) as error:
            reason = error
    if port is None:
        what = f"no free port of {PORTS.start} to {PORTS.stop - 1} on {host}"
    else:
        what = f"port {port} on {host} cannot be used"
    raise ConfigError(f"{what} ({reason}); give another --port or --host")


@contextmanager
def _quiet(folder: str) -> Iterator[None]:
    """Nothing is sent to anybody, files lie in `folder` only, and no proxy leads to this machine."""
    changed = {"GRADIO_ANALYTICS_ENABLED": "False", "GRADIO_TEMP_DIR": folder, "GRADIO_ALLOWED_PATHS": ""}
    for name in ("NO_PROXY", "no_proxy"):
        changed[name] = ",".join(filter(None, (os.environ.get(name), LOCAL, "localhost")))
    before = {name: os.environ.get(name) for name in changed}
    os.environ.update(changed)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _middleware(host: str) -> list[Any]:
    """Headers for the browser, and for a local address no answer to those who come by another name: a page
    elsewhere could have its name lead here."""
    from starlette.middleware import Middleware
    from starlette.middleware.trustedhost import TrustedHostMiddleware

    from fastpose.app.headers import PolicyMiddleware

    layers = [Middleware(PolicyMiddleware, policy=POLICY)]
    if is_local(host):
        layers.append(Middleware(TrustedHostMiddleware, allowed_hosts=["localhost", LOCAL, host]))
    return layers


def _printable(host: str) -> str:
    return f"[{host}]" if ":" in host else host
