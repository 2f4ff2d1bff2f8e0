"""The REST service on a real API server: whose token, whose rights, and what an action does."""

from service_of_tests import Service
from site_of_tests import Site, document


async def test_a_caller_sees_and_does_what_the_callers_own_rights_allow(site: Site):
    await site.operator()
    async with Service(site) as service:
        await site.apply(document("cart", generations=5000))
        await site.generation("cart", 1)
        viewer = await service.token("viewer", "get,list,watch")
        editor = await service.token("editor", "get,list,watch,patch")
        nobody = await service.token("nobody")
        stranger = await service.token("stranger", "get,list", audience="another")

        assert (await service.ask("cart", viewer)).json["state"] == "Running"
        assert (await service.ask("cart", viewer)).json["actions"] == []
        assert "suspend" in (await service.ask("cart", editor)).json["actions"]
        listed = (await service.ask("/api/v1/experiments", viewer)).json
        assert [item["name"] for item in listed["items"]] == ["cart"]
        for token, status in ((nobody, 403), (stranger, 401), ("x.y.z", 401), ("", 401)):
            for path in ("cart", "cart/history", "cart/events", "missing"):
                assert (await service.ask(path, token)).status == status, (path, status)
        assert (await service.ask("/api/v1/experiments", nobody)).json["items"] == []
        assert (await service.ask("/api/v1/experiments", stranger)).status == 401
        elsewhere = "/api/v1/namespaces/kube-system/experiments/cart"
        assert (await service.ask(elsewhere, viewer)).status == 403
        assert (await service.ask("cart/suspend", viewer, {})).status == 403

        assert (await service.ask("cart/suspend", editor, {})).status == 200
        await site.wait("cart", "Suspended")
        assert (await service.ask("cart/resume", editor, {})).status == 200
        await site.wait("cart", "Running")
        assert (await service.ask("cart/stop", editor, {})).status == 200
        status = await site.wait("cart", "Succeeded")
        last = status["progress"]["generation"]
        answer = await service.ask("cart/extend", editor, {"maxGenerations": last + 3})
        assert answer.status == 200
        await site.generation("cart", last + 2)
        answer = await service.ask("cart/extend", editor, {"targetFitness": "1e9"})
        assert answer.status == 422
        assert not [
            line for line in (site.folder / "api.log").read_text().split() if viewer in line
        ]


async def test_the_services_rights_are_exactly_what_it_asks_for(site: Site):
    await site.operator()
    async with Service(site) as service:
        editor = await service.token("editor", "get,list,watch,patch")
        await site.apply(document("cart", generations=2))
        await site.wait("cart", "Succeeded")
        assert (await service.ask("cart/extend", editor, {"maxGenerations": 3})).status == 200
    used = site.control_plane.requests(f"{site.system}:{service.account}")
    assert used == {
        ("kubevo.dev", "experiments", "list"),
        ("kubevo.dev", "experiments", "watch"),
        ("kubevo.dev", "experiments", "patch"),
        ("authentication.k8s.io", "tokenreviews", "create"),
        ("authorization.k8s.io", "subjectaccessreviews", "create"),
    }


async def test_an_api_server_that_dies_is_waited_for_and_nobody_is_let_in_meanwhile(site: Site):
    await site.operator()
    async with Service(site) as service:
        viewer = await service.token("viewer", "get,list,watch")
        other = await service.token("other", "get,list,watch")
        await site.apply(document("cart", generations=2))
        await site.wait("cart", "Succeeded")
        assert (await service.ask("cart", viewer)).status == 200
        await site.control_plane.kill_api_server()
        try:
            assert (await service.ask("cart", other)).status == 503
        finally:
            await site.control_plane.start_api_server()
        await site.apply(document("later", generations=2))

        async def is_shown() -> bool:
            return (await service.ask("later", viewer)).status == 200

        await site.until(is_shown, "the watch goes on")
        assert (await service.ask("/readyz", "")).status == 200


async def test_a_model_is_served_while_the_search_goes_on_and_after(site: Site):
    await site.operator()
    async with Service(site) as service:
        viewer = await service.token("viewer", "get,list,watch")
        await site.apply(document("cart", generations=3))
        await site.wait("cart", "Succeeded")
        found = (await service.ask("cart", viewer)).json
        best = (await service.ask("cart/best", viewer)).json
        assert best["digest"] == found["best"]["digest"]
        model = await service.ask("cart/best/model.safetensors", viewer)
        assert model.status == 200
        assert len(model.body) > 4 * best["parameters"]


async def test_a_video_of_the_best_is_made_beside_the_search_and_served(site: Site, local):
    await site.operator()
    search = document("cart", generations=6, recording={"everyGenerations": 3})
    async with Service(site) as service:
        viewer = await service.token("viewer", "get,list,watch")
        await site.apply(search)
        await site.wait("cart", "Succeeded")
        await site.same("cart", local(document("cart", generations=6)))  # without recordings
        videos = (await service.ask("cart/videos", viewer)).json["items"]
        assert {2, 5} <= {item["generation"] for item in videos}
        whole = await service.ask("cart/best/video.mp4", viewer)
        assert whole.headers["content-type"] == "video/mp4"
        assert whole.body[4:8] == b"ftyp"
