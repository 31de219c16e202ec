//! What players ask a development cluster's pages for: sign-in tokens, and the map.

use std::time::Duration;

use anyhow::{Context, bail};
use serde::Deserialize;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// Longest answer that is read.
const ANSWER_MAX_BYTES: u64 = 4 * 1024 * 1024;
/// Longest time for an answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);

#[derive(Deserialize)]
struct Minted {
    token: String,
}

/// Asks the node at `http` (`http://host:port`) for a token of `account`.
pub(crate) async fn fetch(http: &str, account: &str) -> anyhow::Result<String> {
    let body = page(http, &format!("/play/token?name={account}")).await?;
    Ok(serde_json::from_str::<Minted>(&body).with_context(|| format!("{http} answered something else than a token"))?.token)
}

/// The map that the node at `http` gives out.
pub(super) async fn fetch_map(http: &str) -> anyhow::Result<String> {
    page(http, "/play/map.json").await
}

async fn page(http: &str, path: &str) -> anyhow::Result<String> {
    let address = http.strip_prefix("http://").with_context(|| format!("{http:?} is not http://host:port"))?;
    timeout(ANSWER_WITHIN, get(address, path)).await.with_context(|| format!("{http} did not answer {path} in time"))?
}

async fn get(address: &str, path: &str) -> anyhow::Result<String> {
    let mut stream = TcpStream::connect(address).await.with_context(|| format!("can not reach {address}"))?;
    // HTTP/1.0: the answer ends with the connection.
    let request = format!("GET {path} HTTP/1.0\r\nHost: {address}\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    stream.take(ANSWER_MAX_BYTES).read_to_string(&mut answer).await?;
    let (head, body) = answer.split_once("\r\n\r\n").context("the answer has no end of its head")?;
    let status = head.lines().next().unwrap_or_default();
    if status.split(' ').nth(1) != Some("200") {
        bail!("{address} does not give {path}: {status}: {}", body.trim());
    }
    Ok(body.to_owned())
}
