// SPDX-License-Identifier: MIT OR Apache-2.0
//! A headless Chromium, driven by its own driver: the WebDriver protocol, as far as it is needed here, over a local socket.

use crate::process::command;
use anyhow::{bail, Context, Result};
use serde_json::{json, Value};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Stdio};

/// The programs that are needed. Debian has them in `chromium` and `chromium-driver`.
pub(super) const PROGRAMS: [&str; 2] = ["chromium", "chromedriver"];
/// How it is started: no window, no network, nothing of the user's.
const FLAGS: [&str; 10] = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--allow-file-access-from-files",
    "--window-size=1400,900",
];

/// A browser with one window.
pub(super) struct Browser {
    driver: Child,
    port: u16,
    session: String,
    /// Its profile, which is removed with it.
    _profile: tempfile::TempDir,
}

impl Browser {
    /// Starts it.
    pub(super) fn start() -> Result<Self> {
        let profile = tempfile::tempdir()?;
        let mut driver = command(PROGRAMS[1]).arg("--port=0").stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?;
        let lines = BufReader::new(driver.stdout.take().context("chromedriver has no output")?).lines();
        // ChromeDriver was started successfully on port 12345.
        let port = lines.map_while(Result::ok).find_map(|line| {
            line.split_once("successfully on port ").and_then(|(_, port)| port.trim_end_matches('.').parse().ok())
        });
        let mut browser = Self { driver, port: 0, session: String::new(), _profile: profile };
        browser.port = port.context("chromedriver names no port")?;
        let mut flags: Vec<String> = FLAGS.map(str::to_owned).to_vec();
        flags.push(format!("--user-data-dir={}", browser._profile.path().display()));
        let capabilities = json!({ "capabilities": { "alwaysMatch": {
            "browserName": "chrome",
            "goog:chromeOptions": { "args": flags },
            "goog:loggingPrefs": { "browser": "ALL" },
        } } });
        let session = browser.send("POST", "/session", &capabilities)?;
        browser.session = session["sessionId"].as_str().context("no session")?.to_owned();
        Ok(browser)
    }

    /// Sends a request to the driver and returns the value of its answer.
    fn send(&self, method: &str, path: &str, body: &Value) -> Result<Value> {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let mut stream = TcpStream::connect(("127.0.0.1", self.port))?;
        write!(
            stream,
            "{method} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
            body.len()
        )?;
        let mut answer = BufReader::new(stream);
        let (mut line, mut length) = (String::new(), None);
        while answer.read_line(&mut line)? > 2 {
            let header = line.to_ascii_lowercase();
            length = header.strip_prefix("content-length:").and_then(|value| value.trim().parse().ok()).or(length);
            line.clear();
        }
        let mut text = Vec::new();
        match length {
            Some(length) => answer.take(length).read_to_end(&mut text)?,
            None => answer.read_to_end(&mut text)?,
        };
        let mut answer: Value = serde_json::from_slice(&text).context("the answer of chromedriver is no JSON")?;
        if let Some(error) = answer["value"]["error"].as_str() {
            bail!("{method} {path}: {error}: {}", answer["value"]["message"].as_str().unwrap_or_default());
        }
        Ok(answer["value"].take())
    }

    fn post(&self, what: &str, body: &Value) -> Result<Value> {
        self.send("POST", &format!("/session/{}/{what}", self.session), body)
    }

    /// Opens a page.
    pub(super) fn open(&self, url: &str) -> Result<()> {
        self.post("url", &json!({ "url": url })).map(drop)
    }

    /// Runs a function body in the page and returns what it returns; a promise is waited for.
    pub(super) fn run(&self, script: &str) -> Result<Value> {
        self.post("execute/sync", &json!({ "script": script, "args": [] }))
    }

    /// Sends a command of the browser's own protocol.
    pub(super) fn command(&self, name: &str, parameters: &Value) -> Result<Value> {
        self.post("goog/cdp/execute", &json!({ "cmd": name, "params": parameters }))
    }

    /// Presses and releases a key.
    pub(super) fn press(&self, key: &str) -> Result<()> {
        let code = match key {
            "Tab" => 9,
            "Enter" => 13,
            "Escape" => 27,
            "ArrowRight" => 39,
            "ArrowDown" => 40,
            _ => 0,
        };
        let text = match key {
            "Enter" => "\r",
            key if key.chars().count() == 1 => key,
            _ => "",
        };
        for kind in ["keyDown", "keyUp"] {
            let text = if kind == "keyDown" { text } else { "" };
            let event = json!({ "type": kind, "key": key, "text": text, "windowsVirtualKeyCode": code });
            self.command("Input.dispatchKeyEvent", &event)?;
        }
        Ok(())
    }

    /// Types text into what has the focus.
    pub(super) fn write(&self, text: &str) -> Result<()> {
        self.command("Input.insertText", &json!({ "text": text })).map(drop)
    }

    /// Moves the pointer there.
    pub(super) fn point(&self, x: f64, y: f64) -> Result<()> {
        self.command("Input.dispatchMouseEvent", &json!({ "type": "mouseMoved", "x": x, "y": y })).map(drop)
    }

    /// Returns the window as base64 of a PNG.
    pub(super) fn screenshot(&self) -> Result<String> {
        let path = format!("/session/{}/screenshot", self.session);
        Ok(self.send("GET", &path, &Value::Null)?.as_str().unwrap_or_default().to_owned())
    }

    /// Returns what came to the console since this was asked last.
    pub(super) fn console(&self) -> Result<Vec<String>> {
        let entries = self.post("se/log", &json!({ "type": "browser" }))?;
        let entries = entries.as_array().cloned().unwrap_or_default();
        Ok(entries.iter().map(|entry| format!("{}: {}", entry["level"], entry["message"])).collect())
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        let _ = self.send("DELETE", &format!("/session/{}", self.session), &Value::Null);
        let _ = self.driver.kill();
        let _ = self.driver.wait();
    }
}
