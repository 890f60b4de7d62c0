"""What a request must bring along to be answered, and what every answer has.

Every refusal here is of a request that is right but for one thing.
"""

from __future__ import annotations

from typing import Any

import pytest

import bmdb
from bmdb.web import app
from bmdb.web.access import Access
from bmdb.web.security import LARGEST_FORM
from bmdb.web.visits import LASTING_SECONDS, Visits
from tests.web.client import NOWHERE, ORIGIN, TOKEN, Client, form_token
from tests.web.guarded import HEADER, acting, assert_armoured, by_header, guarded, raw

ACTIONS = ["hold", "release", "force-release", "clear-backoff", "release-quarantine"]
MACHINE = "00000000-0000-0000-0000-000000000001"


class TestHosts:
    @pytest.mark.parametrize(
        "host", ["localhost", "localhost:8000", "LOCALHOST:1", "127.0.0.1:80", "[::1]:8000", "localhost."]
    )
    async def test_the_names_of_this_machine_are_served(self, host: str) -> None:
        async with Client(guarded()) as client:
            assert (await client.get("/", headers={"host": host})).status_code == 200

    @pytest.mark.parametrize(
        "host", ["evil.example", "localhost.evil.example", "evil.example:8000", "127.0.0.1.evil.example", "[::2]"]
    )
    async def test_a_name_that_leads_here_and_is_not_ours_is_misdirected(self, host: str) -> None:
        async with Client(guarded()) as client:
            answer = await client.get("/", headers={"host": host})
            assert answer.status_code == 421
            assert "evil" not in answer.text

    async def test_a_form_from_such_a_name_is_too(self) -> None:
        async with Client(by_header(), headers={HEADER: "ada"}) as client:
            assert await acting(client, host="evil.example", origin="http://evil.example") == 421

    @pytest.mark.parametrize("host", ["", "localhost@evil.example", "localhost/evil", "localhost:8000:1", "local host"])
    async def test_a_host_that_is_none_is_a_bad_request(self, host: str) -> None:
        async with Client(guarded()) as client:
            assert (await client.get("/", headers={"host": host})).status_code == 400

    @pytest.mark.parametrize("hosts", [[], [b"localhost", b"localhost"]])
    async def test_there_is_one_host(self, hosts: list[bytes]) -> None:
        assert (await raw(guarded(), headers=[(b"host", host) for host in hosts]))[0]["status"] == 400

    async def test_other_names_are_served_when_given(self) -> None:
        async with Client(guarded(hosts=["fleet.example"])) as client:
            assert (await client.get("/", headers={"host": "fleet.example"})).status_code == 200
            assert (await client.get("/")).status_code == 421

    @pytest.mark.parametrize("hosts", [["localhost:80"], ["*"], ["https://a"], [""], "localhost"])
    def test_names_are_names(self, hosts: Any) -> None:
        with pytest.raises(bmdb.ConfigError, match="host"):
            app(NOWHERE, hosts=hosts)


class TestOrigins:
    async def test_our_own_page_may(self) -> None:
        async with Client(by_header(), headers={HEADER: "ada"}) as client:
            assert await acting(client) == 200
            assert await acting(client, origin="") == 200
            assert await acting(client, sec_fetch_site="") == 200

    @pytest.mark.parametrize(
        "headers",
        [
            {"origin": "", "sec_fetch_site": ""},
            {"origin": "http://evil.example", "sec_fetch_site": ""},
            {"origin": "http://localhost:8001", "sec_fetch_site": ""},
            {"origin": "http://localhost", "sec_fetch_site": ""},
            {"origin": "null", "sec_fetch_site": ""},
            {"origin": "", "sec_fetch_site": "same-site"},
            {"origin": "", "sec_fetch_site": "cross-site"},
            {"origin": "", "sec_fetch_site": "none"},
            {"sec_fetch_site": "cross-site"},
            {"origin": "http://evil.example"},
        ],
        ids=str,
    )
    async def test_a_page_of_others_may_not(self, headers: dict[str, str]) -> None:
        async with Client(by_header(), headers={HEADER: "ada"}) as client:
            assert await acting(client, **headers) == 403

    async def test_with_tls_a_page_without_is_another(self) -> None:
        async with Client(by_header(), origin="https://localhost", headers={HEADER: "ada"}) as client:
            assert await acting(client) == 200
            assert await acting(client, origin="http://localhost", sec_fetch_site="") == 403

    async def test_behind_a_proxy_with_tls_too(self) -> None:
        headers = {HEADER: "ada", "x-forwarded-proto": "https"}
        async with Client(by_header(), headers=headers) as client:
            assert await acting(client, origin="https://localhost:8000") == 200
            assert await acting(client, origin="http://localhost:8000", sec_fetch_site="") == 403


