"""Suspend, resume, stop, extend: the local server allows none, so its answer is given some."""

import json

import pytest
import pytest_asyncio
from playwright.async_api import expect

# One browser serves all tests, so they share its event loop.
pytestmark = pytest.mark.asyncio(loop_scope="session")


@pytest_asyncio.fixture(loop_scope="session")
async def open_with(data, serve, open_tab):
    """Yield a function that opens an experiment as if the service allowed ``actions``."""
    tabs = []

    async def opened(actions):
        search = data.search("cartpole")
        search.advance(3)
        data.hold(search)
        tab = await open_tab("about:blank")
        tabs.append(tab)

        async def allow(route):
            response = await route.fetch()
            await route.fulfill(
                response=response, json={**await response.json(), "actions": actions}
            )

        await tab.page.route("**/experiments/cartpole", allow)
        await tab.page.goto(serve.at("local/cartpole"))
        await expect(tab.page.get_by_role("heading", name="cartpole", level=1)).to_be_visible()
        return tab

    yield opened
    for tab in tabs:  # an answer may still be on its way
        await tab.page.unroute_all(behavior="ignoreErrors")


async def test_only_what_is_allowed_is_offered(open_with):
    tab = await open_with(["resume", "extend"])

    buttons = tab.page.get_by_role("group", name="Actions").get_by_role("button")
    await expect(buttons).to_have_text(["Resume", "Extend…"])


async def test_a_refused_action_says_what_to_do_instead(open_with):
    tab = await open_with(["suspend", "stop", "extend"])

    await tab.page.get_by_role("button", name="Suspend").click()

    await expect(tab.page.locator(".toast")).to_contain_text("is a local run")


async def test_extending_sends_only_what_was_changed(open_with):
    tab = await open_with(["extend"])
    asked = []
    tab.page.on("request", lambda request: asked.append(request))  # noqa: PLW0108 - Playwright marks handlers
    await tab.page.get_by_role("button", name="Extend").click()
    dialog = tab.page.get_by_role("dialog")
    await expect(dialog.get_by_label("Generations at most")).to_have_value("100")

    await dialog.get_by_role("button", name="Extend").click()
    await expect(dialog.get_by_role("alert")).to_contain_text("Nothing was changed")
    await dialog.get_by_label("Generations at most").fill("200")
    await tab.shot("extend", full=False)
    await dialog.get_by_role("button", name="Extend").click()

    await expect(dialog.get_by_role("alert")).to_contain_text("is a local run")
    sent = [request for request in asked if request.method == "POST"]
    assert [json.loads(request.post_data) for request in sent] == [{"maxGenerations": 200}]
    await tab.page.keyboard.press("Escape")
    await expect(dialog).to_be_hidden()


async def test_stopping_is_asked_twice(open_with):
    tab = await open_with(["stop"])
    await tab.page.get_by_role("button", name="Stop").click()

    dialog = tab.page.get_by_role("dialog")
    await expect(dialog).to_contain_text("Stop cartpole?")
    await dialog.get_by_role("button", name="Cancel").click()

    await expect(dialog).to_be_hidden()
    await expect(tab.page.locator(".toast")).to_have_count(0)
