//! A run as one page: open the file in a browser, nothing else is needed.
//!
//! What is drawn is computed here, in `model.rs`, and handed to the page as JSON; the page's own script only draws it. Texts come from
//! the code under test, so none of them reaches the page as markup.

mod model;

use std::fs;
use std::io;
use std::path::Path;

use super::Recording;

const TEMPLATE: &str = include_str!("page.html");
const STYLE: &str = include_str!("page.css");
const SCRIPT: &str = include_str!("page.js");

/// Draws a run.
///
/// # Errors
/// The file can not be written.
pub fn write(path: &Path, recording: &Recording) -> io::Result<()> {
    fs::write(path, render(recording)?)
}

/// Stands in the file until the run has ended.
pub(super) fn write_unfinished(path: &Path, recording: &Recording) -> io::Result<()> {
    let about = &recording.about;
    let text = format!(
        "The run of scenario {} under seed {} has not ended, or its process was ended before it could be drawn. A trace in text is \
         written as the run goes on: give --trace a name that does not end in .html.",
        about.scenario, about.seed
    );
    fs::write(path, format!("<!doctype html>\n<meta charset=\"utf-8\">\n<title>Not drawn</title>\n<p>{}</p>\n", escape(&text)))
}

fn render(recording: &Recording) -> io::Result<String> {
    let about = &recording.about;
    // "<" would let a text end the script that holds it.
    let data = serde_json::to_string(&model::Model::of(recording)).map_err(io::Error::other)?.replace('<', "\\u003c");
    let title = escape(&format!("{} under seed {}", about.scenario, about.seed));
    // The data last: what it says is not looked at for places to fill.
    let page = TEMPLATE.replace("{{title}}", &title).replace("{{style}}", STYLE).replace("{{script}}", SCRIPT);
    Ok(page.replacen("{{data}}", &data, 1))
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests;
