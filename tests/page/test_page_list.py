"""The list in a real browser: first visit, a thousand experiments, live changes, sign-in, loss."""

import json
import re
from datetime import UTC, datetime, timedelta

import pytest
from playwright.async_api import expect

# One browser serves all tests, so they share its event loop.
pytestmark = pytest.mark.asyncio(loop_scope="session")

THOUSAND = 1000
MILLISECONDS_TO_SORT = """() => {
    const button = [...document.querySelectorAll('th button')]
        .find((each) => each.textContent === 'Environment');
    const start = performance.now();
    button.click();
    document.body.getBoundingClientRect();
    return performance.now() - start;
}"""


async def test_a_first_visit_says_how_to_begin(serve, open_tab):
    tab = await open_tab(serve.url)

    await expect(tab.page.get_by_role("heading", name="No experiments yet")).to_be_visible()
    await expect(tab.page.get_by_text("kubevo run examples/cartpole.yaml")).to_be_visible()
    await tab.shot("first-visit")


async def test_the_token_leaves_the_address_bar(serve, open_tab):
    tab = await open_tab(serve.url)

    await expect(tab.page.get_by_role("heading", name="No experiments yet")).to_be_visible()
    assert "token" not in tab.page.url


async def test_a_new_experiment_appears_without_a_reload(data, serve, open_tab):
    tab = await open_tab(serve.url)
    await expect(tab.page.get_by_role("heading", name="No experiments yet")).to_be_visible()

    data.search("newcomer").advance()

    await expect(tab.page.get_by_role("link", name="newcomer")).to_be_visible()


@pytest.mark.alone
async def test_a_thousand_experiments_are_paged_sorted_and_filtered(data, serve, open_tab):
    data.many(THOUSAND)
    data.search("zebra").advance(2)
    tab = await open_tab(serve.url)
    page = tab.page
    await expect(page.get_by_text("1,001 experiments")).to_be_visible()
    rows = page.locator("tbody tr")
    await expect(rows).to_have_count(50)
    await tab.shot("thousand")
    assert await page.evaluate(MILLISECONDS_TO_SORT) < 500

    await page.get_by_role("button", name="Generations").click()
    await page.get_by_role("button", name="Generations").click()
    await expect(rows.first).to_contain_text("zebra")
    await page.get_by_role("button", name="Next").click()
    await expect(page.get_by_text("51–100 of 1,001")).to_be_visible()
    await page.get_by_label("Filter by name or environment").fill("acrobot")
    await expect(page.get_by_text("333 of 1,001 experiments")).to_be_visible()
    assert "q=acrobot" in page.url
    await page.get_by_label("Filter by name or environment").fill("no such thing")
    await expect(page.get_by_role("heading", name="No experiment fits")).to_be_visible()
    await page.get_by_role("button", name="Clear the filters").click()
    await expect(rows).to_have_count(50)


async def test_a_phone_shows_the_list_as_cards(data, serve, open_tab):
    data.search("finished", generations=3).advance(3)
    running = data.search("running")
    running.advance(2)
    data.hold(running)

    tab = await open_tab(serve.url, phone=True, color_scheme="light")
    await expect(tab.page.locator(".badge", has_text="Running")).to_be_visible()
    await expect(tab.page.get_by_role("link", name="finished")).to_be_visible()
    assert not await tab.is_wider_than_the_window()
    await tab.shot("phone-list")


async def test_a_wrong_token_is_refused_and_a_right_one_opens_the_page(data, serve, open_tab):
    data.search("cartpole").advance()
    tab = await open_tab(f"{serve.origin}/#token={'x' * 43}")
    field = tab.page.get_by_label("Token")

    await expect(field).to_be_focused()
    await expect(tab.page.get_by_role("alert")).to_contain_text("not valid here")
    await tab.shot("wrong-token")
    await field.fill("still wrong")
    await tab.page.get_by_role("button", name="Open").click()
    await expect(tab.page.get_by_role("alert")).to_contain_text("not the token of this server")
    await field.fill(serve.url)  # people paste the whole address
    await tab.page.get_by_role("button", name="Open").click()
    await expect(tab.page.get_by_role("link", name="cartpole", exact=True)).to_be_visible()


async def test_no_token_asks_for_one(serve, open_tab):
    tab = await open_tab(serve.origin)

    await expect(tab.page.get_by_label("Token")).to_be_visible()
    await expect(tab.page.locator(".sign-in [role=alert]")).to_be_hidden()


