"""Where the pages send people: to pages of ours, and to the providers that the operator named."""

from __future__ import annotations

from urllib.parse import parse_qs, urlsplit

import pytest
from starlette.applications import Starlette
from starlette.routing import Mount

import bmdb
from bmdb.web import app
from tests.web.client import NOWHERE, TOKEN, Client, form_token


class TestRedirects:
    @pytest.mark.parametrize(
        "after",
        [
            "//evil.example", "/\\evil.example", "https://evil.example", "evil.example", "javascript:alert(1)",
            "\\\\evil", "/a\r\nSet-Cookie: x=y", "/\t/evil.example", " //evil.example", "/ /evil.example", "",
        ],
    )  # fmt: skip
    async def test_the_login_leads_to_pages_of_ours_only(self, after: str) -> None:
        async with Client(app(NOWHERE, token=TOKEN)) as client:
            assert (await client.log_in(after=after)).headers["location"] == "/"
            assert (await client.get("/login", params={"next": after})).headers["location"] == "/"

    async def test_and_back_to_where_somebody_wanted_to_go(self) -> None:
        async with Client(app(NOWHERE, token=TOKEN)) as client:
            answer = await client.get("/processes/a%22%3Eb?panel=x&y=%26")
            assert answer.headers["location"].startswith("/login?next=%2Fprocesses%2Fa%2522%253Eb%3Fpanel%3Dx")
            page = await client.get(answer.headers["location"])
            assert 'value="/processes/a%22%3Eb?panel=x&amp;y=%26"' in page.text

    async def test_also_where_a_name_looks_like_a_way_up(self) -> None:
        async with Client(Starlette(routes=[Mount("/ops", app(NOWHERE, token=TOKEN))])) as client:
            answer = await client.get("/ops/processes/a%2F..%2Fb?x=y")
            assert answer.headers["location"] == "/ops/login?next=%2Fprocesses%2Fa%252F..%252Fb%3Fx%3Dy"
            page = await client.get(answer.headers["location"])
            assert 'value="/processes/a%2F..%2Fb?x=y"' in page.text

    async def test_from_a_live_page_the_login_leads_back_to_it(self) -> None:
        for root, application in (
            ("", app(NOWHERE, token=TOKEN)),
            ("/ops", Starlette(routes=[Mount("/ops", app(NOWHERE, token=TOKEN))])),
        ):
            async with Client(application) as client:
                for shown, after in {
                    "http://localhost:8000{}/machines?tag=a&state=leased#x": "/machines?tag=a&state=leased",
                    "http://evil.example{}/processes/a%2Fb": "/processes/a%2Fb",
                    "http://localhost:8000{}//evil.example": "/",
                    "http://localhost:8000{}/\\evil.example": "/",
                    "http://[{}/sessions": "/",
                    "javascript:alert(1){}": "/",
                    "": "/",
                }.items():
                    headers = {"hx-request": "true", "hx-current-url": shown.format(root)}
                    answer = await client.get(f"{root}/sessions?panel=list", headers=headers)
                    assert answer.status_code == 401
                    login = answer.headers["hx-redirect"]
                    assert login.startswith(f"{root}/login")
                    form = {"csrf": form_token(await client.get(login)), "token": TOKEN, "person": "Ada"}
                    following = parse_qs(urlsplit(login).query).get("next", [""])[0]
                    landed = await client.post(f"{root}/login", form | {"next": following})
                    assert landed.headers["location"] == root + after, shown
                    client.http.cookies.clear()

    async def test_mounted_it_stays_below_its_place(self) -> None:
        host = Starlette(routes=[Mount("/ops", app(NOWHERE, token=TOKEN))])
        async with Client(host) as client:
            assert (await client.get("/ops/sessions?x=y")).headers["location"] == "/ops/login?next=%2Fsessions%3Fx%3Dy"
            page = await client.get("/ops/login?next=/sessions")
            form = {"csrf": form_token(page), "token": TOKEN, "person": "Ada", "next": "/sessions"}
            assert (await client.post("/ops/login", form)).headers["location"] == "/ops/sessions"
            assert (await client.get("/ops/sessions")).status_code == 200
            panel = await client.get("/ops/sessions?panel=list", headers={"hx-request": "true"})
            assert panel.status_code == 503

    @pytest.mark.parametrize(
        ("provider_id", "location"),
        [
            ("abc-1", "https://p.example/devices/abc-1/"),
            ("a%2Fb", "https://p.example/devices/a%2Fb/"),
            ("..%2F..%2Fadmin", "https://p.example/devices/..%2F..%2Fadmin/"),
            ("%40evil.example", "https://p.example/devices/%40evil.example/"),
            ("a%0dSet-Cookie:%20x=y", "https://p.example/devices/a%0DSet-Cookie%3A%20x%3Dy/"),
            ("%3Fx=1%23y", "https://p.example/devices/%3Fx%3D1%23y/"),
            ("%E2%80%AEa", "https://p.example/devices/%E2%80%AEa/"),
        ],
    )
    async def test_a_provider_gets_the_id_as_one_part_of_the_path(self, provider_id: str, location: str) -> None:
        async with Client(app(NOWHERE, providers={"P": "https://p.example/devices/{provider_id}/"})) as client:
            answer = await client.get(f"/providers/P/{provider_id}")
            assert (answer.status_code, answer.headers["location"]) == (302, location)
            assert "set-cookie" not in answer.headers

    @pytest.mark.parametrize(
        "path",
        ["/providers/Q/x", "/providers/p/x", "/providers/P/..", "/providers/P/%2e%2e", "/providers/P/a%0d%0ab:c"],
    )
    async def test_what_is_not_configured_leads_nowhere(self, path: str) -> None:
        async with Client(app(NOWHERE, providers={"P": "https://p.example/{provider_id}"})) as client:
            answer = await client.get(path)
            assert answer.status_code == 404 and "location" not in answer.headers

    @pytest.mark.parametrize(
        "template",
        [
            "javascript:alert({provider_id})", "//p.example/{provider_id}", "https://{provider_id}/x", "https:///{provider_id}",
            "https://{provider_id}.p.example/", "https://p.example/", "https://p.example/{provider_id}{provider_id}",
            "https://p.example\\{provider_id}", "https://p.example:{provider_id}/", "https://me@p.example/{provider_id}",
            "https://p.example/\r\n{provider_id}", "data:text/html,{provider_id}", "", "https://[::1/{provider_id}",
        ],
    )  # fmt: skip
    def test_a_template_leads_to_a_fixed_server(self, template: str) -> None:
        with pytest.raises(bmdb.ConfigError, match="provider"):
            app(NOWHERE, providers={"P": template})
