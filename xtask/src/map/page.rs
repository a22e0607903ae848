// SPDX-License-Identifier: MIT OR Apache-2.0
//! An open page of `s2dump map`: what it says and shows, and what all pages must do.

use super::browser::Browser;
use anyhow::{ensure, Context, Result};
use serde_json::json;
use std::path::PathBuf;

/// Returns how many colors a canvas has, which `canvas` makes or finds in the page.
pub(super) fn colors(browser: &Browser, canvas: &str) -> Result<u64> {
    let script = format!(
        "return (async () => {{
            const canvas = await {canvas}, colors = new Set();
            const pixels = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data;
            for (const pixel of new Uint32Array(pixels.buffer)) colors.add(pixel);
            return colors.size;
        }})()"
    );
    browser.run(&script)?.as_u64().context("no picture")
}

/// What the page and the first pixel of its picture are drawn on.
const PAPERS: &str = "const picture = document.querySelector('#memory canvas').getContext('2d');
    const [red, green, blue] = picture.getImageData(0, 0, 1, 1).data;
    return [getComputedStyle(document.body).backgroundColor, `rgb(${red}, ${green}, ${blue})`]";

/// An open page.
pub(super) struct Page<'b> {
    pub(super) browser: &'b Browser,
    pub(super) directory: PathBuf,
    pub(super) name: &'static str,
}

impl Page<'_> {
    pub(super) fn open(&self) -> Result<()> {
        let path = self.directory.join(self.name).with_extension("html");
        let bytes = std::fs::metadata(&path)?.len();
        self.media("light")?;
        self.browser.open(&format!("file://{}", path.display()))?;
        let drawn = self.browser.run("return document.documentElement.dataset.drawn")?;
        let drawn = drawn.as_str().context("it was not drawn")?;
        println!("map: {}.html: {bytes} bytes, drawn in {drawn} ms", self.name);
        let resources = self.browser.run("return performance.getEntriesByType('resource').length")?;
        ensure!(resources == 0, "it loads {resources} other files");
        Ok(())
    }

    fn media(&self, theme: &str) -> Result<()> {
        let features = json!({ "features": [{ "name": "prefers-color-scheme", "value": theme }] });
        self.browser.command("Emulation.setEmulatedMedia", &features).map(drop)
    }

    /// Waits until what was asked for is drawn.
    pub(super) fn settle(&self) -> Result<()> {
        let two = "return new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(() => done(0))))";
        self.browser.run(two).map(drop)
    }

    /// Returns the text of an element.
    pub(super) fn text(&self, id: &str) -> Result<String> {
        self.settle()?;
        let text = self.browser.run(&format!("return document.getElementById('{id}').innerText"))?;
        Ok(text.as_str().unwrap_or_default().split_whitespace().collect::<Vec<_>>().join(" "))
    }

    /// Is `expected` the text of an element?
    pub(super) fn says(&self, id: &str, expected: &str) -> Result<()> {
        let text = self.text(id)?;
        ensure!(text == expected, "#{id} says\n  {text}\nand should say\n  {expected}");
        Ok(())
    }

    /// Finds an address by the keyboard alone.
    pub(super) fn find(&self, address: &str) -> Result<()> {
        self.browser.press("/")?;
        self.browser.write(address)?;
        self.browser.press("Enter")
    }

    pub(super) fn save(&self, what: &str) -> Result<()> {
        self.settle()?;
        let path = self.directory.join(format!("{}-{what}.png", self.name));
        std::fs::write(path, decoded(&self.browser.screenshot()?)).map_err(Into::into)
    }

    /// Takes pictures in light and dark, of all, of the middle and of single pages.
    pub(super) fn themes(&self) -> Result<()> {
        for (theme, paper) in [("light", "rgb(255, 255, 255)"), ("dark", "rgb(21, 24, 27)")] {
            self.media(theme)?;
            self.settle()?;
            let papers = self.browser.run(PAPERS)?;
            ensure!(papers == json!([paper, paper]), "in the {theme} it is drawn on {papers}");
            self.browser.press("Escape")?;
            self.browser.press("0")?;
            self.save(&format!("{theme}-all"))?;
            self.find("vm:0x1000@0x8000_0005")?;
            (0..4).try_for_each(|_| self.browser.press("-"))?;
            self.save(&format!("{theme}-middle"))?;
            self.find("vm:0x1000@0x8000_8000")?;
            self.save(&format!("{theme}-pages"))?;
        }
        Ok(())
    }

    pub(super) fn end(&self) -> Result<()> {
        let console = self.browser.console()?;
        ensure!(console.is_empty(), "the console has {console:#?}");
        // Its policy holds: a script that is not its own does not run. The console says so.
        let foreign = "const script = document.createElement('script');
            script.textContent = 'document.title = \"foreign\"';
            document.head.append(script);
            return document.title";
        let title = self.browser.run(foreign)?;
        ensure!(title != "foreign", "a foreign script ran");
        let console = self.browser.console()?;
        ensure!(console.iter().any(|line| line.contains("Content Security Policy")), "no policy: {console:#?}");
        Ok(())
    }
}

/// Returns the bytes of a base64 text.
fn decoded(text: &str) -> Vec<u8> {
    let digit = |byte: u8| match byte {
        b'A'..=b'Z' => Some(byte - b'A'),
        b'a'..=b'z' => Some(byte - b'a' + 26),
        b'0'..=b'9' => Some(byte - b'0' + 52),
        b'+' => Some(62),
        b'/' => Some(63),
        _ => None,
    };
    let (mut bytes, mut bits, mut held) = (Vec::with_capacity(text.len() / 4 * 3), 0_u32, 0);
    for six in text.bytes().filter_map(digit) {
        bits = bits << 6 | u32::from(six);
        held += 6;
        if held >= 8 {
            held -= 8;
            bytes.push((bits >> held) as u8);
            bits &= (1 << held) - 1;
        }
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::decoded;

    #[test]
    fn base64_is_decoded() {
        assert_eq!(decoded("Zm9vYmE="), b"fooba");
        assert_eq!(decoded("Zm9vYmFy"), b"foobar");
    }
}
