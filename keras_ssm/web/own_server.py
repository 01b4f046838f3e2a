"""Keeps the page from asking other servers for anything: fonts, statistics, versions."""

import os

# A browser then loads from the page's own server only, also where a script asks for more.
POLICY = (
    "default-src 'self' data: blob:; script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:; "
    "style-src 'self' 'unsafe-inline'; connect-src 'self' data: blob:; worker-src 'self' blob:"
)


def without_telemetry():
    """Imports Gradio, which reads these when it is imported.

    Raises:
        ImportError: if it is not installed.
    """
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    try:
        import gradio
    except ImportError as error:
        raise ImportError("The page needs Gradio: pip install 'keras-ssm[web]'") from error
    return gradio


class PolicyHeader:
    """An ASGI application whose answers tell the browser `POLICY`.

    Args:
        app: the application around which it stands.
    """

    def __init__(self, app):
        self.app = app

    async def __call__(self, scope, receive, send):
        if scope["type"] != "http":
            return await self.app(scope, receive, send)

        async def with_header(message):
            if message["type"] == "http.response.start":
                policy = (b"content-security-policy", POLICY.encode())
                message = {**message, "headers": [*message.get("headers", []), policy]}
            await send(message)

        return await self.app(scope, receive, with_header)


# As Starlette unpacks a middleware: the class, its arguments and its keywords.
OWN_SERVER = (PolicyHeader, (), {})
