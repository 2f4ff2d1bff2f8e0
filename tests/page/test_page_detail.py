"""One experiment in a real browser: running, finished, failed, interrupted, long, on a phone."""

import json

import imageio_ffmpeg
import numpy as np
import pytest
from playwright.async_api import expect

# One browser serves all tests, so they share its event loop.
pytestmark = pytest.mark.asyncio(loop_scope="session")

LONG = 10_000


def panel(tab, name):
    return tab.page.get_by_role("region", name=name)


def record(path):
    """Write a second of a moving square, as `kubevo` writes its episodes."""
    writer = imageio_ffmpeg.write_frames(str(path), (64, 48), fps=20, macro_block_size=None)
    writer.send(None)
    for step in range(20):
        picture = np.zeros((48, 64, 3), np.uint8)
        picture[16:32, step : step + 16] = 255
        writer.send(picture)
    writer.close()


async def last_x(tab):
    """Return the last generation that the learning curve shows."""
    return await tab.page.evaluate(
        "document.querySelector('.chart.chart-curve').data.find((t) => t.name === 'Mean').x.at(-1)"
    )


async def zoom(tab):
    return await tab.page.evaluate(
        "document.querySelector('.chart.chart-curve').layout.xaxis.range.map(Math.round)"
    )


async def test_a_generation_appears_without_a_reload_and_keeps_the_zoom(data, serve, open_tab):
    search = data.search("cartpole")
    search.advance(12)
    data.hold(search)
    tab = await open_tab(serve.at("local/cartpole"))
    await tab.drawn(4)
    await expect(tab.page.locator(".badge")).to_have_text("Running")
    assert await last_x(tab) == 11
    await tab.shot("running")
    await tab.page.evaluate(
        "window.Plotly.relayout(document.querySelector('.chart.chart-curve'), {'xaxis.range': [2, 8]})"
    )

    search.advance(2)

    await tab.page.wait_for_function(
        "() => document.querySelector('.chart.chart-curve').data.find((t) => t.name === 'Mean').x.at(-1) === 13"
    )
    await expect(tab.page.locator(".tiles")).to_contain_text("of 100")
    await expect(tab.page.get_by_label("Generation, as a number")).to_have_value("13")
    await expect(panel(tab, "Events")).to_contain_text("eneration 13")
    assert await zoom(tab) == [2, 8]


async def test_an_earlier_generation_stays_while_new_ones_arrive(data, serve, open_tab):
    search = data.search("cartpole")
    search.advance(6)
    data.hold(search)
    tab = await open_tab(serve.at("local/cartpole"))
    await tab.drawn(4)

    await tab.page.get_by_role("slider", name="Generation").focus()
    await tab.page.keyboard.press("ArrowLeft")
    await tab.page.keyboard.press("ArrowLeft")
    await expect(panel(tab, "Generation")).to_contain_text("Generation 3")
    search.advance()

    await expect(panel(tab, "Events")).to_contain_text("eneration 6")
    await expect(tab.page.get_by_label("Generation, as a number")).to_have_value("3")
    await tab.page.get_by_label("Newest", exact=True).check()
    await expect(tab.page.get_by_label("Generation, as a number")).to_have_value("6")


async def test_a_finished_run_shows_its_test_and_its_files(data, serve, open_tab):
    data.search("cartpole", generations=20).advance(20)
    tab = await open_tab(serve.at("local/cartpole"))
    page = tab.page
    await tab.drawn(4)

    await expect(page.locator(".badge")).to_have_text("Succeeded")
    await expect(page.locator(".run-next")).to_contain_text("6 held-out episodes")
    await expect(panel(tab, "Spec")).to_contain_text("populationSize: 24")
    await expect(panel(tab, "Conditions")).to_contain_text("maxGenerations")
    await expect(page.locator(".actions button")).to_have_count(0)
    await tab.shot("finished")
    await page.get_by_text("Download", exact=True).first.click()
    await tab.shot("downloads", full=False)
    async with page.expect_download() as caught:
        await page.get_by_role("link", name="history.csv").click()
    download = await caught.value
    assert download.suggested_filename == "cartpole-repeat-0.csv"
    lines = (await download.path()).read_text().splitlines()
    assert len(lines) == 21


async def test_an_individual_shows_its_genome_and_its_ancestors(data, serve, open_tab):
    data.search("cartpole", generations=6).advance(6)
    tab = await open_tab(serve.at("local/cartpole"))
    await tab.drawn(4)

    await tab.page.get_by_role("button", name="Show individual").first.click()
    box = tab.page.locator(".individual")
    await expect(box).to_contain_text("kubevo-1:mlp-4-16-2:")
    await expect(box.get_by_role("link", name="policy.py")).to_be_visible()
    await tab.shot("individual")
    await box.get_by_role("button", name="Show its lineage").click()
    await expect(tab.page.get_by_role("heading", name="Lineage of #")).to_be_visible()
    await box.get_by_role("button", name="of generation 4").click()
    await expect(panel(tab, "Generation")).to_contain_text("of generation 4")


