//! Embeds the pages of the browser client: every script, style and page in `clients/web`, and nothing below it.
//!
//! A list by hand would be one more place to forget; what a directory holds at build time is what the node serves.

use std::error::Error;
use std::fmt::Write as _;
use std::path::Path;

const PAGES: &str = "../clients/web";

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed={PAGES}");
    let mut files = Vec::new();
    for entry in std::fs::read_dir(PAGES)? {
        let path = entry?.path().canonicalize()?;
        let content_type = match path.extension().and_then(|extension| extension.to_str()) {
            Some("html") => "text/html; charset=utf-8",
            Some("js") => "text/javascript; charset=utf-8",
            Some("css") => "text/css; charset=utf-8",
            Some("svg") => "image/svg+xml",
            _ => continue,
        };
        let name = path.file_name().and_then(|name| name.to_str()).ok_or("a page's name is not UTF-8")?.to_owned();
        files.push((name, content_type, path));
    }
    files.sort();
    let mut code = String::from("&[\n");
    for (name, content_type, path) in &files {
        println!("cargo:rerun-if-changed={}", path.display());
        writeln!(code, "    ({name:?}, {content_type:?}, include_str!({path:?})),")?;
    }
    code.push_str("]\n");
    let out = std::env::var_os("OUT_DIR").ok_or("OUT_DIR is not set")?;
    std::fs::write(Path::new(&out).join("pages.rs"), code)?;
    Ok(())
}
