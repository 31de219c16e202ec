//! The generated tables of `proto/README.md`: refusal codes from their definition in Rust, limits from `marchland-types`.
//!
//! Only what stands between the markers is replaced; the text around them is written by hand.

use std::fmt::Write;

use anyhow::{Context, Result, bail, ensure};
use marchland_types::limits;

/// Where the codes are defined, with their remedies as documentation.
pub const CODES: &str = "proto/src/codes.rs";
/// The page that holds the tables.
pub const README: &str = "proto/README.md";

/// A refusal code as its definition documents it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CodeLine {
    /// On the wire.
    pub number: u32,
    /// As in Rust.
    pub name: String,
    /// What it means: one or two sentences.
    pub meaning: String,
    /// What to do about it; empty when there is nothing to do.
    pub remedy: String,
}

/// Reads the codes from the text of [`CODES`].
pub fn codes(source: &str) -> Result<Vec<CodeLine>> {
    let body = source.split_once("pub enum Code {").context("no `pub enum Code` in the codes")?.1;
    let body = body.split_once("\n}").context("`enum Code` does not end")?.0;
    let mut lines = Vec::new();
    let mut docs = String::new();
    for line in body.lines().map(str::trim) {
        if let Some(text) = line.strip_prefix("///") {
            docs.push_str(text);
        } else if let Some((name, number)) = line.trim_end_matches(',').split_once(" = ") {
            let number = number.parse().with_context(|| format!("code {name} has no number"))?;
            let text = docs.trim();
            let (meaning, remedy) = text.split_once(" Remedy: ").unwrap_or((text, ""));
            ensure!(!meaning.is_empty(), "code {name} is not documented");
            lines.push(CodeLine { number, name: name.to_owned(), meaning: meaning.to_owned(), remedy: capital(remedy) });
            docs.clear();
        }
    }
    ensure!(!lines.is_empty(), "no codes found");
    Ok(lines)
}

/// `readme` with its tables written anew.
pub fn fill(readme: &str, codes: &[CodeLine]) -> Result<String> {
    let readme = replace(readme, "codes", &code_table(codes))?;
    replace(&readme, "limits", &limit_table())
}

fn capital(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map_or_else(String::new, |first| first.to_uppercase().chain(chars).collect())
}

fn replace(readme: &str, name: &str, table: &str) -> Result<String> {
    let begin = format!("<!-- generated: {name} -->\n");
    let end = "<!-- end -->";
    let Some((before, rest)) = readme.split_once(&begin) else { bail!("{README} has no marker for {name}") };
    let (_, after) = rest.split_once(end).with_context(|| format!("{README}: the marker for {name} does not end"))?;
    Ok(format!("{before}{begin}{table}{end}{after}"))
}

fn code_table(codes: &[CodeLine]) -> String {
    let mut table = String::from("| code | name | meaning | remedy |\n|---|---|---|---|\n");
    for CodeLine { number, name, meaning, remedy } in codes {
        let remedy = if remedy.is_empty() { "–" } else { remedy };
        let _ = writeln!(table, "| {number} | `{name}` | {meaning} | {remedy} |");
    }
    table
}

fn limit_table() -> String {
    let rows: [(&str, u64, &str, &str); 20] = [
        ("message from a client", limits::CLIENT_MESSAGE_MAX_BYTES as u64, "bytes", "`TooLarge`"),
        ("inputs in one `Commands`", limits::INPUTS_PER_MESSAGE_MAX as u64, "", "`TooLarge`"),
        ("`Input.duration_ms`", limits::INPUT_MAX_MS.into(), "ms", "`TooLarge`"),
        ("`Action.body`", limits::ACTION_MAX_BYTES as u64, "bytes", "`TooLarge`"),
        ("`Hello.client_name`", limits::CLIENT_NAME_MAX_BYTES as u64, "bytes", "`TooLarge`"),
        ("`SignIn.character_name`", limits::NAME_MAX_BYTES as u64, "bytes", "`BadName`"),
        ("`resume_secret`, exactly", limits::RESUME_SECRET_BYTES as u64, "bytes", "`BadResume`"),
        ("inputs on their way", limits::UNACKED_COMMANDS_MAX as u64, "", "`TooMany`"),
        ("messages, sustained", limits::CLIENT_MESSAGES_PER_S.into(), "a second", "`TooMany`"),
        ("messages, burst", limits::CLIENT_MESSAGES_BURST.into(), "", "`TooMany`"),
        ("`Ping`s, sustained", limits::PINGS_PER_S.into(), "a second", "`TooMany`"),
        ("`Ping`s, burst", limits::PINGS_BURST.into(), "", "`TooMany`"),
        ("time to `Hello`", limits::HELLO_DEADLINE_MS, "ms", "`IdleTimeout`"),
        ("time to its answer", limits::JOIN_DEADLINE_MS, "ms", "`Unavailable`"),
        ("silence of a client", limits::IDLE_TIMEOUT_MS, "ms", "`IdleTimeout`"),
        ("linger after a lost socket", limits::LINGER_MS, "ms", "the character leaves the world"),
        ("moves queued in the region", limits::QUEUED_MOVES_MAX as u64, "", "a reply `TooMany`"),
        ("replies that wait for acknowledgement", limits::KEPT_REPLIES_MAX as u64, "", "`TooMany`"),
        ("bytes of those", limits::KEPT_REPLIES_MAX_BYTES as u64, "bytes", "`TooMany`"),
        ("entities in view", limits::VISIBLE_MAX as u64, "", "nearest and most important first"),
    ];
    let mut table = String::from("| what | at most | beyond it |\n|---|---|---|\n");
    for (what, most, unit, beyond) in rows {
        let gap = if unit.is_empty() { "" } else { " " };
        let _ = writeln!(table, "| {what} | {}{gap}{unit} | {beyond} |", thousands(most));
    }
    table
}

fn thousands(value: u64) -> String {
    let digits = value.to_string();
    let mut out = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_read_with_their_remedies() {
        let source = "pub enum Code {\n    /// Fine.\n    Ok = 0,\n    /// A name\n    /// is bad. Remedy: choose another.\n    BadName = 7,\n}\n";
        let lines = codes(source).unwrap();
        assert_eq!(lines[0], CodeLine { number: 0, name: "Ok".into(), meaning: "Fine.".into(), remedy: String::new() });
        assert_eq!(
            lines[1],
            CodeLine { number: 7, name: "BadName".into(), meaning: "A name is bad.".into(), remedy: "Choose another.".into() }
        );
        assert!(codes("pub enum Code {\n    Ok = 0,\n}\n").is_err(), "an undocumented code");
        assert!(codes("pub enum Code {\n    /// Fine.\n    Ok = x,\n}\n").is_err(), "no number");
    }

    #[test]
    fn only_what_is_between_the_markers_changes() {
        let page = "a\n<!-- generated: codes -->\nold\n<!-- end -->\nb\n<!-- generated: limits -->\n<!-- end -->\nc\n";
        let filled = fill(page, &[]).unwrap();
        assert!(filled.starts_with("a\n<!-- generated: codes -->\n| code"));
        assert!(!filled.contains("old") && filled.ends_with("<!-- end -->\nc\n") && filled.contains("<!-- end -->\nb\n"));
        assert_eq!(fill(&filled, &[]).unwrap(), filled, "filling twice changes nothing");
        assert!(fill("no markers", &[]).is_err());
    }

    #[test]
    fn large_numbers_are_grouped() {
        assert_eq!([0, 999, 1000, 65_536, 1_234_567].map(thousands), ["0", "999", "1,000", "65,536", "1,234,567"]);
    }
}
