// SPDX-License-Identifier: MIT OR Apache-2.0
//! `cargo xtask map`: pages of `s2dump map` in a real browser: what they show, by pointer and by keyboard, in light and dark, and
//! that the console stays empty. Pictures of `--svg` too, as the browser and as librsvg draw them. Times are printed, not asserted.
//! Screenshots are for people.

mod browser;
mod page;

use crate::ctx::Ctx;
use crate::process::{command, is_on_path};
use crate::step::Step;
use anyhow::{ensure, Context, Result};
use browser::{Browser, PROGRAMS};
use page::{colors, Page};
use std::path::Path;

/// Name of the check.
pub(crate) const NAME: &str = "map in a browser";

/// Makes the pages, and looks at them if there is a browser.
///
/// # Errors
///
/// If a page is not what it should be.
pub(crate) fn run(ctx: &Ctx) -> Result<()> {
    let step = Step::start(NAME);
    check(ctx, &step)?;
    step.done();
    Ok(())
}

/// Does the same as a step of other checks.
///
/// # Errors
///
/// If a page is not what it should be.
pub(crate) fn check(ctx: &Ctx, step: &Step) -> Result<()> {
    let mut cargo = command("cargo");
    cargo.current_dir(&ctx.root).args(["test", "--quiet", "--locked", "--package", "s2dump", "--test", "map"]);
    cargo.args(["--", "--include-ignored"]);
    step.run(&mut cargo, &ctx.log("map"))?;
    if let Some(missing) = PROGRAMS.into_iter().find(|program| !is_on_path(program)) {
        println!("map: not run in a browser: there is no {missing} (Debian: apt install chromium chromium-driver)");
        return Ok(());
    }
    let directory = ctx.target.join("tmp/map");
    let browser = Browser::start()?;
    for (name, test) in PAGES {
        let page = Page { browser: &browser, directory: directory.clone(), name };
        page.open()?;
        test(&page).with_context(|| format!("{name}.html"))?;
        page.themes()?;
        page.end()?;
    }
    for name in PICTURES {
        picture(&browser, &directory.join(name), step, &ctx.log("map")).with_context(|| format!("{name}.svg"))?;
    }
    println!("map: screenshots are in {}", directory.display());
    Ok(())
}

/// What tools for documents make pictures with, as Debian 12 has it. It knows less of CSS than a browser.
const RSVG: &str = "rsvg-convert";
const PICTURES: [&str; 2] = ["small", "changed"];
/// Of the small machine's classes and text; shades at edges make more.
const LEAST_COLORS: u64 = 30;

/// Has the picture at `path` as many colors as it should, as the browser draws it and as librsvg does?
fn picture(browser: &Browser, path: &Path, step: &Step, log: &Path) -> Result<()> {
    let svg = path.with_extension("svg");
    let mut drawn = vec![svg.clone()];
    if is_on_path(RSVG) {
        let png = path.with_extension("svg.png");
        step.run(command(RSVG).arg("-o").arg(&png).arg(&svg), log)?;
        drawn.push(png);
    } else {
        println!("map: not drawn by librsvg: there is no {RSVG} (Debian: apt install librsvg2-bin)");
    }
    for file in drawn {
        let name = file.file_name().unwrap_or_default().display();
        browser.open(&format!("file://{}", file.display()))?;
        let found = colors(browser, THE_FILE)?;
        println!("map: {name}: {found} colors");
        ensure!(found >= LEAST_COLORS, "{name} has {found} colors");
    }
    Ok(())
}

/// The file that is open, as a canvas.
const THE_FILE: &str = "(async () => {
    const image = new Image(), canvas = document.createElementNS('http://www.w3.org/1999/xhtml', 'canvas');
    image.src = location.href;
    await image.decode();
    [canvas.width, canvas.height] = [image.width, image.height];
    canvas.getContext('2d').drawImage(image, 0, 0);
    return canvas;
})()";

