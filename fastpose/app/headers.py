"""Headers that every answer of the page carries."""

from __future__ import annotations

from typing import Any


class PolicyMiddleware:
    """An ASGI layer that adds a Content-Security-Policy to every HTTP answer of `app`, and refuses the
    addresses at which Gradio would fetch something elsewhere for a visitor."""

    def __init__(self, app: Any, policy: str) -> None:
        self.app = app
        self.headers = [(b"content-security-policy", policy.encode()), (b"referrer-policy", b"no-referrer")]

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        async def send_with_headers(message: Any) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", []), *self.headers]
            await send(message)

        if _fetches(scope["path"]):
            await send_with_headers({"type": "http.response.start", "status": 403, "headers": []})
            await send({"type": "http.response.body", "body": b"this page fetches nothing from elsewhere"})
            return
        await self.app(scope, receive, send_with_headers)


def _fetches(path: str) -> bool:
    """Whether the address asks the server to fetch another one."""
    return "/proxy=" in path or path.lower().partition("/file=")[2].startswith(("http:", "https:"))