async def test_pruned_genomes_are_told_with_the_rule(data, serve, open_tab):
    search = data.search("cartpole", generations=6)
    search.advance(6)
    search.run.repeat(0).prune(1, 0, 5)
    tab = await open_tab(serve.at("local/cartpole"))
    await tab.drawn(4)

    await tab.page.get_by_label("Generation, as a number").fill("2")
    await tab.page.keyboard.press("Enter")

    await expect(panel(tab, "Generation")).to_contain_text("Genomes pruned")
    await expect(panel(tab, "Generation")).to_contain_text("keepLast")
    await expect(panel(tab, "Generation")).to_contain_text("individuals 24")


async def test_a_failed_run_says_why_and_markup_in_it_stays_text(data, serve, open_tab):
    data.search("broken", fails=True).advance(1)
    tab = await open_tab(serve.at("local/broken"))

    await expect(tab.page.locator(".badge")).to_have_text("Failed")
    await expect(tab.page.locator(".run-next")).to_contain_text("Every evaluation")
    failures = panel(tab, "Failed episodes")
    await expect(failures).to_contain_text("<b>observation</b> has 5 values")
    await expect(failures.locator("b")).to_have_count(0)
    await expect(panel(tab, "Events")).to_contain_text("Failed: AllEvaluationsFailed")
    await expect(panel(tab, "Generation")).to_contain_text("No individual has a fitness")
    await tab.shot("failed")


async def test_an_interrupted_run_says_how_to_go_on(data, serve, open_tab):
    data.search("cartpole").advance(3)
    tab = await open_tab(serve.at("local/cartpole"))

    await expect(tab.page.locator(".badge")).to_have_text("Interrupted")
    await expect(tab.page.locator(".run-next code")).to_have_text("kubevo run FILE --resume")


async def test_a_run_without_a_generation_is_waited_for(data, serve, open_tab):
    search = data.search("cartpole")
    data.hold(search)
    tab = await open_tab(serve.at("local/cartpole"))
    await expect(tab.page.get_by_text("No generation is finished yet")).to_be_visible()
    await tab.shot("before-the-first-generation")

    search.advance()

    await tab.drawn(4)
    assert await last_x(tab) == 0


async def test_a_recording_can_be_played(data, serve, open_tab):
    search = data.search("cartpole", generations=4)
    search.advance(4)
    folder = search.run.path / "repeat-0/videos"
    folder.mkdir()
    record(folder / "gen-0000002.mp4")
    tab = await open_tab(serve.at("local/cartpole"))

    await expect(tab.page.get_by_label("Recording", exact=True)).to_have_value("0")
    await tab.page.wait_for_function("() => document.querySelector('video').readyState >= 1")
    assert await tab.page.evaluate("document.querySelector('video').duration") > 0.5
    await tab.shot("recording")


async def test_an_unknown_experiment_is_an_answer_with_a_way_back(serve, open_tab):
    tab = await open_tab(serve.at("local/nothing"))

    await expect(tab.page.get_by_role("alert")).to_contain_text("There is no such experiment")
    await tab.shot("unknown")
    await tab.page.get_by_role("link", name="All experiments", exact=True).click()
    await expect(tab.page.get_by_role("heading", name="No experiments yet")).to_be_visible()


async def test_repeats_are_told_apart(data, serve, open_tab):
    data.search("cartpole", repeats=3, generations=5).advance(5)
    tab = await open_tab(serve.at("local/cartpole?repeat=2"))
    await tab.drawn(4)

    choice = tab.page.get_by_label("Repeat")
    await expect(choice).to_have_value("2")
    await choice.select_option("1")

    await expect(tab.page.get_by_label("Repeat")).to_have_value("1")
    assert tab.page.url.endswith("repeat=1")