class TestForms:
    async def test_a_form_brings_its_token_along(self) -> None:
        async with Client(by_header(), headers={HEADER: "ada"}) as client:
            for form in ({"x": "y"}, {"csrf": ""}, {"csrf": "1.2"}, {"csrf": "é.é"}, {"csrf": "."}):
                assert (await client.post("/act", form)).status_code == 403, form

    async def test_the_token_of_another_person_is_none(self) -> None:
        application = by_header()
        async with (
            Client(application, headers={HEADER: "eve"}) as eve,
            Client(application, headers={HEADER: "ada"}) as ada,
        ):
            csrf = (await eve.get("/")).text.split()[-1]
            assert (await eve.post("/act", {"csrf": csrf})).status_code == 200
            assert (await ada.post("/act", {"csrf": csrf})).status_code == 403

    async def test_the_token_of_another_visit_is_none(self) -> None:
        application = app(NOWHERE, token=TOKEN)
        async with Client(application) as eve, Client(application) as ada:
            csrf = form_token(await eve.get("/login"))
            await ada.get("/login")
            form = {"csrf": csrf, "token": TOKEN, "person": "Ada"}
            assert (await ada.post("/login", form)).status_code == 403
            assert (await eve.post("/login", form)).status_code == 303

    def test_the_token_of_yesterday_is_none(self) -> None:
        now = 1_800_000_000.0
        visits = Visits(Access(token=TOKEN), now=lambda: now)
        token = visits.form_token("visit x")
        now += LASTING_SECONDS - 1
        assert visits.is_form_token("visit x", token)
        now += 1
        assert not visits.is_form_token("visit x", token)

    def test_a_signature_is_good_for_its_purpose_alone(self) -> None:
        access = Access(token=TOKEN)
        assert access.is_signed("form", "1 visit x", access.sign("form", "1 visit x"))
        assert not access.is_signed("visit", "1 visit x", access.sign("form", "1 visit x"))
        assert not Access(token="another token here").is_signed("form", "x", access.sign("form", "x"))

    async def test_a_form_is_small_and_plain(self) -> None:
        async with Client(by_header(), headers={HEADER: "ada"}) as client:
            csrf = (await client.get("/")).text.split()[-1]
            assert (await client.post("/act", {"csrf": csrf, "x": "y" * LARGEST_FORM})).status_code == 413
            assert (await client.post("/act", {"csrf": csrf, "x": "\0"})).status_code == 400
            assert (await client.post("/act", {"csrf": csrf} | {f"x{i}": "y" for i in range(50)})).status_code == 400
            headers = {"origin": ORIGIN, "content-type": "application/x-www-form-urlencoded"}
            twice = await client.http.post("/act", content=f"csrf={csrf}&csrf={csrf}", headers=headers)
            assert twice.status_code == 400
            bad = await client.http.post("/act", content=f"csrf={csrf}&x=%ff", headers=headers)
            assert bad.status_code == 400
            plain = {"origin": ORIGIN, "content-type": "text/plain"}
            assert (await client.http.post("/act", content=f"csrf={csrf}", headers=plain)).status_code == 415

    @pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "CONNECT", "get"])
    async def test_there_are_no_other_methods(self, method: str) -> None:
        sent = await raw(
            by_header(), method=method, headers=[(b"host", b"localhost"), (b"origin", b"http://localhost")]
        )
        assert sent[0]["status"] == 405