/// What a page is to do.
type Test = fn(&Page<'_>) -> Result<()>;

const PAGES: [(&str, Test); 4] = [("small", small), ("changed", changed), ("scattered", scattered), ("shared", shared)];

/// A machine with some of everything: what is told of places, by search, keyboard, pointer and legend.
fn small(page: &Page<'_>) -> Result<()> {
    by_keys(page)?;
    let rows = "return [...document.querySelectorAll('#legend tbody tr')].map((row) => row.innerText)";
    let rows = page.browser.run(rows)?;
    let rows = rows.as_array().into_iter().flatten().filter_map(|row| row.as_str());
    let rows: Vec<String> = rows.map(|row| row.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
    ensure!(rows == LEGEND, "the legend is {rows:#?}");
    page.find("vm:0x1000@0x8000_0000")?;
    page.says(
        "point",
        "vm:0x1000 0x80000000–0x80000fff owner vm:0x1000 alone host's entry L3 owner=vm:0x1000, where it has it frame \
         host=no-page hyp=no-page entries L3 rwx normal-wb owned (4 KiB) physical 0x40800000 hyp 0x200000000000 L3 rw- \
         normal-wb fixmap",
    )?;
    page.browser.press("ArrowRight")?;
    page.says("said", "vm:0x1000 0x80001000, 4 KiB: vm:0x1000 alone, physical 0x40802000")?;
    page.browser.press("Enter")?;
    page.says("said", "physical 0x40802000, 4 KiB: vm:0x1000 alone, vm:0x1000 0x80001000")?;
    // EL2 looks at it too; the guest's tree says more.
    page.find("0x4080_0000")?;
    page.browser.press("Enter")?;
    page.says("said", "vm:0x1000 0x80000000, 4 KiB: vm:0x1000 alone, physical 0x40800000, hyp 0x200000000000")?;
    page.find("1.5G")?;
    page.says("status", "“1.5G” is no address: write 0x4080_0000, or 2G.")?;
    page.browser.press("Escape")?;
    page.says("status", "")?;
    page.find("vm:0x1000@0x80009000")?;
    page.says(
        "point",
        "vm:0x1000 0x80009000–0x80009fff is poisoned (taken back from a guest) entries L3 poisoned (4 KiB)",
    )?;
    page.browser.press("Escape")?;
    page.browser.press("0")?;
    page.settle()?;
    let place = page.browser.run(
        "const box = document.getElementById('memory').getBoundingClientRect(); return [box.left + 300, box.top + 20]",
    )?;
    let at = |index: usize| place[index].as_f64().context("no place");
    page.browser.point(at(0)?, at(1)?)?;
    let told = page.text("point")?;
    ensure!(told.starts_with("physical 0x80") && told.contains("devices that the host maps"), "by pointer: {told}");
    page.settle()?;
    let colors = colors(page.browser, "document.querySelector('#memory canvas')")?;
    ensure!(colors > 8, "{colors} colors");
    let pressed = "const buttons = document.querySelectorAll('#legend button'); buttons[0].click();
        return [...buttons].map((button) => button.getAttribute('aria-pressed')).filter((is) => is === 'true').length";
    ensure!(page.browser.run(pressed)? == 1, "the legend does not choose");
    Ok(())
}

/// Whose, how much memory, how many input addresses. `s2dump frames --summary` has the same by state: 28.9 MiB owned/no-page,
/// 1040 KiB no-page/owned (EL2's and table pages), 48 KiB no-page/no-page (the two protected guests' own), 1 MiB without states.
const LEGEND: [&str; 13] = [
    "host alone 28.9MiB 4KiB",
    "host, shared with EL2 or untold 12KiB 4KiB",
    "EL2 876KiB 880KiB",
    "table pages 164KiB 164KiB",
    "vm:0x1000 alone 32KiB 32KiB",
    "vm:0x1000 and host 4KiB 4KiB",
    "vm:0x1001 alone 16KiB 16KiB",
    "vm:0x1002 and host 2056KiB 2064KiB",
    "vm:0x1003 and host - 8KiB",
    "mapped by several guest entries 8KiB -",
    "poisoned (taken back from a guest) - 4KiB",
    "devices that the host maps 2052KiB -",
    "memory without states 1MiB -",
];

/// From nothing to a page with no pointer: all that can be pressed, in the order in which it is read.
fn by_keys(page: &Page<'_>) -> Result<()> {
    let focus = |expected| {
        page.browser.press("Tab")?;
        let focus = page.browser.run("return document.activeElement.id")?;
        ensure!(focus == expected, "Tab comes to {focus}, and not to #{expected}");
        Ok(())
    };
    // The button beside the address has no name.
    ["where", "address", "", "all", "out", "in", "memory"].into_iter().try_for_each(focus)?;
    page.says("scale", "cell = 16 KiB")?;
    page.browser.press("ArrowDown")?;
    page.browser.press("ArrowDown")?;
    page.says("said", "physical 0x8100000, 16 KiB: devices that the host maps")?;
    (0..8).try_for_each(|_| page.browser.press("+"))?;
    page.says("scale", "cell = page")?;
    page.browser.press("ArrowRight")?;
    page.says("said", "physical 0x8101000, 4 KiB: devices that the host maps")?;
    focus("tables")
}

/// The same machine some time later: changes are counted, and told one by one.
fn changed(page: &Page<'_>) -> Result<()> {
    page.says("change", "14 changes")?;
    page.browser.press("n")?;
    page.says("change", "1 of 14")?;
    page.says(
        "point",
        "vm:0x1000 0x80000000–0x80000fff owner vm:0x1000 and host host's entry L3 rwx normal-wb frame \
         host=shared-borrowed hyp=no-page entries L3 rwx normal-wb shared-owned (4 KiB) physical 0x40800000 hyp \
         0x200000000000 L3 rw- normal-wb fixmap before vm:0x1000: rwx normal-wb owned now vm:0x1000: rwx normal-wb \
         shared-owned before host: owner=vm:0x1000 0x80000000 now host: rwx normal-wb 0x40800000 before frames: \
         host=no-page hyp=no-page now frames: host=shared-borrowed hyp=no-page",
    )?;
    // The second page of two that changed together.
    page.find("vm:0x1000@0x8000_b000")?;
    page.says(
        "point",
        "vm:0x1000 0x8000b000–0x8000bfff owner vm:0x1000 alone host's entry L3 owner=vm:0x1000, where it has it frame \
         host=no-page hyp=no-page entries L3 rwx normal-wb owned (4 KiB) physical 0x4081b000 before vm:0x1000: nothing \
         now vm:0x1000: rwx normal-wb owned 0x4081b000 before host: nothing now host: owner=vm:0x1000 0x8000b000 before \
         frames: host=owned hyp=no-page now frames: host=no-page hyp=no-page",
    )?;
    page.find("0x40a0_2000")?;
    page.says(
        "point",
        "physical 0x40a02000–0x40a02fff owner host alone host's entry L2 hole frame host=owned hyp=no-page before host: \
         owner=vm:0x1001 0x80002000 now host: nothing before frames: host=no-page hyp=no-page now frames: host=owned \
         hyp=no-page",
    )?;
    page.browser.run("document.getElementById('only').click()")?;
    page.save("changes")?;
    page.browser.run("document.getElementById('only').click()").map(drop)
}

/// Half a million pages: nothing stutters.
fn scattered(page: &Page<'_>) -> Result<()> {
    page.find("vm:0x1003@0x8000_0000")?;
    let told = page.text("point")?;
    ensure!(told.contains("owner vm:0x1003 alone host's entry L3 owner=vm:0x1003, where it has it"), "{told}");
    scroll(page)
}

/// The same where a hundred thousand ranges changed.
fn shared(page: &Page<'_>) -> Result<()> {
    page.says("change", "100,455 changes")?;
    page.find("vm:0x1003@0x8000_0000")?;
    scroll(page)
}

/// Says how long frames take in which both sides are scrolled, from what is found on out.
fn scroll(page: &Page<'_>) -> Result<()> {
    for (zoom, presses) in [("a page", 0), ("16 KiB", 3), ("256 KiB", 4)] {
        (0..presses).try_for_each(|_| page.browser.press("-"))?;
        page.settle()?;
        let scroll = "return new Promise((done) => {
            const views = ['memory', 'tables'].map((id) => document.getElementById(id)), times = [];
            let last = performance.now(), spent = 0;
            const step = (now) => {
                times.push(now - last);
                last = now;
                for (const view of views) view.scrollTop += 97;
                if (times.length < 121) requestAnimationFrame(step);
                else {
                    times.shift();
                    times.sort((a, b) => a - b);
                    done([times[60], times[114], times[119]]);
                }
            };
            for (const view of views) view.scrollTop = 0;
            requestAnimationFrame(step);
        })";
        let times = page.browser.run(scroll)?;
        let time = |index: usize| times[index].as_f64().unwrap_or(f64::NAN);
        println!(
            "map: {}.html: scrolled, a cell is {zoom}: a frame takes {:.1} ms, 19 of 20 at most {:.1} ms, all {:.1} ms",
            page.name,
            time(0),
            time(1),
            time(2)
        );
    }
    page.browser.press("0")?;
    let move_on = "const memory = document.getElementById('memory');
        const press = (key) => memory.dispatchEvent(new KeyboardEvent('keydown', { key }));
        press('PageDown');
        const begun = performance.now();
        for (let step = 0; step < 20; step++) press('ArrowLeft');
        return (performance.now() - begun) / 20";
    let took = page.browser.run(move_on)?.as_f64().unwrap_or(f64::NAN);
    println!("map: {}.html: to tell what a cell of all has takes {took:.1} ms", page.name);
    Ok(())
}
