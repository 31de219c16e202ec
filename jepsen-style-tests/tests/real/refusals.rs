//! Bad starts: each is refused with an error that names the thing, exit code 1, no panic; and the data is as it was.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, ensure};
use marchland_jepsen::cluster::Cluster;
use tokio::net::TcpListener;
use tokio::process::Child;
use tokio::time::sleep;

use crate::scene::{Load, Outcome, Scene};

const END_WITHIN: Duration = Duration::from_secs(20);

pub async fn run(scene: &Scene) -> anyhow::Result<Outcome> {
    let mut cluster = scene.cluster(&[])?;
    cluster.start().await?;
    // So that the log has a middle.
    let mut load = Load::start(&cluster, 3, &scene.folder.join("history.jsonl"))?;
    load.until_acknowledged(60).await?;
    load.settle().await?;
    let tick = cluster.region().await?.tick;
    cluster.stop().await?;
    let mut shown = Vec::new();
    shown.extend(configurations(scene, &cluster).await?);
    shown.extend(ports(scene, &cluster).await?);
    shown.extend(folders(scene, &cluster).await?);
    // After all of that the world goes on.
    cluster.start().await?;
    ensure!(cluster.region().await?.tick >= tick, "the world went back");
    ensure!(cluster.verify().await?.sound(), "the world is damaged");
    cluster.stop().await?;
    Ok(Outcome::Shown(shown.join(", ")))
}

/// Starts a node that must refuse, and say all of `says`.
async fn refused(scene: &Scene, config: &Path, what: &str, says: &[&str]) -> anyhow::Result<String> {
    let config = config.to_str().context("a path that is not UTF-8")?;
    let (status, text) = scene.binary.run(&["node", "--config", config], END_WITHIN).await.with_context(|| what.to_owned())?;
    ensure!(status.code() == Some(1), "{what}: ended with {status}:\n{text}");
    ensure!(!text.contains("panicked at"), "{what}: panicked:\n{text}");
    for word in says {
        ensure!(text.contains(word), "{what}: does not say {word:?}:\n{text}");
    }
    Ok(what.to_owned())
}

async fn configurations(scene: &Scene, cluster: &Cluster) -> anyhow::Result<Vec<String>> {
    let good = std::fs::read_to_string(cluster.node_config(1))?;
    // Beside the good one: paths in it are relative.
    let bad = cluster.node_config(1).with_file_name("bad.toml");
    let named = "bad.toml";
    let mut shown = Vec::new();
    let swapped = |from: &str, to: &str| good.replacen(from, to, 1);
    let cases: [(&str, String, &[&str]); 5] = [
        ("configuration with an unknown key", format!("colour = \"red\"\n{good}"), &[named, "colour"]),
        ("configuration cut short", good[..good.len() / 2].to_owned(), &[named]),
        ("configuration that is no text", "\u{0}\u{1}\u{2}".to_owned(), &[named]),
        ("configuration of a node that is no member", swapped("node = 1\n", "node = 7\n"), &[named, "members"]),
        ("configuration without certificates", swapped("certificate = \"node.pem\"", "certificate = \"no.pem\""), &["no.pem"]),
    ];
    for (what, text, says) in cases {
        ensure!(text != good, "{what}: nothing was changed");
        std::fs::write(&bad, text)?;
        shown.push(refused(scene, &bad, what, says).await?);
    }
    // Another node's certificate.
    std::fs::write(
        &bad,
        swapped("certificate = \"node.pem\"", "certificate = \"../node-2/node.pem\"").replacen(
            "key = \"node.key\"",
            "key = \"../node-2/node.key\"",
            1,
        ),
    )?;
    shown.push(refused(scene, &bad, "certificate of another node", &["node 1", "node/2"]).await?);
    std::fs::remove_file(&bad)?;
    let missing = bad.with_file_name("missing.toml");
    shown.push(refused(scene, &missing, "configuration that is not there", &["missing.toml"]).await?);
    Ok(shown)
}