class TestActions:
    def test_nobody_known_may_not_act(self) -> None:
        with pytest.raises(bmdb.ConfigError, match="actions"):
            app(NOWHERE, allow_actions=True)

    @pytest.mark.parametrize("act", ACTIONS)
    async def test_without_the_setting_there_are_none(self, act: str) -> None:
        application = app(NOWHERE, token=TOKEN, trusted_header=HEADER)
        assert not hasattr(application.state, "acting")
        async with Client(application, headers={HEADER: "ada"}) as client:
            visits = Visits(Access(token=TOKEN))
            form = {"csrf": visits.form_token("person ada"), "process": "P", "reason": "x", "token": "1", "sure": "yes"}
            answer = await client.post(f"/machines/{MACHINE}/{act}", form)
            assert answer.status_code == 405
            assert answer.headers["allow"] == "GET, HEAD"

    @pytest.mark.parametrize("act", ACTIONS)
    async def test_with_it_looking_at_one_does_nothing(self, act: str) -> None:
        application = app(NOWHERE, allow_actions=True, trusted_header=HEADER)
        async with Client(application, headers={HEADER: "ada"}) as client:
            assert (await client.get(f"/machines/{MACHINE}/{act}")).status_code == 405

    async def test_whoever_may_only_look_has_no_form_token(self) -> None:
        async with Client(guarded()) as client:
            assert (await client.get("/")).text == "None False "
        async with Client(guarded(trusted_header=HEADER), headers={HEADER: "ada"}) as client:
            assert (await client.get("/")).text.startswith("ada False ")
            assert await acting(client) == 405


class TestHeaders:
    @pytest.mark.parametrize(
        ("path", "status"),
        [("/", 303), ("/login", 200), ("/static/bmdb.css", 200), ("/static/none", 404), ("/sessions", 303)],
    )
    async def test_every_answer_has_them(self, path: str, status: int) -> None:
        async with Client(app(NOWHERE, token=TOKEN)) as client:
            answer = await client.get(path)
            assert answer.status_code == status
            assert_armoured(answer.headers)
            assert answer.headers["cache-control"] == ("no-cache" if path.startswith("/static") else "no-store")

    async def test_refusals_too(self) -> None:
        async with Client(guarded()) as client:
            assert_armoured((await client.get("/", headers={"host": "evil"})).headers)
            assert_armoured((await client.post("/act", {})).headers)
            assert_armoured((await client.get("/nowhere")).headers)

    async def test_and_answers_to_mistakes_of_ours_which_tell_nothing(self) -> None:
        async with Client(guarded()) as client:
            answer = await client.get("/broken")
            assert answer.status_code == 500 and "secret" not in answer.text
            assert_armoured(answer.headers)

    async def test_a_mistake_surfaces_for_the_servers_log(self) -> None:
        with pytest.raises(RuntimeError, match="a secret"):
            await raw(guarded(), headers=[(b"host", b"localhost")], path="/broken")

    async def test_what_people_wrote_is_text(self) -> None:
        async with Client(app(NOWHERE, token=TOKEN)) as client:
            page = await client.get("/login", params={"next": '/"><script>alert(1)</script>'})
            assert "<script>alert" not in page.text and "&lt;script&gt;" in page.text

    async def test_web_sockets_are_closed(self) -> None:
        sent: list[Any] = []

        async def send(message: Any) -> None:
            sent.append(message)

        async def receive() -> dict[str, str]:
            return {"type": "websocket.connect"}

        await guarded()({"type": "websocket", "path": "/", "headers": [(b"host", b"localhost")]}, receive, send)
        assert sent == [{"type": "websocket.close", "code": 1008}]
