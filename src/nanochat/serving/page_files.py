"""The web page's files: what lies in page/ and has a type that is listed here, and nothing else.

Notable: the types are ours, since a system's own table may call a script text/plain, which browsers do not run.
"""

from collections.abc import Awaitable, Callable
from pathlib import Path

from fastapi import APIRouter
from starlette.responses import FileResponse

FOLDER = Path(__file__).resolve().parent / "page"
INDEX = "index.html"
TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
    ".png": "image/png",
    ".ico": "image/x-icon",
    ".woff2": "font/woff2",
    ".webmanifest": "application/manifest+json",
}


def page_routes(folder: Path = FOLDER) -> APIRouter:
    """A route for each file, under its name, and `/` for the index."""
    router = APIRouter()
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.suffix in TYPES:
            name = path.relative_to(folder).as_posix()
            router.add_api_route("/" if name == INDEX else f"/{name}", _sender(path), methods=["GET", "HEAD"])
    return router


def _sender(path: Path) -> Callable[[], Awaitable[FileResponse]]:
    async def send() -> FileResponse:
        return FileResponse(path, media_type=TYPES[path.suffix], headers={"Cache-Control": "no-cache"})

    return send
