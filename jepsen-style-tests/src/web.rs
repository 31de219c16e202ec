//! Just enough HTTP to ask a node's pages: GET, one answer, closed.

use std::time::Duration;

use anyhow::{Context, bail, ensure};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// Longest time for an answer.
const WITHIN: Duration = Duration::from_secs(6);
/// Largest answer that is read.
const ANSWER_MAX_BYTES: u64 = 4 * 1024 * 1024;

/// Asks `base` (`http://host:port`) for `path`; returns status and body.
pub async fn get(base: &str, path: &str) -> anyhow::Result<(u16, String)> {
    let host = base.strip_prefix("http://").with_context(|| format!("{base} is not an http:// address"))?;
    let ask = async {
        let mut stream = TcpStream::connect(host).await?;
        let request = format!("GET {path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await?;
        let mut answer = Vec::new();
        stream.take(ANSWER_MAX_BYTES).read_to_end(&mut answer).await?;
        anyhow::Ok(String::from_utf8(answer)?)
    };
    let answer = timeout(WITHIN, ask).await.with_context(|| format!("{base}{path} gave no answer"))??;
    let Some((head, body)) = answer.split_once("\r\n\r\n") else { bail!("{base}{path}: not an HTTP answer: {answer:?}") };
    let code = head.split(' ').nth(1).and_then(|code| code.parse().ok());
    ensure!(!head.to_ascii_lowercase().contains("transfer-encoding"), "{base}{path}: chunked");
    Ok((code.with_context(|| format!("{base}{path}: {head}"))?, body.to_owned()))
}
