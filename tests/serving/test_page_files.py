"""The page's files are sent with types that browsers take, and nothing else is."""

from pathlib import Path

import httpx
from api_server import Api
from fastapi import FastAPI
from starlette.testclient import TestClient

from nanochat.serving.page_files import FOLDER, TYPES, page_routes


def test_all_files_of_the_page_are_sent(api: Api) -> None:
    files = [path for path in FOLDER.rglob("*") if path.is_file()]
    assert (FOLDER / "index.html") in files
    for path in files:
        name = path.relative_to(FOLDER).as_posix()
        response = httpx.get(f"{api.url}/{'' if name == 'index.html' else name}")
        assert response.status_code == 200 and response.content == path.read_bytes(), name
        assert response.headers["content-type"] == TYPES[path.suffix]
        assert response.headers["cache-control"] == "no-cache"
    assert httpx.head(api.url).status_code == 200


def test_nothing_else_is(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    for name in ("index.html", "sub/code.js", "notes.txt", "secret"):
        (tmp_path / name).write_text(name)
    app = FastAPI(openapi_url=None)
    app.include_router(page_routes(tmp_path))
    client = TestClient(app)
    assert client.get("/").text == "index.html" and client.get("/sub/code.js").text == "sub/code.js"
    for path in ("/sub", "/sub/", "/notes.txt", "/secret", "/..%2f..%2fetc/passwd", "//etc/passwd"):
        assert client.get(path).status_code == 404, path