@pytest.mark.parametrize("who", ["the page", "the button"])
async def test_a_lost_server_is_said_and_its_return_is_noticed(data, serve, open_tab, who):
    data.search("before").advance()
    tab = await open_tab("about:blank")
    await tab.page.clock.install()
    await tab.page.goto(serve.url)
    await expect(tab.page.get_by_text("Live")).to_be_visible()

    serve.stop()
    banner = tab.page.locator("#banner")
    await expect(banner).to_contain_text("The connection is lost: what you see is from")
    await expect(tab.page.get_by_role("link", name="before")).to_be_visible()
    await tab.shot("lost")
    data.search("meanwhile").advance()
    if who == "the button":  # else the page may be first, whose next try is some seconds away
        await tab.page.clock.pause_at(datetime.now(UTC) + timedelta(minutes=1))
    serve.start()
    if who == "the button":
        async with tab.page.expect_event("response"):
            await banner.get_by_role("button", name="Try now").click()
        await tab.page.clock.resume()

    await expect(tab.page.get_by_role("link", name="meanwhile")).to_be_visible()
    await expect(banner).to_be_hidden()
    await expect(tab.page.get_by_text("Live")).to_be_visible()


async def test_the_switch_keeps_the_dark_theme(data, serve, open_tab):
    data.search("cartpole").advance()
    tab = await open_tab(serve.url, color_scheme="light")
    switch = tab.page.get_by_role("button", name=re.compile("^Colours"))

    await switch.click()
    await switch.click()
    await expect(tab.page.locator("html")).to_have_attribute("data-theme", "dark")
    await tab.page.reload()
    await expect(tab.page.get_by_role("link", name="cartpole", exact=True)).to_be_visible()
    await expect(tab.page.locator("html")).to_have_attribute("data-theme", "dark")


async def test_everything_comes_from_the_server_itself(data, serve, open_tab):
    data.search("cartpole").advance(2)
    tab = await open_tab("about:blank")
    asked = []
    tab.page.on("request", lambda request: asked.append(request.url))

    await tab.page.goto(serve.at("local/cartpole"))
    await tab.drawn(4)

    assert {url for url in asked if not url.startswith((serve.origin, "data:", "blob:"))} == set()


async def test_ticked_experiments_are_compared(data, serve, open_tab):
    for seed, name in enumerate(("alpha", "beta")):
        data.search(name, repeats=3, seed=seed, generations=6).advance(6)
    tab = await open_tab(serve.url)

    await tab.page.get_by_label("Compare alpha").check()
    await tab.page.get_by_label("Compare beta").check()
    await tab.page.get_by_role("link", name="Compare 2").click()

    await tab.drawn(2)
    table = tab.page.get_by_role("table", name="Results")
    await expect(table.get_by_role("row")).to_have_count(3)
    await expect(table).to_contain_text("local/alpha")
    await expect(table).to_contain_text(" to ")
    await tab.shot("compare")
    await tab.page.get_by_role("button", name="Remove local/alpha").click()
    await expect(table.get_by_role("row")).to_have_count(2)


async def test_a_comparison_of_nothing_says_how_to_choose(serve, open_tab):
    tab = await open_tab(serve.at("compare"))

    await expect(tab.page.get_by_role("heading", name="Nothing to compare yet")).to_be_visible()


async def test_the_keyboard_reaches_an_experiment(data, serve, open_tab):
    data.search("cartpole", generations=3).advance(3)
    tab = await open_tab(serve.url)
    keyboard = tab.page.keyboard
    await expect(tab.page.get_by_role("link", name="cartpole", exact=True)).to_be_visible()

    await keyboard.press("Tab")
    await expect(tab.page.get_by_text("Skip to the content")).to_be_focused()
    await keyboard.press("Enter")
    await keyboard.press("Tab")
    passed = []
    for _ in range(30):
        name = await tab.page.evaluate(
            "document.activeElement.ariaLabel ?? document.activeElement.textContent"
        )
        passed.append(name.strip())
        if name.strip() == "cartpole":
            break
        await keyboard.press("Tab")
    assert passed[-1] == "cartpole", json.dumps(passed)
    await tab.shot("keyboard")
    await keyboard.press("Enter")
    await expect(tab.page.get_by_role("heading", name="cartpole", level=1)).to_be_visible()