async def test_ten_thousand_generations_of_a_thousand_are_thinned_out_and_zoomed_into(
    data, serve, open_tab
):
    search = data.search("marathon", generations=LONG, population=1000)
    search.advance(2)
    file = search.run.path / "repeat-0/history.jsonl"
    row = json.loads(file.read_text().splitlines()[-1])
    with file.open("a") as stream:
        for generation in range(2, LONG):
            row["generation"], row["frames"] = generation, 5000 * (generation + 1)
            row["fitness"] |= {"mean": generation**0.5, "max": generation**0.5 + generation % 7}
            stream.write(json.dumps(row) + "\n")
    tab = await open_tab(serve.at("local/marathon"))
    await tab.drawn(1)
    await expect(panel(tab, "Learning curve")).to_contain_text("a point is 17 generations")
    points = (
        "document.querySelector('.chart.chart-curve').data.find((t) => t.name === 'Mean').x.length"
    )
    assert await tab.page.evaluate(points) == 600
    await tab.shot("ten-thousand-generations")

    await tab.page.evaluate(
        "window.Plotly.relayout(document.querySelector('.chart.chart-curve'), "
        "{'xaxis.range[0]': 4000, 'xaxis.range[1]': 4400})"
    )

    await tab.page.wait_for_function(f"() => {points} > 900")
    assert await zoom(tab) == [4000, 4400]

    await tab.page.get_by_label("Generation, as a number").fill("1")
    await tab.page.keyboard.press("Enter")
    individuals = (
        "[...document.querySelectorAll('.chart.chart-part')].flatMap((chart) => chart.data ?? [])"
        ".find((trace) => trace.name === 'Individual')?.x.length"
    )
    await tab.page.wait_for_function(f"() => {individuals} > 950")  # some fail


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_a_phone_shows_an_experiment_without_scrolling_sideways(
    data, serve, open_tab, scheme
):
    data.search("cartpole", generations=15).advance(15)
    tab = await open_tab(serve.at("local/cartpole"), phone=True, color_scheme=scheme)
    await tab.drawn(4)

    assert not await tab.is_wider_than_the_window()
    await tab.shot(f"phone-{scheme}")


async def test_dark_is_dark_also_in_the_charts(data, serve, open_tab):
    data.search("cartpole", generations=15).advance(15)
    tab = await open_tab(serve.at("local/cartpole"), color_scheme="dark")
    await tab.drawn(4)

    ground = await tab.page.evaluate("getComputedStyle(document.body).backgroundColor")
    axis = await tab.page.evaluate("document.querySelector('.chart.chart-curve').layout.font.color")
    assert ground == "rgb(16, 20, 20)"
    assert axis == "rgb(232, 238, 237)"
    await tab.shot("dark")


async def test_updates_move_nothing(data, serve, open_tab):
    search = data.search("cartpole")
    search.advance(4)
    data.hold(search)
    tab = await open_tab(serve.at("local/cartpole"), reduced_motion="reduce")
    await tab.drawn(4)
    await expect(tab.page.get_by_label("Generation, as a number")).to_have_value("3")
    places = """() => [...document.querySelectorAll('.panel')]
        .map((each) => [each.ariaLabel, Math.round(each.getBoundingClientRect().top)])"""
    await expect(panel(tab, "Spec")).to_contain_text("seed")
    before = await tab.page.evaluate(places)

    search.advance(3)
    await expect(tab.page.get_by_label("Generation, as a number")).to_have_value("6")
    await expect(panel(tab, "Generation")).to_contain_text("Generation 6")

    assert await tab.page.evaluate(places) == before


async def test_a_lost_server_leaves_the_curve_and_goes_on_where_it_was(data, serve, open_tab):
    search = data.search("cartpole")
    search.advance(5)
    data.hold(search)
    tab = await open_tab(serve.at("local/cartpole"))
    await tab.drawn(4)

    serve.stop()
    await expect(tab.page.locator("#banner")).to_contain_text("The connection is lost")
    assert await last_x(tab) == 4
    await tab.shot("lost-detail", full=False)
    search.advance(3)
    serve.start()

    await tab.page.wait_for_function(
        "() => document.querySelector('.chart.chart-curve').data.find((t) => t.name === 'Mean').x.at(-1) === 7"
    )
    await expect(tab.page.locator("#banner")).to_be_hidden()


async def test_the_keyboard_opens_and_closes_the_downloads(data, serve, open_tab):
    data.search("cartpole", generations=3).advance(3)
    tab = await open_tab(serve.at("local/cartpole"))
    summary = tab.page.locator("details.menu > summary")
    await summary.focus()

    await tab.page.keyboard.press("Enter")
    await tab.page.keyboard.press("Tab")
    await expect(tab.page.locator(".menu-list a").first).to_be_focused()
    await tab.page.keyboard.press("Escape")

    await expect(summary).to_be_focused()
    await expect(tab.page.locator(".menu-list")).to_be_hidden()


async def test_whatever_can_be_used_has_a_name(data, serve, open_tab):
    data.search("cartpole", generations=3, repeats=2).advance(3)
    tab = await open_tab(serve.at("local/cartpole"))
    await tab.drawn(4)

    nameless = await tab.page.evaluate(
        """() => [...document.querySelectorAll('a, button, input, select, video, summary')]
            .filter((each) => !each.closest('.chart'))
            .filter((each) => !(each.ariaLabel || each.textContent.trim() || each.labels?.length))
            .map((each) => each.outerHTML)"""
    )

    assert nameless == []