async fn ports(scene: &Scene, cluster: &Cluster) -> anyhow::Result<Vec<String>> {
    let config = cluster.node_config(1);
    let text = std::fs::read_to_string(&config)?;
    let listen = text.split("[listen]").nth(1).context("no [listen]")?;
    let mut shown = Vec::new();
    for key in ["grpc", "http", "ws"] {
        let line = listen.lines().find(|line| line.starts_with(&format!("{key} = "))).context("no such port")?;
        let address = line.split('"').nth(1).context("no address")?;
        let _taken = TcpListener::bind(address).await?;
        shown.push(refused(scene, &config, &format!("{key} port in use"), &[address]).await?);
    }
    Ok(shown)
}

async fn folders(scene: &Scene, cluster: &Cluster) -> anyhow::Result<Vec<String>> {
    let (config, data) = (cluster.node_config(1), cluster.node_data(1));
    let mut shown = Vec::new();

    // Node 1 with the folder of node 2.
    let (aside, other) = (data.with_extension("aside"), cluster.node_data(2));
    std::fs::rename(&data, &aside)?;
    std::fs::rename(&other, &data)?;
    shown.push(refused(scene, &config, "data folder of another node", &["belongs to node 2"]).await?);
    std::fs::rename(&data, &other)?;

    // Somebody's documents.
    std::fs::create_dir(&data)?;
    std::fs::write(data.join("thesis.txt"), "x")?;
    shown.push(refused(scene, &config, "folder with something else in it", &["thesis.txt"]).await?);
    ensure!(std::fs::read(data.join("thesis.txt"))? == b"x", "it was touched");
    std::fs::remove_dir_all(&data)?;
    std::fs::rename(&aside, &data)?;

    // A newer version, and a damaged record of whose it is.
    let record = data.join("node");
    let text = std::fs::read_to_string(&record)?;
    std::fs::write(&record, text.replacen("format 1", "format 9", 1))?;
    shown.push(refused(scene, &config, "data folder of a newer version", &["format 9"]).await?);
    std::fs::write(&record, text.replacen("node 1", "node 3", 1))?;
    shown.push(refused(scene, &config, "damaged data folder", &["data folder", "checksum"]).await?);
    std::fs::write(&record, &text)?;

    // In use: a second process with other ports.
    let mut first = start(scene, &config)?;
    let second = config.with_file_name("second.toml");
    let ported = std::fs::read_to_string(&config)?;
    let listen_at = ported.find("[listen]").context("no [listen]")?;
    let end = listen_at + ported[listen_at..].find("\n\n").unwrap_or(ported.len() - listen_at);
    let free = "[listen]\ngrpc = \"127.0.0.1:0\"\nhttp = \"127.0.0.1:0\"\nws = \"127.0.0.1:0\"";
    std::fs::write(&second, format!("{}{free}{}", &ported[..listen_at], &ported[end..]))?;
    sleep(Duration::from_secs(2)).await;
    ensure!(first.try_wait()?.is_none(), "the first process has ended");
    shown.push(refused(scene, &second, "data folder in use", &["in use by another process"]).await?);
    first.kill().await?;
    std::fs::remove_file(&second)?;

    // A byte of the log has rotted, well below its end.
    let segments = std::fs::read_dir(data.join("log"))?.filter_map(|entry| Some(entry.ok()?.path()));
    let segment = segments.filter(|path| path.is_file()).min().context("no segment of the log")?;
    let good = std::fs::read(&segment)?;
    let last = good.iter().rposition(|byte| *byte != 0).context("an empty segment")?;
    let mut rotten = good.clone();
    // Zeros may be padding, which nothing depends on.
    let place = good[..last / 2].iter().rposition(|byte| *byte != 0).context("no middle")?;
    rotten[place] ^= 0x40;
    std::fs::write(&segment, &rotten)?;
    let name = segment.file_name().and_then(|name| name.to_str()).context("no name")?.to_owned();
    shown.push(refused(scene, &config, "rot in the middle of the log", &[&name]).await?);
    ensure!(std::fs::read(&segment)? == rotten, "the rotten segment was changed");
    std::fs::write(&segment, &good)?;
    Ok(shown)
}

fn start(scene: &Scene, config: &Path) -> anyhow::Result<Child> {
    let mut command = scene.binary.command();
    command.args(["node", "--config"]).arg(config).stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null());
    Ok(command.spawn()?)
}
