"""Who gets in: with a token and the cookie that it gives, or named by a proxy."""

from __future__ import annotations

import base64
import json
import logging
from typing import Any

import pytest

import bmdb
from bmdb.web import app, new_token
from bmdb.web.access import Access
from bmdb.web.visits import LASTING_SECONDS, Failures, Visits
from tests.web.client import NOWHERE, TOKEN, Client, form_token
from tests.web.guarded import HEADER, acting, by_header, guarded, raw


class TestTokens:
    async def test_whoever_has_it_gets_in_and_nobody_else(self) -> None:
        async with Client(app(NOWHERE, token=TOKEN)) as client:
            wrong = await client.log_in(TOKEN[:-1])
            assert wrong.status_code == 403 and "That is not the token" in wrong.text
            assert (await client.get("/sessions")).status_code == 303
            right = await client.log_in()
            assert (right.status_code, right.headers["location"]) == (303, "/sessions")
            assert (await client.get("/sessions")).status_code == 200

    async def test_spaces_around_it_were_not_meant(self) -> None:
        async with Client(app(NOWHERE, token=TOKEN)) as client:
            assert (await client.log_in(f" {TOKEN}\n")).status_code == 303

    async def test_a_person_says_who_they_are(self) -> None:
        async with Client(app(NOWHERE, token=TOKEN)) as client:
            for person in ("", "  ", "x" * 101, "a\u202eb", "a\x1b[31m", "a\nb", "Ada\u3164", "Ada\ufe0f"):
                assert (await client.log_in(person=person)).status_code == 422, person
            assert (await client.log_in(person="Zoë O’Neil")).status_code == 303

    async def test_it_is_not_taken_from_an_address(self) -> None:
        async with Client(app(NOWHERE, token=TOKEN)) as client:
            assert (await client.get("/sessions", params={"token": TOKEN})).status_code == 303
            page = await client.get("/login", params={"token": TOKEN, "person": "Ada"})
            assert page.status_code == 200 and TOKEN not in page.text

    async def test_it_is_never_logged_nor_shown(self, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level(logging.DEBUG)
        application = app(NOWHERE, token=TOKEN)
        async with Client(application) as client:
            answers = [await client.log_in(TOKEN + "x"), await client.log_in(person=""), await client.log_in()]
        assert not any(TOKEN in answer.text or TOKEN in str(answer.headers) for answer in answers)
        assert "wrong token from 127.0.0.1" in caplog.text and "'Ada' logged in" in caplog.text
        assert TOKEN not in caplog.text
        assert TOKEN not in repr(application.state.site.settings)

    async def test_whoever_guesses_waits(self) -> None:
        application = app(NOWHERE, token=TOKEN)
        async with Client(application) as client:
            assert {(await client.log_in("wrong")).status_code for _ in range(10)} == {403}
            late = await client.log_in()
            assert late.status_code == 429 and 0 < int(late.headers["retry-after"]) <= 60
        async with Client(application, address="192.0.2.1") as other:
            assert (await other.log_in()).status_code == 303

    def test_a_minute_later_it_is_over_and_a_network_counts_as_one(self) -> None:
        now = 0.0
        failures = Failures(2, 60.0, now=lambda: now)
        for address in ("2001:db8::1", "2001:db8::2"):
            failures.note({"client": (address, 1)})
        assert failures.wait({"client": ("2001:db8::3", 1)}) == 60.0
        assert failures.wait({"client": ("2001:db8:0:1::1", 1)}) == 0.0
        now = 60.0
        assert failures.wait({"client": ("2001:db8::3", 1)}) == 0.0

    @pytest.mark.parametrize("token", ["", "short", " " * 20, b"x" * 20])
    def test_one_that_can_be_guessed_is_refused(self, token: Any) -> None:
        with pytest.raises(bmdb.ConfigError, match="token"):
            app(NOWHERE, token=token)

    def test_a_new_one_will_do(self) -> None:
        assert new_token() != new_token()
        assert Access(token=new_token(), allow_actions=True).by_token

    async def test_only_the_login_and_static_files_are_to_be_seen_without(self) -> None:
        application = app(NOWHERE, token=TOKEN, providers={"p": "https://p.example/{provider_id}"}, allow_actions=True)
        seen = set()
        async with Client(application) as client:
            for route in application.routes:
                path = getattr(route, "path", "/").replace(":path}", "}").replace(":uuid}", "}")
                path = path.replace("{name}", "x").replace("{provider}", "p").replace("{provider_id}", "x")
                path = "/".join(
                    "00000000-0000-0000-0000-000000000000" if part.startswith("{") else part for part in path.split("/")
                )
                seen.add(path)
                expected = {"/login": 200, "/static": 303}.get(path, 303)
                assert (await client.get(path)).status_code == expected, path
            assert (await client.get("/static/bmdb.css")).status_code == 200
            assert (await client.get("/static/../sessions")).status_code == 303
        assert {"/", "/sessions", "/processes", "/providers/p/x"} <= seen

    async def test_whoever_is_about_to_log_in_may_do_nothing_else(self) -> None:
        async with Client(app(NOWHERE, token=TOKEN, allow_actions=True)) as client:
            csrf = form_token(await client.get("/login"))
            machine = "/machines/00000000-0000-0000-0000-000000000000"
            for path in ("/logout", "/static/bmdb.css", f"{machine}/hold", "/sessions"):
                answer = await client.post(path, {"csrf": csrf, "reason": "x"})
                assert (answer.status_code, answer.text) == (403, "Log in first."), path

    async def test_nobody_is_logged_in_by_a_form_of_others(self) -> None:
        form = {"token": TOKEN, "person": "Ada"}
        async with Client(app(NOWHERE, token=TOKEN)) as client:
            assert (await client.post("/login", form)).status_code == 403
            await client.get("/login")
            assert (await client.post("/login", form)).status_code == 403

    async def test_a_panel_says_so_and_leads_to_the_login(self) -> None:
        async with Client(app(NOWHERE, token=TOKEN)) as client:
            answer = await client.get("/sessions?panel=list", headers={"hx-request": "true"})
            assert (answer.status_code, answer.headers["hx-redirect"]) == (401, "/login")


class TestCookies:
    async def test_over_http(self) -> None:
        async with Client(app(NOWHERE, token=TOKEN)) as client:
            name, value, flags = parts_of((await client.log_in()).headers["set-cookie"])
            assert name.startswith("bmdb-")
            assert flags == {"path=/", "max-age=43200", "httponly", "samesite=strict"}
            assert TOKEN not in value

    @pytest.mark.parametrize("by", ["server", "proxy"])
    async def test_over_tls(self, by: str) -> None:
        origin = "https://localhost" if by == "server" else "http://localhost"
        headers = {} if by == "server" else {"x-forwarded-proto": "https"}
        async with Client(app(NOWHERE, token=TOKEN), origin=origin, headers=headers) as client:
            client.origin = "https://localhost"
            page = await client.get("/login")
            name, _, flags = parts_of(page.headers["set-cookie"])
            assert name.startswith("__Host-bmdb-")
            assert flags == {"path=/", "max-age=43200", "httponly", "samesite=strict", "secure"}

    async def test_that_somebody_in_between_speaks_tls_is_not_believed_from_everywhere(self) -> None:
        headers = {"x-forwarded-proto": "https"}
        async with Client(app(NOWHERE, token=TOKEN), address="192.0.2.1", headers=headers) as client:
            assert "secure" not in parts_of((await client.get("/login")).headers["set-cookie"])[2]

    async def test_the_ports_of_a_host_do_not_share_one(self) -> None:
        application = app(NOWHERE, token=TOKEN)
        async with Client(application) as one, Client(application, origin="http://localhost:8001") as two:
            names = {parts_of((await client.get("/login")).headers["set-cookie"])[0] for client in (one, two)}
        assert len(names) == 2

    async def test_one_that_was_tampered_with_is_none(self) -> None:
        async with Client(app(NOWHERE, token=TOKEN)) as client:
            name, value, _ = parts_of((await client.log_in()).headers["set-cookie"])
            text, _, signature = value.partition(".")
            nonce, began, _ = json.loads(base64.urlsafe_b64decode(text + "=="))
            forged = base64.urlsafe_b64encode(json.dumps([nonce, began, "Eve"]).encode()).decode().rstrip("=")
            client.http.cookies.clear()
            for cookie in (
                f"{forged}.{signature}",
                forged,
                f"{text}.",
                f"{text}.{signature[:-1]}",
                "é",
                f"{text}.é",
                "",
            ):
                answer = await client.get("/sessions", headers={"cookie": f"{name}={cookie}".encode()})
                assert answer.status_code == 303, cookie
            assert (await client.get("/sessions", headers={"cookie": f"a=b; {name}={value}"})).status_code == 200

    async def test_the_cookie_of_before_the_login_never_becomes_one(self) -> None:
        application = app(NOWHERE, token=TOKEN)
        async with Client(application) as ada, Client(application) as eve:
            name, planted, _ = parts_of((await eve.get("/login")).headers["set-cookie"])
            ada.http.cookies.set(name, planted, domain="localhost.local")
            before = form_token(await ada.get("/login"))
            ada.http.cookies.set(name, planted, domain="localhost.local")
            answer = await ada.post("/login", {"csrf": before, "token": TOKEN, "person": "Ada"})
            assert answer.status_code == 303
            assert (await ada.get("/sessions")).status_code == 200
            assert (await eve.get("/sessions")).status_code == 303
            assert (await ada.post("/logout", {"csrf": before})).status_code == 403

    async def test_it_lasts_half_a_day(self) -> None:
        now = 1_800_000_000.0
        visits = Visits(Access(token=TOKEN), now=lambda: now)
        scope: Any = {"scheme": "http", "headers": [(b"host", b"localhost")], "client": ("127.0.0.1", 1)}
        name, value, _ = parts_of(visits.cookie(scope, visits.begin("Ada")))
        scope["headers"].append((b"cookie", f"{name}={value}".encode()))
        visit = visits.of(scope)
        assert visit is not None and visit.person == "Ada"
        now += LASTING_SECONDS
        assert visits.of(scope) is None
        now -= LASTING_SECONDS + 1
        assert visits.of(scope) is None

    async def test_after_the_logout_a_copy_of_it_is_worth_nothing(self) -> None:
        application = app(NOWHERE, token=TOKEN)
        async with Client(application) as ada, Client(application) as thief:
            name, value, _ = parts_of((await ada.log_in()).headers["set-cookie"])
            stolen = {"cookie": f"{name}={value}"}
            assert (await thief.get("/sessions", headers=stolen)).status_code == 200
            page = await ada.get("/sessions")
            answer = await ada.post("/logout", {"csrf": form_token(page)})
            assert (answer.status_code, answer.headers["location"]) == (303, "/login")
            assert (await thief.get("/sessions", headers=stolen)).status_code == 303
            assert (await ada.get("/sessions")).status_code == 303

    async def test_it_outlives_a_restart_but_not_its_token(self) -> None:
        async with Client(app(NOWHERE, token=TOKEN)) as ada:
            name, value, _ = parts_of((await ada.log_in()).headers["set-cookie"])
        for token, status in ((TOKEN, 200), (TOKEN + "!", 303)):
            async with Client(app(NOWHERE, token=token)) as again:
                again_name = parts_of((await again.get("/login")).headers["set-cookie"])[0]
                answer = await again.get("/sessions", headers={"cookie": f"{again_name}={value}"})
                assert answer.status_code == status
                assert (again_name == name) == (token == TOKEN)


def parts_of(cookie: str) -> tuple[str, str, set[str]]:
    """Name, value and flags of a Set-Cookie header."""
    pair, *flags = cookie.split("; ")
    name, _, value = pair.partition("=")
    return name, value, {flag.lower() for flag in flags}


class TestTrustedHeaders:
    @pytest.mark.parametrize(
        ("address", "proxies"),
        [
            ("127.0.0.1", ["127.0.0.1"]),
            ("::ffff:127.0.0.1", ["127.0.0.1"]),
            ("10.1.2.3", ["10.0.0.0/8"]),
            ("2001:db8::1", ["2001:db8::/32"]),
        ],
    )
    async def test_a_proxy_names_the_person(self, address: str, proxies: list[str]) -> None:
        application = by_header(trusted_proxies=proxies)
        async with Client(application, address=address, headers={HEADER: "ada"}) as client:
            assert (await client.get("/")).text.startswith("ada True ")
            assert await acting(client) == 200

    @pytest.mark.parametrize("address", ["192.0.2.1", "::2", "10.0.0.1", "not an address"])
    async def test_nobody_else_does(self, address: str) -> None:
        headers = {HEADER: "ada", "x-forwarded-for": "127.0.0.1", "forwarded": "for=127.0.0.1"}
        async with Client(by_header(), address=address, headers=headers) as client:
            assert (await client.get("/")).status_code == 403
            assert (await client.post("/act", {"csrf": "x"})).status_code == 403

    async def test_a_proxy_that_names_nobody_lets_nobody_in(self) -> None:
        async with Client(by_header()) as client:
            assert (await client.get("/")).status_code == 403

    async def test_other_headers_say_nothing(self) -> None:
        async with Client(by_header(), headers={"X-Forwarded-User2": "ada", "Remote-User": "ada"}) as client:
            assert (await client.get("/")).status_code == 403

    async def test_without_the_setting_no_header_says_anything(self) -> None:
        async with Client(guarded(token=TOKEN), headers={HEADER: "ada"}) as client:
            assert (await client.get("/")).status_code == 303

    async def test_two_names_are_none(self) -> None:
        header = HEADER.lower().encode()
        for names in ([b"ada", b"eve"], [b"ada", b"ada"]):
            sent = await raw(by_header(), headers=[(b"host", b"localhost"), *((header, name) for name in names)])
            assert sent[0]["status"] == 400

    @pytest.mark.parametrize("name", [b"", b" ", b"a\xe2\x80\xaeb", b"\xff", b"x" * 101, b"a\x1b[0m"])
    async def test_what_is_no_name_is_refused(self, name: bytes) -> None:
        headers = [(b"host", b"localhost"), (HEADER.lower().encode(), name)]
        assert (await raw(by_header(), headers=headers))[0]["status"] == 400

    async def test_a_unix_socket_is_trusted_when_it_is_said_to_be(self) -> None:
        headers = [(b"host", b"localhost"), (HEADER.lower().encode(), b"ada")]
        assert (await raw(by_header(), headers=headers, client=None))[0]["status"] == 403
        assert (await raw(by_header(trusted_proxies=["unix"]), headers=headers, client=None))[0]["status"] == 200

    async def test_with_a_token_as_well_either_will_do(self) -> None:
        application = app(NOWHERE, token=TOKEN, trusted_header=HEADER)
        async with Client(application, headers={HEADER: "ada"}) as client:
            assert (await client.get("/sessions")).status_code == 200
        async with Client(application, address="192.0.2.1", headers={HEADER: "ada"}) as client:
            assert (await client.get("/sessions")).status_code == 303
            assert (await client.log_in()).status_code == 303
            assert (await client.get("/sessions")).status_code == 200

    @pytest.mark.parametrize("proxies", [["proxy.example"], ["10.0.0.1/8"], "127.0.0.1"])
    def test_proxies_are_addresses(self, proxies: Any) -> None:
        with pytest.raises(bmdb.ConfigError, match="prox"):
            app(NOWHERE, trusted_header=HEADER, trusted_proxies=proxies)

    @pytest.mark.parametrize("header", ["", "X User", "X-User:", "X-User\r\n"])
    def test_the_header_is_a_header(self, header: str) -> None:
        with pytest.raises(bmdb.ConfigError, match="header"):
            app(NOWHERE, trusted_header=header)
